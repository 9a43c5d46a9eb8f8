"""In which layers a node's facts are to be stored, by what is stored of them now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from ingest.core.facts import stable
from ingest.core.facts.leaves import LEAF
from ingest.core.facts.stable import NONE_MOVING, Moving
from ingest.core.facts.work import Factset
from ingest.store.facts.bases import Base, Bases
from ingest.store.queries import query
from ingest.store.session import Session


class Stored(NamedTuple):
    """What the database has of one node's facts, without what it shares and without its own."""

    node_id: int
    deactivated: datetime | None
    expired: datetime | None
    producer_timestamp: datetime | None  # None: no facts yet
    content_digest: bytes | None
    base_id: int | None
    environment_id: int | None
    producer_id: int | None
    moving_since: datetime | None
    still: list[int] | None
    places: list[int] | None
    moving: str | None
    packages_digest: bytes | None

    @property
    def moves(self) -> Moving:
        if self.moving_since is None:
            return NONE_MOVING
        leaves = self.moving.split(LEAF) if self.moving else []
        return Moving(
            dict(zip(self.places or (), leaves, strict=True)), self.moving_since, frozenset(self.still or ())
        )


class Layers(NamedTuple):
    """How a node's facts are to be stored."""

    base_id: int
    moving: Moving
    own: dict[int, str] | None = None  # None: they stay as they are


class LayerPlanner:
    """Compares what came with what is in place."""

    def __init__(self, bases: Bases) -> None:
        self._bases = bases

    def plan(
        self,
        session: Session,
        changed: Sequence[Factset],
        stored: dict[str, Stored],
        batch: Sequence[Factset],
    ) -> dict[int, Layers]:
        """By delivery; those of which nobody knows the shape have none."""
        base_ids = {id_ for f in changed if (id_ := stored[f.certname].base_id) is not None}
        bases = self._bases.of_ids(session, base_ids) if base_ids else {}
        alike: list[tuple[Factset, Base]] = []
        others: list[Factset] = []
        for factset in changed:
            base = bases.get(stored[factset.certname].base_id or 0)
            if base is not None and base.shape_digest == factset.shape_digest:
                alike.append((factset, base))
            else:
                others.append(factset)
        found = self._moved(session, alike, stored) if alike else {}
        others += [factset for factset, _ in alike if factset.delivery not in found]
        if others:
            shapes = {f.shape_digest: f.shape for f in batch if f.shape is not None}
            chosen = self._bases.choose(session, others, shapes)
            for factset in others:
                if (base := chosen.get(factset.delivery)) is not None:
                    found[factset.delivery] = _laid_anew(factset, base)
        return found

    def _moved(
        self, session: Session, alike: Sequence[tuple[Factset, Base]], stored: dict[str, Stored]
    ) -> dict[int, Layers]:
        """Of those whose shape is the stored one; what moves too much is left out."""
        own = self._own_facts(session, [stored[factset.certname].node_id for factset, _ in alike])
        # The same for all of a shape, and to count them takes as long as the rest.
        firsts = {
            base.id: stable.firsts_of(base.leaves) for base in {base.id: base for _, base in alike}.values()
        }
        found = {}
        for factset, base in alike:
            there = stored[factset.certname]
            in_place = stable.stable_leaves(base.leaves, own.get(there.node_id, {}))
            leaves = stable.moved_leaves(in_place, factset.leaves, firsts[base.id])
            if not stable.can_move(leaves):
                continue
            moving = stable.next_moving(there.moves, leaves, factset.received_at)
            layers = Layers(base.id, moving)
            if factset.received_at - moving.since >= stable.REST:
                layers = _rested(factset, base, in_place, moving)
            found[factset.delivery] = layers
        return found

    def _own_facts(self, session: Session, node_ids: list[int]) -> dict[int, dict[int, str]]:
        session.cursor.execute(query("read_own_facts"), [node_ids], binary=True)
        return {node_id: dict(zip(facts, leaves, strict=True)) for node_id, facts, leaves in session.cursor}


def _laid_anew(factset: Factset, base: Base) -> Layers:
    own = stable.own_facts(base.leaves, factset.leaves, factset.listed)
    leaves = stable.moved_leaves(stable.stable_leaves(base.leaves, own), factset.leaves)
    if not stable.can_move(leaves):
        own, leaves = stable.own_facts(base.leaves, factset.leaves, ()), {}
    return Layers(base.id, stable.next_moving(NONE_MOVING, leaves, factset.received_at), own)


def _rested(factset: Factset, base: Base, in_place: list[str], moving: Moving) -> Layers:
    """A day has passed: what rests is taken into the node's own facts if that is worth a row, and another day begins."""
    at_rest = stable.resting(moving, factset.received_at, factset.listed)
    if not at_rest or not stable.is_worth_a_row(moving, at_rest):
        fresh = Moving(moving.leaves, factset.received_at, frozenset(moving.leaves))
        return Layers(base.id, fresh)
    in_place = stable.stable_leaves(in_place, stable.settled(in_place, moving, at_rest))
    leaves = {place: leaf for place, leaf in moving.leaves.items() if place not in at_rest}
    own = {at: new for at, (old, new) in enumerate(zip(base.leaves, in_place, strict=True)) if old != new}
    return Layers(base.id, Moving(leaves, factset.received_at, frozenset(leaves)), own)
