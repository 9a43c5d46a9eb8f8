"""When a message arrived: by the broker's stamp, else by its receipt; and which times of producers are believed."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.delivery.arrival import (
    COMES_AGAIN_WITHIN,
    Arrivals,
    Holding,
    Places,
    believable,
)
from ingest.core.delivery.work import UNPLACED, Claim, Deactivate, Descriptor, Full
from ingest.observe.seldom import Seldom
from lab.store_model import at
from tests.core.test_batching import claim, full

NOW = at(5)
STAMP_MS = 1712051230000
STAMPED = datetime(2024, 4, 2, 9, 47, 10, tzinfo=UTC)
DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)


def stamped(*messages: dict[str, str]) -> list[datetime | None]:
    arrivals = Arrivals()
    return [arrivals.stamped_at(headers) for headers in messages]


# Receipt


@given(st.lists(st.integers(-600, 600), min_size=2, max_size=30))
def test_receipts_grow_strictly_whatever_the_clock_does(steps: list[int]) -> None:
    """It stands still, and is put back by minutes: two messages never change their order."""
    arrivals, now, found = Arrivals(), NOW, []
    for step in steps:
        now += timedelta(seconds=step)
        found.append(arrivals.received_at(now))
    assert all(one < next_ for one, next_ in itertools.pairwise(found))
    assert all(receipt >= NOW - timedelta(seconds=600) for receipt in found)


def test_a_clock_that_was_wrong_by_years_is_believed_when_it_is_mended() -> None:
    """Else the receiver would live in the future for as long as it runs."""
    arrivals = Arrivals()
    assert arrivals.received_at(NOW + 3650 * DAY) == NOW + 3650 * DAY
    assert arrivals.received_at(NOW) == NOW


# Stamps


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"timestamp": str(STAMP_MS)}, STAMPED),  # ActiveMQ, Artemis, the embedded broker
        ({"timestamp": str(STAMP_MS // 1000)}, STAMPED),  # AMQP's own unit: RabbitMQ
        ({"timestamp": str(STAMP_MS // 1000), "timestamp_in_ms": f"{STAMP_MS + 7}"}, STAMPED + 7000 * MICROSECOND),
        ({"timestamp_in_ms": "soon", "timestamp": str(STAMP_MS)}, STAMPED),
        ({}, None),
        ({"timestamp": ""}, None),
        ({"timestamp": "0"}, None),  # a broker that is told not to stamp
        ({"timestamp": "-1712051230000"}, None),
        ({"timestamp": "1712051230000.5"}, None),
        ({"timestamp": "yesterday"}, None),
        ({"timestamp": "99999999999999999999"}, None),
        ({"timestamp": "9999999999999999"}, None),  # beyond the year 9999
        ({"timestamp": "\u0661\u0667\u0661\u0662\u0660\u0665\u0661\u0662\u0663\u0660\u0660\u0660\u0660"}, None),
    ],
)  # fmt: skip
def test_a_stamp_is_read_in_its_unit_or_counts_as_none(
    headers: dict[str, str], expected: datetime | None
) -> None:
    """A message is never refused for what a broker, or somebody in its place, wrote there."""
    assert stamped(headers) == [expected]


@pytest.mark.parametrize("prefix", ["ID:host-34677-1795703589746-3:3:-1:1:", "a5d72d0c-", ""])
def test_messages_of_one_millisecond_are_in_the_order_of_their_numbers(prefix: str) -> None:
    """ActiveMQ's, the embedded broker's, Artemis's: whichever engine gets them, and however often."""
    messages = [{"timestamp": str(STAMP_MS), "message-id": f"{prefix}{number}"} for number in range(1, 9)]
    in_order = stamped(*messages)
    assert in_order == sorted(in_order, key=str)
    assert len(set(in_order)) == len(messages)
    assert stamped(*reversed(messages)) == in_order[::-1]
    assert [stamped(message)[0] for message in messages] == in_order


