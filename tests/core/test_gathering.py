"""When a writer closes a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.delivery.gathering import COMPANY_ENOUGH, BatchLimits, Gathering, Waiting, linger_s

LIMITS = BatchLimits(messages_max=3, bytes_max=1000, linger_s=0.02)


def test_a_batch_begins_with_what_the_last_one_left() -> None:
    """Work comes in lists, and a list may be more than a batch still takes: none is lost, no batch is larger than it may
    be, and what was left counts with all the bytes that it came with."""
    gathering: Gathering[int] = Gathering(LIMITS)
    gathering.add([1, 2, 3, 4, 5, 6, 7], 900)
    assert gathering.is_full
    assert gathering.take() == [1, 2, 3]
    gathering.limits = LIMITS._replace(messages_max=10)
    assert not gathering.is_full
    gathering.add([8], 100)
    assert gathering.is_full  # 900 and 100 bytes
    assert gathering.take() == [4, 5, 6, 7, 8]
    assert not gathering
    assert not gathering.is_full


@given(st.lists(st.integers(1, 6)), st.integers(1, 5))
def test_all_work_comes_out_once_and_in_order(lists: list[int], most: int) -> None:
    """However it came, and whatever a batch takes."""
    gathering: Gathering[int] = Gathering(LIMITS._replace(messages_max=most))
    given_, taken = 0, []
    for count in lists:
        gathering.add(range(given_, given_ + count), count)
        given_ += count
        while gathering.is_full:
            batch = gathering.take()
            assert 0 < len(batch) <= most
            taken += batch
    while gathering:
        taken += gathering.take()
    assert taken == list(range(given_))


@pytest.mark.parametrize(("since_s", "waits_s"), [(0, 0.02), (0.039, 0.02), (0.04, 0), (5, 0)])
def test_after_a_pause_nobody_waits_for_company(since_s: float, waits_s: float) -> None:
    """Twice the linger without a batch is a pause."""
    assert linger_s(LIMITS, since_s) == waits_s


@pytest.mark.parametrize(
    ("rank", "linger_s", "came_s", "due_s"),
    [
        (2, 0.02, 0.016, [0.025]),  # a report has company
        (1, 0.02, 0.016, [0.025]),  # facts too
        (2, 0.02, 0.015, []),  # nothing came lately: it was a burst
        (0, 0.02, 0.016, []),  # a catalog is waited for
        (2, 0.0, 0.0, []),  # after a pause
    ],
)
def test_what_nobody_waits_for_waits_while_company_keeps_coming(
    rank: int, linger_s: float, came_s: float, due_s: list[float]
) -> None:
    """A little longer."""
    waiting = Waiting()
    waiting.begin(rank, linger_s, 0.0)
    waiting.came(came_s)
    assert waiting.goes_on(LIMITS, linger_s) == bool(due_s)
    assert waiting.due_s == (due_s or [linger_s])[0]


def test_no_batch_waits_for_ever() -> None:
    """However much comes; and a catalog that joins it ends the wait when its own linger does."""
    waiting, now_s, times = Waiting(), 0.0, 0
    waiting.begin(2, LIMITS.linger_s, now_s)
    while waiting.due_s is not None:
        now_s = waiting.due_s
        waiting.came(now_s)
        if not waiting.goes_on(LIMITS, now_s):
            break
        times += 1
    assert times == 16
    assert now_s == pytest.approx(0.1)
    waiting = Waiting()
    waiting.begin(2, LIMITS.linger_s, 0.0)
    waiting.begin(0, 0.005, 0.001)
    waiting.came(0.005)
    assert waiting.due_s == 0.006
    assert not waiting.goes_on(LIMITS, 0.006)
    assert not waiting.has_enough(1000)


@pytest.mark.parametrize(("rank", "has_enough"), [(0, False), (1, True), (2, True)])
def test_what_nobody_waits_for_can_have_enough_company(rank: int, *, has_enough: bool) -> None:
    """Before its time is over."""
    waiting = Waiting()
    assert not waiting.has_enough(0)
    waiting.begin(rank, LIMITS.linger_s, 0.0)
    assert not waiting.has_enough(COMPANY_ENOUGH - 1)
    assert waiting.has_enough(COMPANY_ENOUGH) == has_enough


def of_ranks(messages_max: int = 100) -> Gathering[str]:
    """Of work whose first letter is its rank."""
    return Gathering(LIMITS._replace(messages_max=messages_max), lambda work: "cfr".index(work[0]))


def test_a_batch_is_of_the_most_important_that_waits() -> None:
    """In the order of arrival within a rank, whatever the order among ranks was."""
    gathering = of_ranks()
    gathering.add(["r1", "f1", "c1"], 10)
    gathering.add(["r2", "c2"], 10)
    assert gathering.rank == 0
    assert [gathering.take(), gathering.take(), gathering.take()] == [["c1", "c2"], ["f1"], ["r1", "r2"]]
    assert gathering.rank is None
    assert not gathering


def test_what_was_passed_often_enough_goes_along() -> None:
    """Facts and a report that sixteen catalogs have passed are in the next batch, before the catalogs."""
    gathering = of_ranks()
    gathering.add(["r1", "f1"], 10)
    batches = []
    for number in range(17):
        gathering.add([f"c{number}"], 10)
        batches.append(gathering.take())
    assert batches == [*([f"c{number}"] for number in range(16)), ["f1", "r1", "c16"]]


@given(st.lists(st.lists(st.sampled_from("cfr"), min_size=1, max_size=6)), st.integers(1, 5))
def test_nothing_is_lost_between_the_ranks(lists: list[list[str]], most: int) -> None:
    """All comes out, once, in order within its rank, and no batch is larger than it may be."""
    gathering = of_ranks(most)
    came: list[str] = []
    taken: list[str] = []
    for ranks in lists:
        works = [f"{rank}{len(came) + at}" for at, rank in enumerate(ranks)]
        came += works
        gathering.add(works, 10)
        if gathering.is_full:
            batch = gathering.take()
            assert 0 < len(batch) <= most
            taken += batch
    while gathering:
        batch = gathering.take()
        assert 0 < len(batch) <= most
        taken += batch
    for rank in "cfr":
        assert [work for work in taken if work[0] == rank] == [work for work in came if work[0] == rank]
