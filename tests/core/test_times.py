"""Producers' times: whatever PuppetDB reads is the same time here; a number is milliseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.catalog.formats import Command, Skim, skim
from ingest.core.times import EPOCH, MILLISECONDS_MAX, MILLISECONDS_MIN, parse_time
from ingest.errors import Rejected
from lab.store_model import at, wire_body
from tests.core.test_formats import raw

ARRIVED = at(0)
DAY = datetime(2024, 1, 2, tzinfo=UTC)
SECOND = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
# Each was given to to-timestamp of PuppetDB 7.12.1, which answered with this time (it keeps milliseconds only).
AS_PUPPETDB: dict[Any, datetime] = {
    1712051230000: datetime(2024, 4, 2, 9, 47, 10, tzinfo=UTC),
    "2024-01-02": DAY,
    "20240102": DAY,
    "2024-002": DAY,
    "2024-W01-2": DAY,
    "2024W012": DAY,
    "2024-01": datetime(2024, 1, 1, tzinfo=UTC),
    "2024-W01": datetime(2024, 1, 1, tzinfo=UTC),
    "2024-01-02T03:04:05Z": SECOND,
    "2024-01-02T03:04:05": SECOND,
    "2024-01-02 03:04:05": SECOND,
    "2024-01-02t03:04:05z": SECOND,
    "2024-1-2T3:4:5Z": SECOND,
    "2024-002T03:04:05Z": SECOND,
    "2024-W01-2T03:04:05Z": SECOND,
    "20240102T030405Z": SECOND,
    "2024-01-02T03:04:05+01:00": SECOND - timedelta(hours=1),
    "2024-01-02T03:04:05+0100": SECOND - timedelta(hours=1),
    "2024-01-02T03:04:05+01": SECOND - timedelta(hours=1),
    "Tue, 02 Jan 2024 03:04:05 +0000": SECOND,
    "2024-01-02T03:04:05.1Z": SECOND + timedelta(milliseconds=100),
    "2024-01-02T03:04:05,123Z": SECOND + timedelta(milliseconds=123),
    "20240102T030405.123Z": SECOND + timedelta(milliseconds=123),
    "2024-01-02T03": SECOND.replace(minute=0, second=0),
    "2024-01-02T03:04": SECOND.replace(second=0),
    "2024-01-02T03:04Z": SECOND.replace(second=0),
    "1712-05-12T00:00:00Z": datetime(1712, 5, 12, tzinfo=UTC),
}
# Beyond PuppetDB, which refuses them or forgets what is finer than a millisecond.
OURS: dict[Any, datetime] = {
    "1712051230000": datetime(2024, 4, 2, 9, 47, 10, tzinfo=UTC),
    "1712051230000.5": datetime(2024, 4, 2, 9, 47, 10, 500, tzinfo=UTC),
    1712051230000.5: datetime(2024, 4, 2, 9, 47, 10, 500, tzinfo=UTC),
    1.71205123e12: datetime(2024, 4, 2, 9, 47, 10, tzinfo=UTC),
    "2024-01-02T03:04:05.123456789Z": SECOND + timedelta(microseconds=123456),
    MILLISECONDS_MIN: EPOCH + timedelta(milliseconds=MILLISECONDS_MIN),
    MILLISECONDS_MAX: datetime(9999, 12, 31, 23, 59, 59, 999000, UTC),
}
REFUSED: list[Any] = [
    0, -5, 1712051230, "1712051230", 1712051230.5, "2024", 2024, 20240102, 17120512300, "17120512300", "-1712051230000",
    MILLISECONDS_MIN - 1, MILLISECONDS_MAX + 1, 10**15, 10**30, "9" * 50, 1e300, float("nan"), float("inf"), True,
    "1e12", "0x18E", "\u0661\u0667" * 7, "yesterday", "03:04:05", "T03:04:05Z", "12024-01-02T00:00:00Z", "2024-02-30",
    "2024-366x", "2023-366", "2024-13-01", "2024-01-02T03:04:60Z", " 2024-01-02", "2024-01-02x03:04:05",
    "2024-01-02 03:04:05 UTC", "9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+10:00", "Tue, 99 Jan 2024 03:04:05 +0000",
]  # fmt: skip


@pytest.mark.parametrize("given", [*AS_PUPPETDB, *OURS], ids=str)
def test_a_time_in_any_shape_is_the_time_that_it_is(given: Any) -> None:
    """What PuppetDB reads, and what it cannot read but nobody can mistake."""
    assert parse_time(given, "producer_timestamp") == (AS_PUPPETDB | OURS)[given]


@pytest.mark.parametrize("given", REFUSED, ids=str)
def test_what_is_no_time_is_refused_in_clear_words(given: Any) -> None:
    """Seconds, years out of range, digits of other scripts: with the name of the member, and what it may be."""
    with pytest.raises(Rejected) as caught:
        parse_time(given, "producer_timestamp")
    assert caught.value.reason == "invalid"
    assert caught.value.text.startswith("producer_timestamp is ")
    assert "milliseconds since the epoch" in caught.value.text
    assert ("looks like seconds" in caught.value.text) == (
        str(given) in ("1712051230", "1712051230.5", "17120512300", str(MILLISECONDS_MIN - 1))
    )


@given(st.integers(MILLISECONDS_MIN, MILLISECONDS_MAX))
def test_milliseconds_are_the_same_as_number_and_as_text(milliseconds: int) -> None:
    """And as the ISO 8601 time that they are."""
    moment = EPOCH + timedelta(milliseconds=milliseconds)
    for given_ in (milliseconds, str(milliseconds), f"{milliseconds}.0", moment.isoformat()):
        assert parse_time(given_, "t") == moment


@pytest.mark.parametrize("place", ["payload", "dashed", "header", "native", "legacy"])
@pytest.mark.parametrize("given", [1712051230000, "1712051230000", "2024-04-02T09:47:10Z"])
def test_it_may_stand_in_the_body_or_in_a_header(place: str, given: Any) -> None:
    """In each family; a header's value is always text."""
    payload = {"certname": "ms.example.com", "version": "1", "resources": [], "edges": []}
    headers = {"producer_timestamp": str(given)} if place in ("header", "native", "legacy") else {}
    body: dict[str, Any] = {"command": "replace catalog", "version": 9, "payload": payload}
    if place in ("native", "legacy"):
        native = {"name": "ms.example.com", "version": 1745164281, "resources": [], "edges": []}
        body = native if place == "native" else {"document_type": "Catalog", "data": native}
    elif place != "header":
        payload["producer_timestamp" if place == "payload" else "producer-timestamp"] = given
    found = skim(raw(body), headers, ARRIVED)
    assert isinstance(found, Skim)
    assert found.header.producer_timestamp == datetime(2024, 4, 2, 9, 47, 10, tzinfo=UTC)


