"""A catalog's resources as they stood, and what another catalog has otherwise: so that one like it costs only what differs.

The nodes of a role, and a node from run to run, have nearly the same resources in the same order. Of those that are the same
nothing is parsed, hashed, looked up or even looked at: what is asked of all resources at once is remembered with the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ingest.core.catalog.array_delta import ArrayText, Difference, array_text
from ingest.core.catalog.cache import CachedResource
from ingest.core.catalog.edge_delta import KnownEdges
from ingest.core.catalog.layout import Layout
from ingest.core.delivery.work import DIGEST_BYTES
from ingest.errors import Rejected

OTHERS_SHARE_MAX = 1 / 8  # of the slots; with more a catalog gets a baseline of its own
NO_SLOT = -1  # of a thin baseline: not exported, so not stored
RESOURCE_BYTES = 200  # of a baseline for each resource, beside the text

Place = tuple[int, int]  # among all baselines: the body's length, and a number
NOWHERE: Place = (0, 0)

_digest = attrgetter("digest")
_edge_digest = attrgetter("edge_digest")
_position_digest = attrgetter("position.digest")


class Baseline(msgspec.Struct):
    """A catalog's resources in its document's order, and by slot what is asked of all of them at once."""

    array: ArrayText | None  # None: no other catalog can be compared with it
    resources: list[CachedResource]  # in the document's order
    slot_of: list[int]  # in the document's order
    slots: list[CachedResource]
    digests: bytes
    edge_digests: bytes
    position_digests: bytes
    exported: tuple[int, ...]  # slots
    parent: Place = NOWHERE  # of the one it was made from
    unsent: dict[int, list[int]] = {}  # by lane (a bit) the slots it was not given; all if not here
    # Once it is remembered:
    place: Place = NOWHERE
    family: str = ""
    layout: Layout | None = None
    edges: KnownEdges | None = None

    @property
    def bytes_(self) -> int:
        text = len(self.array.text) if self.array else 0
        return text + RESOURCE_BYTES * len(self.resources) + (self.edges.bytes_ if self.edges else 0)


class Replacement(NamedTuple):
    """These resources stand now where those of the baseline stood."""

    difference: Difference
    resources: list[CachedResource]


class Delta(NamedTuple):
    """A catalog's resources: a baseline, and those that stand in others' slots."""

    baseline: Baseline
    others: dict[int, CachedResource]

    @property
    def slots(self) -> list[CachedResource]:
        """Every resource; what asks for them all looks at each, which is what a baseline is there to avoid."""
        slots = list(self.baseline.slots)
        for slot, resource in self.others.items():
            slots[slot] = resource
        return slots

    @property
    def digests(self) -> bytes:
        return self._with_others(self.baseline.digests, _digest)

    @property
    def edge_digests(self) -> bytes:
        return self._with_others(self.baseline.edge_digests, _edge_digest)

    @property
    def position_digests(self) -> bytes:
        return self._with_others(self.baseline.position_digests, _position_digest)

    def _with_others(self, digests: bytes, digest_of: Callable[[CachedResource], bytes]) -> bytes:
        if not self.others:
            return digests
        changed = bytearray(digests)
        for slot, resource in self.others.items():
            changed[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES] = digest_of(resource)
        return bytes(changed)

    def give(self, lane: int, *, everything: bool) -> dict[int, CachedResource]:
        """By slot the resources that this lane (a bit) was not given; they count as given from now on."""
        if everything:
            found = dict(enumerate(self.slots))
        else:
            slots, unsent = self.baseline.slots, self.baseline.unsent
            waiting = [slot for slot in unsent.get(lane, range(len(slots))) if not slots[slot].sent & lane]
            # Another stands there in this catalog: the baseline's own waits on.
            unsent[lane] = [slot for slot in waiting if slot in self.others]
            found = {slot: slots[slot] for slot in waiting if slot not in self.others}
            found |= {slot: other for slot, other in self.others.items() if not other.sent & lane}
        for resource in found.values():
            resource.sent |= lane
        return found


def make_baseline(
    section: bytes, resources: list[CachedResource], *, thin: bool, parent: Baseline | None = None
) -> Baseline:
    """A baseline of these resources; ``thin``: only the exported have slots. Raises Rejected when one is there twice.

    ``section`` is what the resources' lengths were found in; empty when that was not the section as it lies there.
    """
    keys = [resource.sort_key for resource in resources]
    places = [place for place, one in enumerate(resources) if one.exported] if thin else range(len(resources))
    order = sorted(places, key=keys.__getitem__)
    for before, after in pairwise(order):
        if keys[before] == keys[after]:
            raise Rejected("duplicate_resource", f"{resources[before].ref.short} is in the catalog twice")
    slot_of = [NO_SLOT] * len(resources)
    for slot, place in enumerate(order):
        slot_of[place] = slot
    slots = [resources[place] for place in order]
    return Baseline(
        array=array_text(section, [resource.length for resource in resources]),
        resources=resources,
        slot_of=slot_of,
        slots=slots,
        digests=b"".join(map(_digest, slots)),
        edge_digests=b"".join(map(_edge_digest, slots)),
        position_digests=b"".join(map(_position_digest, slots)),
        exported=tuple([slot for slot, resource in enumerate(slots) if resource.exported]),
        parent=parent.place if parent else NOWHERE,
    )


def delta_of(baseline: Baseline, replacements: Sequence[Replacement]) -> Delta | None:
    """The catalog as that baseline with these replacements; None when it needs a baseline of its own."""
    others: dict[int, CachedResource] = {}
    for difference, resources in replacements:
        if len(resources) != difference.end - difference.begin:
            return None
        for place, resource in enumerate(resources, difference.begin):
            before, slot = baseline.resources[place], baseline.slot_of[place]
            if resource.exported != before.exported:
                return None
            if slot != NO_SLOT and resource is not before:
                others[slot] = resource
    if len(others) > OTHERS_SHARE_MAX * len(baseline.slots) or not _keeps_order(baseline.slots, others):
        return None
    return Delta(baseline, others)


def _keeps_order(slots: Sequence[CachedResource], others: dict[int, CachedResource]) -> bool:
    """Whether each of the others is between the same neighbours, so that slots stay what they are."""
    for slot, other in others.items():
        if slot > 0 and others.get(slot - 1, slots[slot - 1]).sort_key >= other.sort_key:
            return False
        if slot + 1 < len(slots) and other.sort_key >= others.get(slot + 1, slots[slot + 1]).sort_key:
            return False
    return True


def all_resources(baseline: Baseline, replacements: Sequence[Replacement]) -> list[CachedResource]:
    """All of the catalog, in its document's order."""
    found: list[CachedResource] = []
    place = 0
    for difference, resources in replacements:
        found += baseline.resources[place : difference.begin]
        found += resources
        place = difference.end
    return found + baseline.resources[place:]
