"""Catalogs, from a writer's side: compares a batch with what is stored, writes what differs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import compress
from operator import not_

from ingest.core import pgcopy
from ingest.core.delivery.batching import Stored, judge, supersede
from ingest.core.delivery.work import Claim, Content, EarlyContents, Full, Outcome, Settled
from ingest.errors import Rejected
from ingest.store.catalog.content_store import Contents
from ingest.store.catalog.membership import write_chunks, write_exports
from ingest.store.engines import Placing
from ingest.store.lane import LaneSettings
from ingest.store.names import Names
from ingest.store.node.hearing import hear_of, learn_rhythms, stored_after_s
from ingest.store.node.nodes import reactivate, read_nodes
from ingest.store.parameters import column_parameters
from ingest.store.session import Session

# What is written of a catalog's header, as encoded fields in the order of the statements, and their types.
HeaderFields = tuple[bytes, ...]
HEADER_OIDS = (
    *[pgcopy.INT4_OID] * 6, pgcopy.BOOL_OID, pgcopy.BYTEA_OID, pgcopy.BYTEA_OID, *[pgcopy.TEXT_OID] * 3, pgcopy.UUID_OID,
    pgcopy.UUID_OID, pgcopy.TIMESTAMPTZ_OID, pgcopy.TIMESTAMPTZ_OID, pgcopy.INT4_OID,
)  # fmt: skip


class CatalogWriter:
    """Leaves every node at its newest catalog."""

    def __init__(self, settings: LaneSettings) -> None:
        self._future_tolerance = settings.future_tolerance
        self._placing = Placing(settings.asking)
        self._names = Names()
        self._contents = Contents(settings.cache_entries_max)

    def committed(self) -> None:
        self._contents.committed()
        self._names.committed()

    def rolled_back(self) -> None:
        self._contents.rolled_back()
        self._names.rolled_back()

    def forget(self) -> None:
        self._contents.forget()
        self._names.forget()

    def write(self, session: Session, works: Sequence[Claim | Full | EarlyContents]) -> list[Settled]:
        catalogs: Sequence[Claim | Full] = [work for work in works if not isinstance(work, EarlyContents)]
        early: dict[bytes, Content] = {}
        for work in works:
            if isinstance(work, EarlyContents):
                early |= work.contents
        catalogs = self._placing.place(session, catalogs)
        newest, superseded = supersede(catalogs)
        rows = read_nodes(session, "read_nodes", [catalog.certname for catalog in newest])
        stored = {certname: Stored(*rest) for certname, *rest in rows}
        settled = self._store(session, newest, stored, catalogs, early)
        redo = {s.delivery for s in settled if s.outcome is Outcome.REDO}
        waiting = {c.certname for c in newest if c.delivery in redo}
        for catalog in superseded:
            # Its rival is not stored yet and may still be refused: then this one is the newest.
            again = catalog.certname in waiting
            settled.append(Settled(catalog.delivery, Outcome.REDO if again else Outcome.SUPERSEDED))
        return settled

    def _store(
        self,
        session: Session,
        newest: Sequence[Claim | Full],
        stored: dict[str, Stored],
        batch: Sequence[Claim | Full],
        early: dict[bytes, Content],
    ) -> list[Settled]:
        found = judge(newest, stored, self._future_tolerance)
        current = (*found.refuted, *found.unchanged, *found.changed)
        self._names.resolve(session, [(c.header.environment, c.header.producer) for c in current])
        touched = [c for c in found.unchanged if _is_new_run(c, stored[c.certname])]
        headers = [self._header_fields(c, stored[c.certname]) for c in touched]
        missing: set[int] = set()
        if found.changed or early:
            # A superseded catalog may have brought what the newest one refers to.
            sources = [c for c in batch if isinstance(c, Full)]
            rows, missing = self._store_contents(session, found.changed, stored, sources, early)
            touched += [c for c in found.changed if c.delivery not in missing]
            headers += rows
        known = [stored[c.certname].producer_timestamp is not None for c in touched]
        _write_headers(session, "update_catalogs", list(compress(headers, known)), self._future_tolerance)
        _write_headers(session, "insert_catalogs", list(compress(headers, map(not_, known))))
        learn_rhythms(session, touched, stored)
        if found.stale:
            hear_of(session, found.stale, stored)
        asleep = [c for c in touched if stored[c.certname].deactivated or stored[c.certname].expired]
        reactivate(
            session,
            [(stored[c.certname].node_id, c.header.producer_timestamp, c.received_at) for c in asleep],
            self._future_tolerance,
        )
        return [
            *(Settled(c.delivery, Outcome.STALE) for c in found.stale),
            *(Settled(c.delivery, Outcome.REDO) for c in found.refuted),
            *(Settled(c.delivery, Outcome.UNCHANGED) for c in found.unchanged),
            *(Settled(c.delivery, Outcome.REDO if c.delivery in missing else Outcome.STORED) for c in found.changed),
        ]  # fmt: skip

    def _store_contents(
        self,
        session: Session,
        catalogs: Sequence[Full],
        stored: dict[str, Stored],
        sources: Sequence[Full],
        early: dict[bytes, Content],
    ) -> tuple[list[HeaderFields], set[int]]:
        """Writes what is new of these catalogs. Returns the deliveries of which a content is nowhere to be found, behind the
        header's fields of each of the others."""
        found = self._contents.resolve(session, catalogs, sources, early)
        missing = {
            c.delivery
            for c in catalogs
            if c.edge_set not in found.edge_sets
            or c.position_set not in found.position_sets
            or found.slots[c.delivery].missing
        }
        if any(c.complete and c.delivery in missing for c in catalogs):
            raise Rejected("incomplete_work", "a decoder called its work complete and it was not")
        present = [c for c in catalogs if c.delivery not in missing]
        node_ids = {c.delivery: stored[c.certname].node_id for c in present}
        slots = {c.delivery: found.slots[c.delivery].ids for c in present}
        write_chunks(session, present, stored, node_ids, slots)
        write_exports(session, present, stored, node_ids, slots)
        headers = [
            self._header_fields(
                c,
                stored[c.certname],
                (found.edge_sets[c.edge_set], found.position_sets[c.position_set], c.slots),
            )
            for c in present
        ]
        return headers, missing

    def _header_fields(
        self, catalog: Claim | Full, stored: Stored, content: tuple[int, int, int] | None = None
    ) -> HeaderFields:
        """``content`` is (edge set, position set, slots) where they are new."""
        header = catalog.header
        edge_set, position_set, slots = content or (stored.edge_set_id, stored.position_set_id, stored.slots)
        digest = catalog.content_digest if isinstance(catalog, Full) else stored.content_digest
        return (
            pgcopy.int4(stored.node_id),
            pgcopy.int4(edge_set),
            pgcopy.int4(position_set),
            pgcopy.int4(self._names.id("environments", header.environment)),
            pgcopy.int4(self._names.id("producers", header.producer)),
            pgcopy.int4(slots),
            pgcopy.boolean(content is not None),
            pgcopy.bytea(catalog.sections.raw_digest),
            pgcopy.bytea(digest),
            pgcopy.text(header.code_id),
            pgcopy.text(header.job_id),
            pgcopy.text(header.version),
            pgcopy.uuid_or_null(header.transaction_uuid),
            pgcopy.uuid_or_null(header.catalog_uuid),
            pgcopy.timestamptz(header.producer_timestamp),
            pgcopy.timestamptz(catalog.received_at),
            pgcopy.int4(stored_after_s(catalog.received_at, datetime.now(UTC))),
        )


def _write_headers(
    session: Session, statement: str, headers: Sequence[HeaderFields], *more: timedelta
) -> None:
    """Rows of ``catalogs`` as one array a column."""
    if headers:
        session.execute(statement, [*column_parameters(HEADER_OIDS, headers), *more])


def _is_new_run(catalog: Claim | Full, stored: Stored) -> bool:
    """Not the same message once more, of which not even the header differs; that only wakes an expired node."""
    return stored.expired is not None or (
        catalog.header.producer_timestamp != stored.producer_timestamp
        or catalog.header.transaction_uuid != stored.transaction_uuid
        or catalog.sections.raw_digest != stored.raw_digest
    )
