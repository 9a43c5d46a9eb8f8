"""When a process that ended is started again."""

from __future__ import annotations

from ingest.core.delivery.restarts import RESTART_DELAY_MAX_S, SHORT_LIFE_S, Restarts


def test_the_first_death_costs_no_time() -> None:
    """Whether its life was long or short."""
    for life_s in (0.0, 100.0):
        restarts = Restarts()
        restarts.started(0)
        assert not restarts.is_due(life_s)
        restarts.ended(life_s)
        assert restarts.is_due(life_s)


def test_who_dies_again_and_again_at_once_waits_longer_each_time() -> None:
    """Up to five seconds."""
    restarts = Restarts()
    now_s, delays = 0.0, []
    for _ in range(10):
        restarts.started(now_s)
        restarts.ended(now_s)
        delay_s = 0.0
        while not restarts.is_due(now_s + delay_s):
            delay_s = round(delay_s + 0.1, 1)
        delays.append(delay_s)
        now_s += delay_s
    assert delays == [0.0, 0.4, 0.8, 1.6, 3.2, *[RESTART_DELAY_MAX_S] * 5]


def test_a_long_life_makes_good_for_short_ones() -> None:
    """The next death costs no time again."""
    restarts = Restarts()
    for _ in range(3):
        restarts.started(0)
        restarts.ended(0)
    restarts.started(10)
    restarts.ended(10 + SHORT_LIFE_S)
    assert restarts.is_due(10 + SHORT_LIFE_S)
    restarts.started(20)
    restarts.ended(20)  # the first short one since
    assert restarts.is_due(20)


def test_who_runs_is_not_due() -> None:
    """Started again, it is not started once more."""
    restarts = Restarts()
    restarts.started(0)
    restarts.ended(5)
    restarts.started(5)
    assert not restarts.is_due(1e9)
