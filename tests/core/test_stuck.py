"""Which process is stuck, told from what is seen of it once a second."""

from __future__ import annotations

import pytest

from ingest.core.delivery.stuck import Stuck


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        ([True, True, True, True], [False, False, True, True]),
        ([True, True, False, True, True], [False, False, False, False, False]),
    ],
)
def test_who_is_stopped_three_times_in_a_row_is_stuck(looks: list[bool], found: list[bool]) -> None:
    """One that went on in between begins anew."""
    stuck = Stuck()
    assert [stuck.is_stopped(look) for look in looks] == found


@pytest.mark.parametrize(
    ("looks", "found"),
    [
        ([(7, 1.0), (7, 11.0), (7, 11.1)], [False, False, True]),  # ten seconds of its own time, and more
        ([(7, 1.0), (8, 100.0), (8, 110.0), (8, 111.0)], [False, False, False, True]),  # of that message
        ([(7, 1.0), (None, 50.0), (7, 50.0), (7, 60.0)], [False] * 4),  # it was done with it in between
        ([(None, 0.0), (None, 99.0)], [False, False]),  # it has nothing
        ([(7, 1.0), (7, 1.0), (7, 1.0)], [False] * 3),  # it waits for a core, or the machine stood still
    ],
)
def test_a_message_is_blamed_for_its_own_cpu_time(
    looks: list[tuple[int | None, float]], found: list[bool]
) -> None:
    """By the clock of the process, from when it was first seen with that message."""
    stuck = Stuck()
    assert [stuck.is_busy(held, cpu_s, 10.0) for held, cpu_s in looks] == found
