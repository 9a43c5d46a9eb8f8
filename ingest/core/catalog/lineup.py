"""How the resources of a catalog stood, so that the next one like it costs only what differs.

The nodes of a role, and a node from run to run, have nearly the same resources in the same order. So a catalog's
section is compared with that of the last one like it, many resources at a time, at the speed of memory: nothing is
parsed, hashed or looked up of what is the same. What it was compared with never changes the result; ``array_delta.py``
says why.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ingest.core.catalog.array_delta import ArrayText, Difference, array_text
from ingest.core.catalog.cache import Met
from ingest.core.catalog.edge_delta import KnownEdges
from ingest.core.catalog.layout import Layout
from ingest.core.delivery.work import DIGEST_BYTES
from ingest.errors import Rejected

OTHERS_SHARE_MAX = 1 / 8  # of the slots; with more a catalog gets a lineup of its own
NO_SLOT = -1  # in a thin lineup: not exported, so not stored
NEAR = 2  # lineups on either side of a length are looked at,
SAMPLES = 16  # so many resources of each,
SAMPLE_SHIFT_MAX = 2048  # up to so many bytes from where they stood
SAMPLE_BYTES_MAX = 4096  # of a large one
_RESOURCE_BYTES = 200  # of a lineup for each resource, beside the section

Place = tuple[int, int]  # among all lineups: the body's length, and a number
NOWHERE: Place = (0, 0)

_digest = attrgetter("digest")
_edge_digest = attrgetter("edge_digest")
_position_digest = attrgetter("position.digest")


class Lineup(msgspec.Struct):
    """A catalog's resources in its document's order, and by slot what is asked of all of them at once."""

    array: ArrayText | None  # None: no other catalog can be compared with it
    met: list[Met]  # in the document's order
    slot_of: list[int]  # in the document's order
    slots: list[Met]
    digests: bytes
    edge_digests: bytes
    position_digests: bytes
    exported: tuple[int, ...]  # slots
    unsent: dict[int, list[int]] = {}  # by lane (a bit) the slots it was not given; all if not here
    # Of the body:
    family: str = ""
    layout: Layout | None = None
    length: int = 0
    edges: KnownEdges | None = None
    # In its book:
    place: Place = NOWHERE
    elder: Place = NOWHERE  # of the one it was made from

    @property
    def bytes_(self) -> int:
        text = len(self.array.text) if self.array else 0
        return text + _RESOURCE_BYTES * len(self.met) + (self.edges.bytes_ if self.edges else 0)


class Alike(NamedTuple):
    """A catalog's resources: a lineup, and those that stand in others' slots."""

    lineup: Lineup
    others: dict[int, Met]

    @property
    def slots(self) -> list[Met]:
        """Every resource; what asks for them all looks at each, which is what a lineup is there to avoid."""
        slots = list(self.lineup.slots)
        for slot, met in self.others.items():
            slots[slot] = met
        return slots

    @property
    def digests(self) -> bytes:
        return self._with_others(self.lineup.digests, _digest)

    @property
    def edge_digests(self) -> bytes:
        return self._with_others(self.lineup.edge_digests, _edge_digest)

    @property
    def position_digests(self) -> bytes:
        return self._with_others(self.lineup.position_digests, _position_digest)

    def _with_others(self, digests: bytes, digest_of: Callable[[Met], bytes]) -> bytes:
        if not self.others:
            return digests
        changed = bytearray(digests)
        for slot, met in self.others.items():
            changed[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES] = digest_of(met)
        return bytes(changed)

    def give(self, lane: int, *, everything: bool) -> dict[int, Met]:
        """By slot the resources that this lane (a bit) was not given; they count as given from now on."""
        if everything:
            found = dict(enumerate(self.slots))
            for met in found.values():
                met.sent |= lane
            return found
        unsent = self.lineup.unsent
        waiting = unsent.get(lane, range(len(self.lineup.slots)))
        found = {slot: met for slot in waiting if not (met := self.lineup.slots[slot]).sent & lane}
        unsent[lane] = [slot for slot in found if slot in self.others]
        for slot in unsent[lane]:
            del found[slot]
        found |= {slot: met for slot, met in self.others.items() if not met.sent & lane}
        for met in found.values():
            met.sent |= lane
        return found


def line_up(section: bytes, met: list[Met], *, thin: bool) -> Lineup:
    """A lineup of these resources; ``thin``: only the exported have slots. Raises Rejected when one is there twice.

    ``section`` is what the resources' lengths were found in; empty when that was not the section as it lies there.
    """
    keys = [one.key for one in met]
    places = [place for place, one in enumerate(met) if one.exported] if thin else range(len(met))
    order = sorted(places, key=keys.__getitem__)
    for before, after in pairwise(order):
        if keys[before] == keys[after]:
            raise Rejected("duplicate_resource", f"{met[before].ref.short} is in the catalog twice")
    slot_of = [NO_SLOT] * len(met)
    for slot, place in enumerate(order):
        slot_of[place] = slot
    slots = [met[place] for place in order]
    return Lineup(
        array=array_text(section, [one.length for one in met]),
        met=met,
        slot_of=slot_of,
        slots=slots,
        digests=b"".join(map(_digest, slots)),
        edge_digests=b"".join(map(_edge_digest, slots)),
        position_digests=b"".join(map(_position_digest, slots)),
        exported=tuple([slot for slot, one in enumerate(slots) if one.exported]),
    )


def likeness(section: memoryview, lineup: Lineup) -> int:
    """How many of ``SAMPLES`` of the lineup's resources stand in that section as they stood, and near where they stood."""
    if lineup.array is None:
        return 0
    old, starts = lineup.array
    found = 0
    for sample in range(SAMPLES):
        place = sample * (len(starts) - 1) // SAMPLES
        begin = starts[place]
        text = old[begin : min(starts[place + 1] - 1, begin + SAMPLE_BYTES_MAX)]
        found += text in bytes(
            section[max(0, begin - SAMPLE_SHIFT_MAX) : begin + len(text) + SAMPLE_SHIFT_MAX]
        )
    return found


