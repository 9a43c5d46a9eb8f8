"""The window is divided between destinations by their importance, and no one can have another's part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.delivery.windows import windows

names = st.lists(st.sampled_from([f"/queue/{letter}" for letter in "abcdef"]), min_size=1, max_size=8)


@given(names, st.integers(64, 1 << 40))
def test_the_parts_are_the_whole_and_fall_with_importance(destinations: list[str], window: int) -> None:
    """Every destination has a part once, the parts are the window, and none has more than one named before it."""
    shares = windows(destinations, window)
    assert list(shares) == list(dict.fromkeys(destinations))
    assert sum(shares.values()) == window
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


@given(names, st.integers(1, 63))
def test_a_small_window_gives_each_at_least_one(destinations: list[str], window: int) -> None:
    """Nobody is shut out; then the parts may be more than the window, by no more than one each."""
    shares = windows(destinations, window)
    assert min(shares.values()) >= 1
    assert window <= sum(shares.values()) <= window + len(shares)


@pytest.mark.parametrize(
    ("destinations", "expected"),
    [
        (["c"], {"c": 1000}),
        (["c", "c"], {"c": 1000}),
        (["c", "f", "r"], {"c": 573, "f": 285, "r": 142}),
        ([], {}),
    ],
)
def test_a_window_of_a_thousand(destinations: list[str], expected: dict[str, int]) -> None:
    """One destination has all of it; three have four, two and one seventh."""
    assert windows(destinations, 1000) == expected
