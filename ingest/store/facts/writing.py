"""Facts, from a writer's side: compares a batch with what is stored, writes what moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ingest.core import pgcopy
from ingest.core.delivery.work import Outcome, Settled
from ingest.core.facts.leaves import LEAF
from ingest.core.facts.order import is_stale, supersede
from ingest.core.facts.work import Factset
from ingest.errors import Rejected
from ingest.store.connection import Connection
from ingest.store.engines import Placing
from ingest.store.facts.bases import Bases
from ingest.store.facts.layers import LayerPlanner, Layers, Stored
from ingest.store.facts.packages import Packages
from ingest.store.facts.shared_content import Fields, list_field
from ingest.store.lane import LaneSettings
from ingest.store.names import Names
from ingest.store.node.nodes import reactivate, read_nodes
from ingest.store.parameters import column_parameters
from ingest.store.session import Session

_NODE_OIDS = (
    *[pgcopy.INT4_OID] * 4, pgcopy.TIMESTAMPTZ_OID, pgcopy.TEXT_OID, pgcopy.TEXT_OID, pgcopy.TIMESTAMPTZ_OID,
    pgcopy.TIMESTAMPTZ_OID, pgcopy.BYTEA_OID, pgcopy.TEXT_OID,
)  # fmt: skip
_TOUCH_OIDS = (*[pgcopy.INT4_OID] * 3, pgcopy.TIMESTAMPTZ_OID, pgcopy.TIMESTAMPTZ_OID)
_OWN_OIDS = (pgcopy.INT4_OID, pgcopy.TEXT_OID, pgcopy.TEXT_OID)


class FactsWriter:
    """Leaves every node at its newest facts."""

    def __init__(self, settings: LaneSettings) -> None:
        self._future_tolerance = settings.future_tolerance
        self._placing = Placing(settings.asking)
        self._names = Names()
        self._bases = Bases(settings.cache_entries_max // 16)
        self._layers = LayerPlanner(self._bases)
        self._packages = Packages(settings.cache_entries_max // 4)
        self._parts = (self._names, self._bases, self._packages)

    def committed(self) -> None:
        for part in self._parts:
            part.committed()

    def rolled_back(self) -> None:
        for part in self._parts:
            part.rolled_back()

    def forget(self) -> None:
        for part in self._parts:
            part.forget()

    def make_names(self, connection: Connection, works: Sequence[Factset]) -> None:
        self._names.make(connection, [(factset.environment, factset.producer) for factset in works])

    def write(self, session: Session, works: Sequence[Factset]) -> list[Settled]:
        works = self._placing.place(session, works)
        newest, superseded = supersede(works)
        rows = read_nodes(session, "read_fact_nodes", [factset.certname for factset in newest])
        stored = {certname: Stored(*rest) for certname, *rest in rows}
        settled = self._store(session, newest, stored, works)
        waiting = {f.certname for f in newest if settled[f.delivery] is Outcome.REDO}
        for factset in superseded:
            # Its rival is not stored yet and may still be refused: then this one is the newest.
            again = factset.certname in waiting
            settled[factset.delivery] = Outcome.REDO if again else Outcome.SUPERSEDED
        return [Settled(delivery, outcome) for delivery, outcome in settled.items()]

    def _store(
        self,
        session: Session,
        newest: Sequence[Factset],
        stored: dict[str, Stored],
        batch: Sequence[Factset],
    ) -> dict[int, Outcome]:
        outcomes: dict[int, Outcome] = {}
        changed: list[Factset] = []
        same: list[Factset] = []
        for factset in newest:
            there = stored[factset.certname]
            if is_stale(factset, there.producer_timestamp, there.content_digest, self._future_tolerance):
                outcomes[factset.delivery] = Outcome.STALE
            elif factset.content_digest == there.content_digest:
                outcomes[factset.delivery] = Outcome.UNCHANGED
                same.append(factset)
            else:
                changed.append(factset)
        self._names.resolve(session, [(f.environment, f.producer) for f in (*same, *changed)])
        layers = self._layers.plan(session, changed, stored, batch) if changed else {}
        packages = self._packages.plan(
            session,
            [
                (f, stored[f.certname].node_id, stored[f.certname].packages_digest)
                for f in changed
                if f.delivery in layers
            ],
            batch,
        )
        written = []
        for factset in changed:
            if factset.delivery in layers and factset.delivery not in packages.missing:
                outcomes[factset.delivery] = Outcome.STORED
                written.append(factset)
            elif factset.is_complete:
                raise Rejected("incomplete_work", "a decoder called its work complete and it was not")
            else:
                outcomes[factset.delivery] = Outcome.REDO
        self._write_layers(session, written, stored, layers)
        self._packages.write(session, packages)
        touched = [f for f in same if self._is_new_run(f, stored[f.certname])]
        self._touch(session, touched, stored)
        self._reactivate(session, (*written, *touched), stored)
        return outcomes

    # Rows

    def _write_layers(
        self,
        session: Session,
        factsets: Sequence[Factset],
        stored: dict[str, Stored],
        layers: dict[int, Layers],
    ) -> None:
        rows: dict[str, list[Fields]] = {"update_node_facts": [], "insert_node_facts": []}
        own: dict[int, Fields] = {}
        emptied: set[int] = set()
        for factset in factsets:
            there, its = stored[factset.certname], layers[factset.delivery]
            is_known = there.producer_timestamp is not None
            rows["update_node_facts" if is_known else "insert_node_facts"].append(
                self._node_fields(factset, there, its)
            )
            if its.own or (its.own is not None and is_known):
                numbers = sorted(its.own)
                lists = list_field(numbers), list_field(its.own[number] for number in numbers)
                own[there.node_id] = (pgcopy.int4(there.node_id), *lists)
                if not numbers:
                    emptied.add(there.node_id)
        for statement, fields in rows.items():
            if fields:
                session.execute(statement, column_parameters(_NODE_OIDS, fields))
        _write_own_facts(session, own, emptied)

    def _node_fields(self, factset: Factset, stored: Stored, layers: Layers) -> Fields:
        moving = layers.moving
        places = sorted(moving.leaves)
        return (
            pgcopy.int4(stored.node_id),
            pgcopy.int4(layers.base_id),
            *self._name_fields(factset),
            pgcopy.timestamptz(moving.since),
            list_field(sorted(moving.still)) if moving.still else pgcopy.NULL,
            list_field(places),
            pgcopy.timestamptz(factset.received_at),
            pgcopy.timestamptz(factset.producer_timestamp),
            pgcopy.bytea(factset.content_digest),
            pgcopy.text(LEAF.join([moving.leaves[place] for place in places])),
        )

    def _name_fields(self, factset: Factset) -> tuple[bytes, bytes]:
        return (
            pgcopy.int4(self._names.id("environments", factset.environment)),
            pgcopy.int4(self._names.id("producers", factset.producer)),
        )

    def _is_new_run(self, factset: Factset, stored: Stored) -> bool:
        """Not the very message that is stored."""
        return bool(
            stored.expired
            or factset.producer_timestamp != stored.producer_timestamp
            or self._names.id("environments", factset.environment) != stored.environment_id
            or self._names.id("producers", factset.producer) != stored.producer_id
        )

    def _touch(self, session: Session, factsets: Sequence[Factset], stored: dict[str, Stored]) -> None:
        rows = [
            (
                pgcopy.int4(stored[f.certname].node_id),
                *self._name_fields(f),
                pgcopy.timestamptz(f.received_at),
                pgcopy.timestamptz(f.producer_timestamp),
            )
            for f in factsets
        ]
        if rows:
            session.execute("touch_node_facts", column_parameters(_TOUCH_OIDS, rows))

    def _reactivate(self, session: Session, factsets: Iterable[Factset], stored: dict[str, Stored]) -> None:
        asleep = [f for f in factsets if stored[f.certname].deactivated or stored[f.certname].expired]
        rows = [(stored[f.certname].node_id, f.producer_timestamp, f.received_at) for f in asleep]
        reactivate(session, rows, self._future_tolerance)


def _write_own_facts(session: Session, rows: dict[int, Fields], emptied: set[int]) -> None:
    """By node; ``emptied`` are those that need no row if they have none."""
    if rows:
        session.execute("update_own_facts", column_parameters(_OWN_OIDS, list(rows.values())))
        updated = {node_id for (node_id,) in session.cursor}
        if new := [fields for node_id, fields in rows.items() if node_id not in updated | emptied]:
            session.execute("insert_own_facts", column_parameters(_OWN_OIDS, new))