@pytest.mark.parametrize("stamp", [STAMP_MS, STAMP_MS // 1000])
def test_messages_of_one_stamp_without_numbers_are_in_the_order_of_their_arrival(stamp: int) -> None:
    """RabbitMQ numbers deliveries, not messages: that says nothing. The next stamp is later than all of one."""
    unit = 1000 if stamp == STAMP_MS else 1
    messages = [
        {"timestamp": str(stamp), "message-id": f"T_ingest@@session-x@@{number}"}
        for number in (5, 4, 1200, 3)
    ] * 600
    found = stamped(*messages, {"timestamp": str(stamp + 1)})
    assert found == sorted(found, key=str)
    assert found[-1] == STAMPED + timedelta(microseconds=1_000_000 // (unit if unit == 1000 else 1))
    assert len(set(found[:1000])) == 1000


def test_a_number_of_any_length_ends_nobody() -> None:
    """What a broker, or somebody in its place, writes as a message's id is never more than it can bear."""
    ids = ["ID:" + "9" * 60_000, "9" * 18, "9" * 19, ":", "-", "", "a:b", "a:-7", "a:\u0661"]
    for message_id in ids:
        assert stamped({"timestamp": str(STAMP_MS), "message-id": message_id})[0] is not None


# What comes again without any time

SECOND = timedelta(seconds=1)


def since(told: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=told >> 1)


def test_an_engine_tells_since_when_it_holds_the_oldest() -> None:
    """With nothing in its hands: since now; and whether it ever got what nobody had before."""
    holding = Holding(0)
    told = holding.told(None, NOW, connected=True)
    assert (since(told), told & 1) == (NOW, 0)
    holding.took({"redelivered": "true"}, None, NOW)
    assert holding.told(NOW, NOW + 5 * SECOND, connected=True) & 1 == 0
    holding.took({}, None, NOW)
    told = holding.told(NOW, NOW + 6 * SECOND, connected=True)
    assert (since(told), told & 1) == (NOW, 1)
    assert since(holding.told(NOW + 4 * SECOND, NOW + 9 * SECOND, connected=True)) == NOW + 4 * SECOND


@pytest.mark.parametrize("lost", ["the connection", "the receiver"])
def test_what_a_lost_connection_held_counts_until_it_can_have_come_again(lost: str) -> None:
    """Although it is settled meanwhile: whoever gets it again must not take it for newer than it is."""
    holding = Holding(0)
    holding.took({}, None, NOW)
    told = holding.told(NOW, NOW, connected=True)
    if lost == "the receiver":
        holding = Holding(told)
    else:
        told = holding.told(None, NOW + 50 * SECOND, connected=False)
        assert since(told) == NOW
    back = NOW + 60 * SECOND
    for now in (back, back + COMES_AGAIN_WITHIN - 20 * SECOND):
        told = holding.told(None, now, connected=True)
        assert (since(told), told & 1) == (NOW, 1)
    late = back + COMES_AGAIN_WITHIN + SECOND
    assert since(holding.told(None, late, connected=True)) == late


def test_an_engine_that_has_never_been_connected_holds_nothing_back() -> None:
    """Its first seconds, with the broker away."""
    holding = Holding(0)
    for second in range(5):
        now = NOW + second * SECOND
        assert since(holding.told(None, now, connected=second > 3)) == now


def test_the_first_message_that_nobody_had_before_is_remembered() -> None:
    """By when it came, in microseconds; what comes again does not count, and a successor keeps what it is told."""
    holding = Holding(0)
    holding.took({"redelivered": "true"}, None, at(1))
    assert holding.new_since == 0
    holding.took({}, None, at(2))
    first = (at(2) - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
    assert holding.new_since == first
    assert isinstance(holding.new_since, int)
    holding.took({}, None, at(3))
    assert holding.new_since == first
    successor = Holding(0, first)
    successor.took({}, None, at(4))
    assert successor.new_since == first


def test_where_messages_have_times_nothing_is_told() -> None:
    """With the broker's first stamp; without one after a hundred that a producer gave a time in a row."""
    holding = Holding(0)
    for _ in range(99):
        holding.took({"producer_timestamp": "x"}, None, NOW)
    assert holding.told(None, NOW, connected=True)
    holding.took({"producer_timestamp": "x"}, None, NOW)
    assert holding.told(None, NOW, connected=True) == 0
    holding.took({}, None, NOW)
    assert holding.told(None, NOW, connected=True)
    holding.took({}, STAMPED, NOW)
    assert holding.told(None, NOW, connected=True) == 0


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.integers(1, 10**7))
def test_what_comes_again_stands_behind_what_was_stored_before_it_and_before_the_rest(
    receipts_us: list[int], held_ms: int
) -> None:
    """Among each other in the order of arrival; never later than received; close to the first moment at which they can have
    come."""
    after = NOW
    first = after + timedelta(milliseconds=held_ms)
    places = Places()
    receipts = [first + timedelta(microseconds=us) for us in sorted(receipts_us)]
    found = [places.place(receipt, after) for receipt in receipts]
    assert all(one < next_ for one, next_ in itertools.pairwise(found))
    assert found[0] > after
    for place, receipt in zip(found, receipts, strict=True):
        assert place <= receipt + len(found) * MICROSECOND
        assert place - after <= (receipt - after) / 1000 + len(found) * MICROSECOND


def test_where_nobody_can_have_stored_newer_ones_it_counts_as_received() -> None:
    """No other engine, or one whose clock is ahead."""
    for after in (None, NOW, NOW + DAY):
        assert Places().place(NOW, after) == NOW


@pytest.mark.parametrize(
    ("redelivered", "stamped_at", "arrived_at"),
    [("false", None, NOW), ("true", None, UNPLACED), ("true", STAMPED, STAMPED), ("false", STAMPED, STAMPED)],
)
def test_only_what_comes_again_without_a_stamp_has_no_place(
    redelivered: str, stamped_at: datetime | None, arrived_at: datetime
) -> None:
    """The writer finds one for it."""
    headers = {"redelivered": redelivered}
    assert Descriptor(1, 1, 0, 0, 0, NOW, headers, stamped_at=stamped_at).arrived_at == arrived_at


# Believable


def works(said: datetime) -> list[Claim | Full | Deactivate]:
    from msgspec.structs import replace

    found: list[Claim | Full | Deactivate] = [
        replace(one, header=replace(one.header, producer_timestamp=said), received_at=NOW)
        for one in (claim(), full())
    ]
    return [*found, Deactivate(1, "a", said, NOW)]


@pytest.mark.parametrize("stamped_at", [None, STAMPED, NOW + 2 * DAY])
@pytest.mark.parametrize(
    ("ahead", "tolerance", "counts"),
    [
        (-3650 * DAY, DAY, True),
        (timedelta(), DAY, True),
        (DAY, DAY, True),
        (DAY + MICROSECOND, DAY, False),
        (27000 * DAY, DAY, False),
        (timedelta(hours=1), timedelta(0), False),
        (27000 * DAY, 36500 * DAY, True),
    ],
)
def test_a_time_beyond_the_tolerance_counts_as_that_of_arrival(
    ahead: timedelta, tolerance: timedelta, counts: bool, stamped_at: datetime | None
) -> None:
    """Of a catalog, a claim and a deactivation; the broker's stamp, if that can be believed itself."""
    descriptor = Descriptor(1, 1, 0, 0, 0, NOW, {}, stamped_at=stamped_at)
    arrived = STAMPED if stamped_at == STAMPED else NOW
    if stamped_at and stamped_at > NOW and tolerance > 2 * DAY:
        arrived = stamped_at
    for work in works(NOW + ahead):
        found = believable(work, descriptor, tolerance)
        assert (found is work) is counts
        assert found.producer_timestamp == (NOW + ahead if counts else arrived)


def test_what_happens_all_the_time_is_told_now_and_then() -> None:
    """With how often it happened since."""
    seldom = Seldom(60)
    assert [seldom.happened(now) for now in (0, 1, 59, 60, 61, 200)] == [1, 0, 0, 3, 0, 2]


def test_places_begin_anew_behind_another_gap() -> None:
    """Each between when it can have come first and its receipt, behind the one before it of the same gap."""
    places = Places()
    first, second = places.place(at(50), at(10)), places.place(at(50), at(10))
    assert at(10) < first < second < at(50)
    other = places.place(at(50), at(20))
    assert at(20) < other < at(50)
    assert at(10) < places.place(at(50), at(10)) < at(20)