def alike(lineup: Lineup, found: Sequence[tuple[Difference, Sequence[Met]]]) -> Alike | None:
    """The catalog as that lineup with these differences and what they mean; None when it needs one of its own."""
    others: dict[int, Met] = {}
    for difference, mets in found:
        if len(mets) != difference.end - difference.begin:
            return None
        for place, met in zip(range(difference.begin, difference.end), mets, strict=True):
            before, slot = lineup.met[place], lineup.slot_of[place]
            if met.exported != before.exported:
                return None
            if slot != NO_SLOT and met is not before:
                others[slot] = met
    slots = lineup.slots
    if len(others) > OTHERS_SHARE_MAX * len(slots):
        return None
    for slot, met in others.items():
        if slot > 0 and others.get(slot - 1, slots[slot - 1]).key >= met.key:
            return None
        if slot + 1 < len(slots) and met.key >= others.get(slot + 1, slots[slot + 1]).key:
            return None
    return Alike(lineup, others)


def with_differences(lineup: Lineup, found: Sequence[tuple[Difference, Sequence[Met]]]) -> list[Met]:
    """All of the catalog, in its document's order."""
    all_: list[Met] = []
    place = 0
    for difference, mets in found:
        all_ += lineup.met[place : difference.begin]
        all_ += mets
        place = difference.end
    return all_ + lineup.met[place:]


class Lineups:
    """The last ones of each kind of catalog. They are found by their bodies' lengths, which differ little in a role, and of
    those that are near the one is taken that has most in common: a role may be on its way from one release to the next.
    """

    def __init__(self, bytes_max: int) -> None:
        self._by_place: dict[Place, Lineup] = {}  # the one that was used last is the last
        self._places: list[Place] = []  # ascending
        self._bytes_max = bytes_max
        self._bytes = 0
        self._count = 0

    def near(self, length: int) -> list[Lineup]:
        """Those whose lengths are next to that, the nearest first."""
        at = bisect_left(self._places, (length, 0))
        near = self._places[max(0, at - NEAR) : at + NEAR]
        return [self._by_place[place] for place in sorted(near, key=lambda place: abs(place[0] - length))]

    def most_alike(self, section: memoryview, length: int, family: str) -> Lineup | None:
        """One to compare that catalog with."""
        best, most = None, -1
        for lineup in self.near(length):
            if lineup.family == family and (like := likeness(section, lineup)) > most:
                best, most = lineup, like
                if like == SAMPLES:
                    break
        if best is not None:
            self._by_place[best.place] = self._by_place.pop(best.place)
        return best

    def put(self, lineup: Lineup, behind: Lineup | None) -> None:
        """``behind`` is the one it was made from: that stays, but not the one that this was made from."""
        if lineup.bytes_ > self._bytes_max // 4:
            return  # not for one all others
        if behind is not None:
            self._forget(behind.elder)
        self._count += 1
        lineup.place = (lineup.length, self._count)
        lineup.elder = behind.place if behind is not None else NOWHERE
        self._by_place[lineup.place] = lineup
        insort(self._places, lineup.place)
        self._bytes += lineup.bytes_
        for met in lineup.met:
            met.lineups += 1
        while self._bytes > self._bytes_max:
            self.forget_oldest()

    def forget_oldest(self) -> bool:
        """The one that was not used for longest; False when there is none."""
        place = next(iter(self._by_place), NOWHERE)
        self._forget(place)
        return place != NOWHERE

    def _forget(self, place: Place) -> None:
        lineup = self._by_place.pop(place, None)
        if lineup is not None:
            del self._places[bisect_left(self._places, place)]
            self._bytes -= lineup.bytes_
            for met in lineup.met:
                met.lineups -= 1
