"""The usual interval of a node and when it is overdue: against the truth of a fleet whose clocks are ours."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.node.freshness import ALIKE, Rhythm, gap_s, learn, overdue_after_s

START = datetime(2026, 1, 1, tzinfo=UTC)
HALF_HOUR, DAY = 1800, 86400


class Run(NamedTuple):
    """When a catalog was made by the producer's clock, and when it came by ours, in seconds."""

    made_s: float
    came_s: float


def heard(runs: list[Run]) -> Rhythm:
    """What is learnt of a node by catalogs that come one by one; what is older than the newest one is not stored."""
    rhythm, before = Rhythm(), runs[0]
    for run in runs[1:]:
        if run.made_s < before.made_s:
            continue
        gap = gap_s(
            *(START + timedelta(seconds=s) for s in (run.came_s, run.made_s, before.came_s, before.made_s))
        )
        rhythm, before = (rhythm if gap is None else learn(rhythm, gap)), run
    return rhythm


def regular(
    count: int, every_s: float, *, since_s: float = 0.0, jitter_s: float = 0.0, seed: int = 1
) -> list[Run]:
    dice = random.Random(seed)
    times = [since_s + number * every_s + dice.uniform(0, jitter_s) for number in range(count)]
    return [Run(at, at + dice.uniform(0, 2)) for at in times]


def near(rhythm: Rhythm, every_s: float) -> bool:
    return rhythm.usual_s is not None and abs(rhythm.usual_s - every_s) <= 0.1 * every_s


@pytest.mark.parametrize("every_s", [30, 300, HALF_HOUR, 4 * 3600, DAY])
def test_a_regular_node_shows_its_interval_in_three_runs(every_s: int) -> None:
    """Whatever it is, and two are not enough."""
    assert near(heard(regular(3, every_s)), every_s)
    assert heard(regular(2, every_s)).usual_s is None


def test_a_regular_node_writes_nothing() -> None:
    """Once its interval is known, a gap that is near it is the very same rhythm."""
    rhythm = heard(regular(5, HALF_HOUR))
    for gap in (HALF_HOUR - 80, HALF_HOUR, HALF_HOUR + 80):
        assert learn(rhythm, gap) is rhythm


@pytest.mark.parametrize("odd", [1, 60, 600, 3 * HALF_HOUR, DAY, 30 * DAY])
def test_one_odd_gap_changes_nothing_that_counts(odd: int) -> None:
    """Neither a run by hand nor a night without power."""
    rhythm = heard(regular(10, HALF_HOUR))
    after = learn(learn(rhythm, odd), HALF_HOUR)
    assert after.usual_s == rhythm.usual_s


def test_a_few_runs_by_hand_change_nothing() -> None:
    """Somebody who tries a change runs the agent a dozen times within minutes."""
    rhythm = heard(regular(10, HALF_HOUR))
    for _ in range(12):
        rhythm = learn(rhythm, 120)
    assert near(rhythm, HALF_HOUR)


@pytest.mark.parametrize(
    ("before", "after"), [(1800, 3600), (1800, 600), (1800, 7200), (3600, 2100), (300, DAY), (DAY, 7200)]
)
def test_another_interval_is_learnt(before: int, after: int) -> None:
    """After three runs when it is longer, after twice the old interval when it is shorter."""
    runs = regular(20, before)
    more = regular(3 + int(2.5 * before / after) + 1, after, since_s=runs[-1].made_s + after)
    assert near(heard(runs + more), after)


@pytest.mark.parametrize("jump_s", [-40 * DAY, -3 * 3600, -600, 600, 3 * 3600, 40 * DAY])
def test_a_clock_that_jumps_teaches_nothing(jump_s: int) -> None:
    """The producer's clock is wrong for a while and right again: the interval stays."""
    runs = regular(40, HALF_HOUR)
    lying = [run._replace(made_s=run.made_s + jump_s) if 15 <= n < 25 else run for n, run in enumerate(runs)]
    assert near(heard(lying), HALF_HOUR)


def test_our_own_outage_teaches_nothing() -> None:
    """What waited at the broker comes all at once: that is no interval of a second."""
    runs = regular(40, HALF_HOUR)
    back_s = runs[30].made_s
    assert heard([run._replace(came_s=back_s + n) for n, run in enumerate(runs[:30])]).usual_s is None
    late = [run._replace(came_s=back_s + n) if 10 <= n < 30 else run for n, run in enumerate(runs)]
    assert near(heard(late), HALF_HOUR)


@given(st.lists(st.integers(1, 400 * DAY), max_size=60))
def test_whatever_comes_is_within_what_came(gaps: list[int]) -> None:
    """An interval is never shorter or longer than every gap was, and a column can hold it."""
    rhythm = Rhythm()
    for gap in gaps:
        rhythm = learn(rhythm, gap)
        assert all(value is None or 0 < value < 2**31 for value in rhythm)
    if rhythm.usual_s is not None:
        assert min(gaps) <= rhythm.usual_s <= max(gaps)


# A fleet and its truth

Timetable = Callable[[random.Random], list[float]]


def _kept(dice: random.Random) -> list[float]:
    start, jitter = dice.uniform(0, HALF_HOUR), dice.choice([0, 5, 60, 200])
    return [start + n * HALF_HOUR + dice.uniform(0, jitter) for n in range(100)]


def _without_one(dice: random.Random) -> list[float]:
    times = _kept(dice)
    del times[dice.randrange(5, 90)]
    return times


def _by_hand(dice: random.Random) -> list[float]:
    times = _kept(dice)
    return sorted([*times, *(times[50] + 90 * n for n in range(1, 8))])


@pytest.mark.parametrize("timetable", [_kept, _without_one, _by_hand])
def test_who_runs_is_never_overdue_and_who_stops_soon_is(timetable: Timetable) -> None:
    """Of 300 nodes of each kind: no moment of a node that goes on is after its deadline; that of one that stops is within
    an hour and a quarter of its last run."""
    for seed in range(300):
        dice = random.Random(seed)
        times = timetable(dice)
        runs = [Run(at, at + dice.uniform(0, 3)) for at in times]
        for place in range(5, len(runs)):
            usual = heard(runs[:place]).usual_s if place % 19 == 0 or place == len(runs) - 1 else None
            if usual is not None:
                assert runs[place].came_s - runs[place - 1].came_s <= overdue_after_s(usual)
        last = heard(runs).usual_s
        assert last is not None
        assert 2 * HALF_HOUR * 0.9 < overdue_after_s(last) <= 75 * 60


def test_alike_is_what_puppet_calls_one_interval() -> None:
    """Half an hour and an hour are two."""
    assert HALF_HOUR * ALIKE < 2 * HALF_HOUR
