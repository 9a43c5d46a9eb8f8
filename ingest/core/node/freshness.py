"""How often a node is usually heard of, learnt from its catalogs, and when one that keeps silent is overdue.

Hearing goes by our own clock: producers' clocks jump. A gap between two catalogs is evidence of a node's interval only
where both clocks tell about the same: after an outage of ours they come all at once, after a jump a producer's times lie.
What was learnt changes when gaps have been of another length for a while, and not for one odd run.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

# Gaps that differ by less than this factor are alike: half an hour with its splay is, half an hour and an hour are not.
ALIKE = 1.5
NEAR = 0.05  # of the usual interval: what differs less is not written, so a regular node costs nothing
FIRST_GAPS = 1.5  # so many odd gaps, rounded up, make a first interval
OTHER_GAPS = 2.5  # and so many another one,
OTHER_USUALS = (
    2  # which take no less than so many of the usual: somebody who tries a few runs by hand changes nothing
)
CLOCKS_DIFFER_S = 5  # and a quarter of the gap
# One run may be missing, and be late besides. Stands in overdue_after_s() of the schema too: tests compare the two.
OVERDUE_USUALS = 2
OVERDUE_GRACE_S = 600
GAP_S_MAX = 366 * 86400
_SECOND = timedelta(seconds=1)


class Rhythm(NamedTuple):
    """What is known of a node's interval; None: nothing yet. ``odd_s``: what the last gaps were instead, for so long."""

    usual_s: int | None = None
    odd_s: int | None = None
    odd_for_s: int | None = None


def gap_s(
    received_at: datetime,
    producer_timestamp: datetime,
    received_before: datetime,
    producer_timestamp_before: datetime,
) -> int | None:
    """Between two catalogs of a node, by our clock; None: it tells nothing."""
    gap = (received_at - received_before) / _SECOND
    if not 1 <= gap <= GAP_S_MAX:
        return None
    by_producer = (producer_timestamp - producer_timestamp_before) / _SECOND
    return round(gap) if abs(gap - by_producer) <= CLOCKS_DIFFER_S + gap / 4 else None


def learn(rhythm: Rhythm, gap: int) -> Rhythm:
    """With one more gap; the very same one when that changes nothing."""
    usual, odd, odd_for = rhythm
    if usual is not None and _are_alike(usual, gap):
        if abs(gap - usual) > NEAR * usual:
            usual = round((3 * usual + gap) / 4)
        elif odd is None:
            return rhythm
        return Rhythm(usual)
    if odd is not None and odd_for is not None and _are_alike(odd, gap):
        odd, odd_for = round((odd + gap) / 2), odd_for + gap
    else:
        odd, odd_for = gap, gap
    if usual is None:
        enough_s = FIRST_GAPS * odd
    else:
        enough_s = max(OTHER_GAPS * odd, OTHER_USUALS * usual)
    return Rhythm(odd) if odd_for >= enough_s else Rhythm(usual, odd, odd_for)


def overdue_after_s(usual_s: int) -> int:
    """So long after it was last heard of, a node of that interval is overdue."""
    return OVERDUE_USUALS * usual_s + OVERDUE_GRACE_S


def _are_alike(one: int, other: int) -> bool:
    return other <= ALIKE * one and one <= ALIKE * other
