"""What stays in place of a node's facts and what moves: pure decisions on leaves.

Three layers, the later ones over the earlier: a *base*, which is some node's facts of the same shape and shared by all
that are like it; the node's *own* facts, those that differ from the base and do not change from run to run; and the
*moving* leaves, whatever differs from both now. A run writes the last layer alone. A leaf that comes to rest is taken
into the node's own facts when there is enough of that to be worth a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import NamedTuple

from ingest.core.facts.leaves import LEAF, count_leaves

# How long a leaf must stay as it is. A day has 48 runs of 30 minutes; what moves less often is cheap either way.
REST = timedelta(days=1)
# A leaf that rests costs its bytes twice in each run (docs/decisions/0013-facts.md): 48 bytes are worth a row of own facts.
RESTING_BYTES_MIN = 48
# A row of moving leaves is narrow, or else another one of own facts is cheaper.
MOVING_MAX = 1000
PLACE_MAX = 32767  # what a smallint holds: facts with more leaves than that have only own ones behind it
# Of the bytes of all leaves: with more own facts than that the node is not like its base.
OWN_SHARE_MAX = 0.6


class Moving(NamedTuple):
    """The moving leaves of a node: by place, counted over all facts from zero."""

    leaves: dict[int, str]
    since: datetime  # the beginning of a time in which those in ``still`` have not changed
    still: frozenset[int]


NONE_MOVING = Moving({}, datetime.min, frozenset())


def firsts_of(leaves: Iterable[str]) -> list[int]:
    """The place of each fact's first leaf."""
    return list(accumulate(map(count_leaves, leaves), initial=0))[:-1]


def is_like(base: Sequence[str], incoming: Sequence[str]) -> bool:
    """Whether facts of the same shape have enough in common."""
    own = sum(len(new) for old, new in zip(base, incoming, strict=True) if old != new)
    return own <= OWN_SHARE_MAX * sum(map(len, incoming))


def own_facts(base: Sequence[str], incoming: Sequence[str], listed: Collection[int]) -> dict[int, str]:
    """The facts that are the node's own, by their numbers: not those that differ in nothing but what moves anyway."""
    differing = [at for at, (old, new) in enumerate(zip(base, incoming, strict=True)) if old != new]
    if not listed:
        return {at: incoming[at] for at in differing}
    firsts, known = firsts_of(incoming), frozenset(listed)
    return {
        at: incoming[at]
        for at in differing
        if any(firsts[at] + place not in known for place, _ in _changed(base[at], incoming[at]))
    }


def stable_leaves(base: Sequence[str], own: Mapping[int, str]) -> list[str]:
    stable = list(base)
    for at, leaves in own.items():
        stable[at] = leaves
    return stable


def moved_leaves(
    stable: Sequence[str], incoming: Sequence[str], firsts: Sequence[int] | None = None
) -> dict[int, str]:
    """By place, what is not as it is in place. ``firsts``: of the shape, where they are known."""
    found: dict[int, str] = {}
    differing = [at for at, (old, new) in enumerate(zip(stable, incoming, strict=True)) if old != new]
    if differing:
        firsts = firsts or firsts_of(incoming)
        for at in differing:
            for place, leaf in _changed(stable[at], incoming[at]):
                found[firsts[at] + place] = leaf
    return found


def next_moving(before: Moving, leaves: dict[int, str], now: datetime) -> Moving:
    """``before`` is what is stored, ``leaves`` what must be."""
    if before is NONE_MOVING or not before.leaves:
        return Moving(leaves, now, frozenset(leaves))
    still = frozenset(place for place in before.still if before.leaves.get(place) == leaves.get(place, ""))
    return Moving(leaves, before.since, still)


def resting(moving: Moving, now: datetime, listed: Collection[int]) -> frozenset[int]:
    """The places of leaves that have come to rest."""
    if now - moving.since < REST:
        return frozenset()
    return moving.still.difference(listed)


def can_move(leaves: Mapping[int, str]) -> bool:
    """Whether these may be moving leaves."""
    return len(leaves) <= MOVING_MAX and max(leaves, default=0) <= PLACE_MAX


def is_worth_a_row(moving: Moving, at_rest: Collection[int]) -> bool:
    return sum(len(moving.leaves[place]) for place in at_rest) + 5 * len(at_rest) >= RESTING_BYTES_MIN


def settled(stable: Sequence[str], moving: Moving, at_rest: Collection[int]) -> dict[int, str]:
    """The facts that have leaves at rest, with those in them: by their numbers."""
    firsts = firsts_of(stable)
    found: dict[int, str] = {}
    for at, (first, leaves) in enumerate(zip(firsts, stable, strict=True)):
        count = count_leaves(leaves)
        places = [place for place in at_rest if first <= place < first + count]
        if places:
            parts = leaves.split(LEAF)
            for place in places:
                parts[place - first] = moving.leaves[place]
            found[at] = LEAF.join(parts)
    return found


def _changed(old: str, new: str) -> list[tuple[int, str]]:
    pairs = zip(old.split(LEAF), new.split(LEAF), strict=True)
    return [(place, after) for place, (before, after) in enumerate(pairs) if before != after]
