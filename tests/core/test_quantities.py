"""Durations and sizes: what people write is read, exactly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.quantities import duration_s, size_bytes

SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
spaces = st.sampled_from(["", " ", "  "])


@given(st.integers(0, 10**6), st.sampled_from(sorted(SECONDS)), spaces, spaces)
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str, inner: str, outer: str) -> None:
    """With spaces between or around; a fraction too."""
    assert duration_s(f"{outer}{number}{inner}{unit}{outer}") == number * SECONDS[unit]
    assert duration_s(f"{number}.5{unit}") == (number + 0.5) * SECONDS[unit]


@given(st.integers(0, 10**15), st.sampled_from(sorted(BYTES)), spaces)
def test_a_size_is_exact(number: int, unit: str, inner: str) -> None:
    """An integer of any size, without rounding by way of floats."""
    assert size_bytes(f"{number}{inner}{unit}") == number * BYTES[unit]


@pytest.mark.parametrize(
    "text", ["", " ", "1.5MiB", "1MB", "1kib", "1K", "0x10", "1_000", "inf", "nan", "١", "1 GiB 2"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """Units of a thousand are not taken for those of 1024, and nothing is guessed."""
    with pytest.raises(ValueError, match=r".*"):
        size_bytes(text)


@pytest.mark.parametrize("text", ["", "1.", ".5", "1,5s", "1M", "1 min", "1h30m", "inf", "nan", "-0"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """A capital M is not a minute."""
    with pytest.raises(ValueError, match=r".*"):
        duration_s(text)
