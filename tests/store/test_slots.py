"""Ids told from another catalog are those that a lookup of every digest finds."""

from __future__ import annotations

import tracemalloc
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.delivery.work import DIGEST_BYTES
from ingest.store.catalog.slot_ids import LISTS_BYTES_MAX, LISTS_MAX, SlotIdCache


def digest(number: int) -> bytes:
    return number.to_bytes(DIGEST_BYTES, "big")


def digests(numbers: list[int]) -> bytes:
    return b"".join(map(digest, numbers))


@st.composite
def catalogs(draw: st.DrawFn) -> list[int]:
    """Numbers of resources: mostly those of a role, in their places."""
    role = list(range(100, 100 + draw(st.sampled_from([0, 3, 40, 90]))))
    for _ in range(draw(st.sampled_from([0, 1, 3, 80]))):
        if role:
            role[draw(st.integers(0, len(role) - 1))] = draw(st.integers(1, 99))
    return role


@given(
    st.lists(
        st.tuples(
            st.lists(catalogs(), min_size=1, max_size=4),
            st.booleans(),
            st.sets(st.integers(1, 190), max_size=5),
        )
    )
)
def test_ids_are_those_of_the_digests(batches: list[tuple[list[list[int]], bool, set[int]]]) -> None:
    """Batch by batch, committed or not, with some digests that are nowhere: each slot has its id or is missing."""
    last = SlotIdCache()
    for batch, is_committed, nowhere in batches:
        several = [last.of(digests(numbers)) for numbers in batch]
        for slots, numbers in zip(several, batch, strict=True):
            asked = slots.wanted()
            assert set(asked) <= set(map(digest, numbers))
        asked_all = set().union(*[slots.wanted() for slots in several])
        ids = {
            one: -int.from_bytes(one, "big") for one in asked_all if int.from_bytes(one, "big") not in nowhere
        }
        for slots, numbers in zip(several, batch, strict=True):
            slots.fill(ids)
            for slot, number in enumerate(numbers):
                if slot in slots.missing:
                    assert number in nowhere
                else:
                    assert slots.ids[slot] == -number
        if is_committed:
            last.committed()
        else:
            last.rolled_back()


def test_what_was_there_last_time_is_not_asked_for() -> None:
    """Of a node's next catalog only what changed; of one with as many other resources all."""
    last = SlotIdCache()
    numbers = list(range(1, 301))
    last.of(digests(numbers)).fill({digest(n): n for n in numbers})
    last.committed()
    numbers[7] = 1000
    changed = last.of(digests(numbers))
    assert changed.wanted() == [digest(1000)]
    changed.fill({digest(1000): 5})
    assert changed.ids == array("i", [1, 2, 3, 4, 5, 6, 7, 5, *range(9, 301)])
    others = [n + 2000 for n in numbers]
    assert last.of(digests(others)).wanted() == [digest(n) for n in others]


@pytest.mark.parametrize("after", ["rolled_back", "forget"])
def test_ids_that_may_be_gone_are_asked_for_again(after: str) -> None:
    """Those of a transaction that was rolled back, and all when garbage was collected."""
    last = SlotIdCache()
    last.of(digests([1, 2])).fill({digest(1): 1, digest(2): 2})
    if after == "forget":
        last.committed()
    getattr(last, after)()
    assert len(last.of(digests([1, 2])).wanted()) == 2


def test_what_misses_something_is_not_an_example() -> None:
    """The next one like it is asked for whole: its content may have come by now."""
    last = SlotIdCache()
    last.of(digests([1, 2])).fill({digest(1): 1})
    last.committed()
    assert len(last.of(digests([1, 2])).wanted()) == 2


def test_the_oldest_are_forgotten() -> None:
    """There is a limit to how many lists are kept."""
    last = SlotIdCache()
    for count in range(1, LISTS_MAX + 2):
        last.of(digests([1] * count)).fill({digest(1): 1})
        last.committed()
    assert last.of(digests([1])).wanted() == [digest(1)]
    assert last.of(digests([1, 1])).wanted() == []


def remember(last: SlotIdCache, count: int) -> None:
    slots = last.of(digests(list(range(count))))
    slots.fill({digest(number): number for number in range(count)})
    last.committed()


def test_lists_of_any_length_stay_within_their_bytes() -> None:
    """Catalogs of a hundred thousand resources each, all of different lengths: what is remembered is bounded, and counted as
    what it takes."""
    last = SlotIdCache()
    tracemalloc.start()
    for count in range(100_000, 100_040):
        remember(last, count)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert last.bytes <= LISTS_BYTES_MAX
    assert 0.8 * last.bytes < taken < 1.2 * last.bytes
    assert last.of(digests(list(range(100_039)))).wanted() == []
    last.rolled_back()
    assert len(last.of(digests(list(range(100_000)))).wanted()) == 100_000


def test_one_list_that_is_too_long_pushes_no_other_out() -> None:
    """It is not remembered."""
    last = SlotIdCache(bytes_max=100_000)
    remember(last, 50)
    remember(last, 2000)
    assert last.of(digests(list(range(50)))).wanted() == []
    assert len(last.of(digests(list(range(2000)))).wanted()) == 2000
    last.forget()
    assert last.bytes == 0
