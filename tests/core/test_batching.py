"""Which catalog of a node counts, whatever the order in which they come."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.catalog.model import Header
from ingest.core.delivery.batching import Stored, is_stale, judge, supersede
from ingest.core.delivery.work import Claim, Full, SectionDigests

START = datetime(2026, 1, 1, tzinfo=UTC)
SECTIONS = SectionDigests(b"f" * 16, b"r" * 20)
_deliveries = itertools.count(1)


def header(certname: str, minute: int) -> Header:
    return Header(certname, START + timedelta(minutes=minute), "1")


def claim(certname: str = "a", minute: int = 0) -> Claim:
    return Claim(next(_deliveries), header(certname, minute), START, SECTIONS)


def full(certname: str = "a", minute: int = 0, content: int = 0) -> Full:
    return Full(
        next(_deliveries), header(certname, minute), START, SECTIONS, bytes([content]) * 20, b"", (), b"e" * 20,
        b"p" * 20, {}, None, None, complete=False,
    )  # fmt: skip


def stored(minute: int | None, content: int | None = 0) -> Stored:
    return Stored(
        node_id=1, deactivated=None, expired=None,
        producer_timestamp=None if minute is None else START + timedelta(minutes=minute),
        transaction_uuid=None, raw_digest=None, content_digest=None if content is None else bytes([content]) * 20,
        slots=0, edge_set_id=None, position_set_id=None,
    )  # fmt: skip


certnames, minutes, contents = st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 2)
works = st.one_of(st.builds(claim, certnames, minutes), st.builds(full, certnames, minutes, contents))


def rank(work: Claim | Full) -> tuple[datetime, bytes]:
    """By time; then a claim, which has nothing to write, before any content; then by digest."""
    return work.header.producer_timestamp, work.content_digest if isinstance(work, Full) else b""


@given(st.lists(works, max_size=8))
def test_every_catalog_is_either_the_newest_of_its_node_or_superseded(batch: list[Claim | Full]) -> None:
    """None is lost, none is there twice; one a node, sorted by certname, so that two writers lock in one order."""
    newest, others = supersede(batch)
    assert sorted(w.delivery for w in [*newest, *others]) == sorted(w.delivery for w in batch)
    assert [w.header.certname for w in newest] == sorted({w.header.certname for w in batch})
    for winner in newest:
        rivals = [w for w in batch if w.header.certname == winner.header.certname]
        assert rank(winner) == max(map(rank, rivals))


@given(st.lists(works, max_size=6), st.data())
def test_the_order_of_arrival_never_matters(batch: list[Claim | Full], data: st.DataObject) -> None:
    """Any order has the same winners, by what would be stored of them."""
    other = data.draw(st.permutations(batch))
    assert [rank(w) for w in supersede(batch)[0]] == [rank(w) for w in supersede(other)[0]]


@given(st.lists(st.builds(full, st.just("a"), minutes, contents), min_size=1, max_size=6), st.data())
def test_one_by_one_ends_as_all_at_once(batch: list[Full], data: st.DataObject) -> None:
    """However they are cut into batches and in whatever order: the same catalog is stored at the end."""
    left = data.draw(st.permutations(batch))
    state = stored(None, None)
    while left:
        size = data.draw(st.integers(1, len(left)))
        (winner,), _ = supersede(left[:size])
        assert isinstance(winner, Full)
        if not is_stale(winner, state):
            state = state._replace(
                producer_timestamp=winner.header.producer_timestamp, content_digest=winner.content_digest
            )
        left = left[size:]
    assert (state.producer_timestamp, state.content_digest) == max(map(rank, batch))


@pytest.mark.parametrize(
    ("incoming", "before", "stale"),
    [
        (full(minute=0), stored(None, None), False),
        (full(minute=1), stored(0, 9), False),
        (full(minute=0, content=9), stored(1, 0), True),
        (full(minute=0, content=1), stored(0, 1), False),
        (full(minute=0, content=0), stored(0, 1), True),
        (full(minute=0, content=2), stored(0, 1), False),
        (claim(minute=0), stored(0, 1), False),
        (claim(minute=0), stored(1, 1), True),
        (claim(minute=1), stored(0, 1), False),
        (
            full(minute=0, content=1),
            stored(24 * 60 + 1, 0),
            False,
        ),  # of too far in the future: newer than nothing
        (claim(minute=0), stored(24 * 60 + 1, 0), False),
        (full(minute=0, content=1), stored(24 * 60, 0), True),
    ],
)
def test_stale_is_what_is_older_than_the_stored(incoming: Claim | Full, before: Stored, stale: bool) -> None:
    """By time, between equal times by content; the stored one itself, once more, is not stale."""
    assert is_stale(incoming, before) is stale


@given(st.lists(works, max_size=6), st.data())
def test_each_catalog_is_judged_once_by_what_is_stored(
    batch: list[Claim | Full], data: st.DataObject
) -> None:
    """What is older is stale, a claim of something else refuted, other content changed; the rest is unchanged."""
    newest, _ = supersede(batch)
    there = {
        work.certname: stored(data.draw(st.none() | minutes), data.draw(contents))._replace(
            raw_digest=data.draw(st.sampled_from([None, SECTIONS.raw_digest, b"other"]))
        )
        for work in newest
    }
    found = judge(newest, there, timedelta(days=1))
    for work in newest:
        its = there[work.certname]
        expected: list[Any] = found.unchanged
        if is_stale(work, its, timedelta(days=1)):
            expected = found.stale
        elif isinstance(work, Claim):
            expected = found.unchanged if its.raw_digest == SECTIONS.raw_digest else found.refuted
        elif work.content_digest != its.content_digest:
            expected = found.changed
        assert [work in verdict for verdict in found] == [verdict is expected for verdict in found]
