"""When the next catalog is to be expected."""

from __future__ import annotations

import random

import pytest

from ingest.core.delivery.bursts import EXPECTED_MAX_S, EXPECTED_MIN_S, Expecting


def test_before_the_first_nothing_is_expected() -> None:
    """An engine that takes reports alone does not wait for catalogs."""
    assert not Expecting().is_near(0)


def test_after_the_first_one_is_expected_for_a_while() -> None:
    """Nobody knows yet how often they come."""
    expecting = Expecting()
    expecting.came(100)
    assert expecting.is_near(100 + EXPECTED_MAX_S / 2)
    assert not expecting.is_near(100 + EXPECTED_MAX_S)


@pytest.mark.parametrize("nodes", [100, 300, 3000, 30_000])
def test_a_fleet_at_its_usual_pace_finds_itself_expected(nodes: int) -> None:
    """A run each half hour of each node, at random times: not one catalog in a hundred comes unexpected."""
    chance = random.Random(nodes)
    expecting = Expecting()
    now_s = unexpected = 0.0
    for count in range(5000):
        now_s += chance.expovariate(nodes / 1800)
        unexpected += count > 20 and not expecting.is_near(now_s)
        expecting.came(now_s)
    assert unexpected < 50 + (nodes < 300) * 250


def test_after_a_flood_none_is_expected_soon() -> None:
    """They came at once, and then no more: what waited behind them has the engine a second later."""
    expecting = Expecting()
    for count in range(100):
        expecting.came(count / 1000)
    assert expecting.is_near(0.1 + EXPECTED_MIN_S / 2)
    assert not expecting.is_near(0.1 + EXPECTED_MIN_S)
