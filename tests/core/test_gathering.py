"""When a writer closes a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.delivery.gathering import BatchLimits, Gathering, linger_s

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