@pytest.mark.parametrize("given", [0, 1712051230, -1, 99999999999999999])
def test_a_wrong_number_is_not_taken_for_none(given: int) -> None:
    """Zero too: the message is refused, not ordered by something else."""
    body = wire_body("n", 1, []).replace(b'"2026-01-01T00:01:00+00:00"', str(given).encode())
    with pytest.raises(Rejected):
        skim(body, {}, ARRIVED)


@pytest.mark.parametrize("nothing", [b"null", b'""'])
def test_nothing_is_no_time(nothing: bytes) -> None:
    """As in a command of PuppetDB's, whose producer-timestamp may be empty: the arrival counts."""
    body = wire_body("n", 1, []).replace(b'"2026-01-01T00:01:00+00:00"', nothing)
    found = skim(body, {"producer_timestamp": ""}, ARRIVED)
    assert isinstance(found, Skim)
    assert found.header.producer_timestamp == ARRIVED


def test_a_deactivation_may_have_its_time_in_a_header() -> None:
    """As one that is given back to the queue, or whose version has none."""
    body = raw({"command": "deactivate node", "version": 2, "payload": "n"})
    found = skim(body, {"producer_timestamp": "1712051230000"}, ARRIVED)
    assert isinstance(found, Command)
    assert found.producer_timestamp == datetime(2024, 4, 2, 9, 47, 10, tzinfo=UTC)
