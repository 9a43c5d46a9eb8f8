"""How the resources of a catalog stood, so that the next one like it costs only what differs.

The nodes of a role, and a node from run to run, have nearly the same resources in the same order. So a catalog's
section is compared with that of the last one like it, many resources at a time, at the speed of memory: nothing is
parsed, hashed or looked up of what is the same. What differs lies between two places that are told by the begin of a
resource, its type and title, and is parsed. What it was compared with never changes the result: a JSON array's text
is that of its elements with commas between, and reads as one sequence of values only.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ingest.core.catalog.cache import Met
from ingest.core.catalog.formats import Raw, slices
from ingest.core.catalog.layout import Layout
from ingest.core.delivery.work import DIGEST_BYTES
from ingest.errors import Rejected

TOGETHER = 64  # resources are compared at once, and half as many where they differ, down to one
AHEAD = 8  # how many of the next resources are looked for behind one that differs,
SHIFT_BYTES_MAX = 8192  # and how much farther than they stood,
SEARCH_BYTES_MAX = 256 * 1024  # but not farther than this
OTHERS_SHARE_MAX = 1 / 8  # of the slots; with more a catalog gets a lineup of its own
NO_SLOT = -1  # in a thin lineup: not exported, so not stored
NEAR = 2  # lineups on either side of a length are looked at,
SAMPLES = 16  # so many resources of each,
SAMPLE_SHIFT_MAX = 2048  # up to so many bytes from where they stood
SAMPLE_BYTES_MAX = 4096  # of a large one
_BEGIN_BYTES = 64  # of a resource, by which it is found
_RESOURCE_BYTES = 150  # of a lineup for each resource, beside the section

Place = tuple[int, int]  # among all lineups: the body's length, and a number
NOWHERE: Place = (0, 0)

_digest = attrgetter("digest")
_edge_digest = attrgetter("edge_digest")
_position_digest = attrgetter("position.digest")


class Difference(NamedTuple):
    """These stand now where the resources from ``begin`` to before ``end`` stood."""

    begin: int
    end: int
    raws: list[Raw]


class Lineup(msgspec.Struct):
    """A catalog's resources in its document's order, and by slot what is asked of all of them at once."""

    section: bytes  # the JSON array
    starts: list[int]  # where each element begins, and where one more would, with nothing but commas between
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
    # In its book:
    place: Place = NOWHERE
    elder: Place = NOWHERE  # of the one it was made from

    @property
    def bytes_(self) -> int:
        return len(self.section) + _RESOURCE_BYTES * len(self.met)

    @property
    def is_compact(self) -> bool:
        """Whether other catalogs can be compared with it."""
        return self.starts[-1] == len(self.section)


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
    """A lineup of these resources; ``thin``: only the exported have slots. Raises Rejected when one is there twice."""
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
        section=section,
        starts=list(accumulate([one.length + 1 for one in met], initial=1)),
        met=met,
        slot_of=slot_of,
        slots=slots,
        digests=b"".join(map(_digest, slots)),
        edge_digests=b"".join(map(_edge_digest, slots)),
        position_digests=b"".join(map(_position_digest, slots)),
        exported=tuple([slot for slot, one in enumerate(slots) if one.exported]),
    )


def differences(section: memoryview, lineup: Lineup) -> list[Difference] | None:
    """What stands otherwise in a section than in the lineup's; None when only a parse of the whole can tell."""
    if bytes(section[:1]) != b"[" or bytes(section[-1:]) != b"]":
        return None
    found: list[Difference] = []
    at, place = _same(section, 1, lineup, 0)
    while at < len(section):
        next_, other = _next(section, at, lineup, place)
        try:
            # What is an element of this list is one of the whole: from comma to comma, from value to value.
            raws = slices(b"[%b]" % bytes(section[at : next_ - 1])) if next_ > at else []
        except Rejected:
            return None  # cut in the wrong place, or rightly
        if next_ > at and not raws:
            return None
        found.append(Difference(place, other, raws))
        if len(found) > 8 + OTHERS_SHARE_MAX * other:
            return None
        at, place = _same(section, next_, lineup, other)
    return found


def _same(section: memoryview, at: int, lineup: Lineup, place: int) -> tuple[int, int]:
    """(where, place) of the first resource from there on that differs; the ends of both if none does."""
    starts, last = lineup.starts, len(lineup.starts) - 1
    upto = place
    while place < last:
        upto = min(place + TOGETHER, last)
        if not _is_same(section, at, lineup, place, upto):
            break
        at, place = at + starts[upto] - starts[place], upto
    while upto - place > 1:  # one of these differs
        middle = (place + upto) // 2
        if _is_same(section, at, lineup, place, middle):
            at, place = at + starts[middle] - starts[place], middle
        else:
            upto = middle
    return at, place


def _is_same(section: memoryview, at: int, lineup: Lineup, place: int, upto: int) -> bool:
    """Whether the resources before ``upto`` stand there, and what follows each: a comma, or the end."""
    starts = lineup.starts
    end = at + starts[upto] - starts[place]
    # The last one, and only that, ends with the section.
    if end > len(section) or (end == len(section)) != (upto == len(starts) - 1):
        return False
    return lineup.section.startswith(section[at:end], starts[place])


def _next(section: memoryview, at: int, lineup: Lineup, place: int) -> tuple[int, int]:
    """(where, place) of the next resource that begins like an expected one; the ends of both if none does."""
    old, starts = lineup.section, lineup.starts
    farthest = min(place + AHEAD, len(starts) - 2)
    if farthest > place:
        search = min(starts[farthest + 1] - starts[place] + SHIFT_BYTES_MAX, SEARCH_BYTES_MAX)
        text = b",%b" % bytes(section[at : at + search])
        for other in range(place + 1, farthest + 1):
            begin = starts[other]
            from_ = text.find(b",%b" % old[begin : min(begin + _BEGIN_BYTES, starts[other + 1] - 1)])
            if from_ >= 0:
                return at + from_, other
    return len(section), len(starts) - 1


def likeness(section: memoryview, lineup: Lineup) -> int:
    """How many of ``SAMPLES`` of the lineup's resources stand in that section as they stood, and near where they stood."""
    starts, old = lineup.starts, lineup.section
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
