"""One transaction of a writer: takes a batch of work, leaves every node of it at its newest catalog.

The order of locks is the same for everybody: content lock (shared), nodes by key, names, content by digest,
quarantine by digest. That is why several writers and several instances meet no deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import not_

from ingest.core import pgcopy
from ingest.core.delivery.batching import Stored, is_stale, supersede
from ingest.core.delivery.work import Ahead, Claim, Content, Deactivate, Full, Outcome, Settled, Work
from ingest.errors import Rejected
from ingest.store.catalog.content_store import Contents
from ingest.store.catalog.membership import write_chunks, write_exports
from ingest.store.connection import Connection, translate_errors
from ingest.store.content_table import Encoded
from ingest.store.locks import NodeLocks
from ingest.store.quarantine import NO_LIMITS, QuarantineLimits, QuarantineRow, put, require_room
from ingest.store.queries import query
from ingest.store.session import Counts, Session

# What is written of a catalog's header, as encoded fields in the order of the statements, and their types.
HeaderFields = tuple[bytes, ...]
HEADER_OIDS = (
    *[pgcopy.INT4_OID] * 6, pgcopy.BOOL_OID, pgcopy.BYTEA_OID, pgcopy.BYTEA_OID, *[pgcopy.TEXT_OID] * 3, pgcopy.UUID_OID,
    pgcopy.UUID_OID, pgcopy.TIMESTAMPTZ_OID, pgcopy.TIMESTAMPTZ_OID,
)  # fmt: skip


class Lane:
    """The store as one writer uses it: a connection, its caches of ids, one batch at a time."""

    def __init__(
        self,
        connection: Connection,
        cache_entries_max: int,
        quarantine_limits: QuarantineLimits = NO_LIMITS,
    ) -> None:
        self.connection = connection
        self.counts = Counts()  # of the last batch
        self._quarantine_limits = quarantine_limits
        self._generation: int | None = None
        self._names: dict[tuple[str, str], int] = {}
        self._contents = Contents(cache_entries_max)
        with translate_errors():
            connection.execute(query("create_staging"))
            self._locks = NodeLocks(connection)

    def apply(self, batch: Sequence[Work | QuarantineRow]) -> list[Settled]:
        """Settles a batch in one transaction. Raises Unavailable, Rejected (PostgreSQL refuses something in it)
        or Refused (the quarantine is full); nothing happened then, and halves of the batch may fare better."""
        try:
            with translate_errors():
                self._locks.prepare(_certnames(batch))
                with self.connection.transaction(), self.connection.cursor() as cursor:
                    session = Session(cursor)
                    self.counts = session.counts
                    settled = self._apply(session, batch)
        except BaseException:
            self._contents.rolled_back()
            self._names.clear()
            raise
        self._contents.committed()
        return settled

    def hints(self) -> list[tuple[str, bytes]]:
        """(certname, raw digest) of every stored catalog."""
        with translate_errors(), self.connection.cursor(binary=True) as cursor:
            cursor.execute(query("hints"))
            return [(str(certname), bytes(digest)) for certname, digest in cursor]  # type: ignore[call-overload]

    def _apply(self, session: Session, batch: Sequence[Work | QuarantineRow]) -> list[Settled]:
        catalogs = [work for work in batch if isinstance(work, Claim | Full)]
        commands = [work for work in batch if isinstance(work, Deactivate)]
        ahead: dict[bytes, Content] = {}
        for work in batch:
            if isinstance(work, Ahead):
                ahead |= work.contents
        newest, superseded = supersede(catalogs)
        stored = self._lock_and_read(session, sorted(_certnames(batch)))

        settled = self._store(session, newest, stored, catalogs, ahead)
        redo = {s.delivery for s in settled if s.outcome is Outcome.REDO}
        waiting = {c.header.certname for c in newest if c.delivery in redo}
        for catalog in superseded:
            # Its rival is not stored yet and may still be refused: then this one is the newest.
            again = catalog.header.certname in waiting
            settled.append(Settled(catalog.delivery, Outcome.REDO if again else Outcome.SUPERSEDED))
        settled += self._deactivate(session, commands)
        # By digest: another instance may have the same ones in another order.
        refused = sorted((row for row in batch if isinstance(row, QuarantineRow)), key=lambda row: row.digest)
        settled += [put(session, row) for row in refused]
        if refused:
            require_room(session, self._quarantine_limits)
        return settled

    # Reading what is there

    def _lock_and_read(self, session: Session, certnames: list[str]) -> dict[str, Stored]:
        generation = self._locks.take(certnames)
        if generation != self._generation:
            self._contents.forget()
            self._generation = generation
        if not certnames:
            return {}
        stored = self._read_nodes(session, certnames)
        unknown = [certname for certname in certnames if certname not in stored]
        if unknown:
            session.cursor.execute(query("insert_nodes"), [unknown])
            stored.update(self._read_nodes(session, unknown))
            session.counts.rows_written += len(unknown)
        return stored

    def _read_nodes(self, session: Session, certnames: list[str]) -> dict[str, Stored]:
        session.cursor.execute(query("read_nodes"), [certnames], binary=True)
        return {certname: Stored(*rest) for certname, *rest in session.cursor}

    # Catalogs

    def _store(
        self,
        session: Session,
        newest: Sequence[Claim | Full],
        stored: dict[str, Stored],
        batch: Sequence[Claim | Full],
        ahead: dict[bytes, Content],
    ) -> list[Settled]:
        settled: list[Settled] = []
        full: list[Full] = []
        headers: list[HeaderFields] = []
        touched: list[Claim | Full] = []
        named = [c for c in newest if not is_stale(c, stored[c.header.certname])]
        self._resolve_names(session, named)
        for catalog in newest:
            there = stored[catalog.header.certname]
            if is_stale(catalog, there):
                settled.append(Settled(catalog.delivery, Outcome.STALE))
            elif isinstance(catalog, Full) and catalog.content_digest != there.content_digest:
                full.append(catalog)
            elif isinstance(catalog, Claim) and catalog.sections.raw_digest != there.raw_digest:
                settled.append(Settled(catalog.delivery, Outcome.REDO))
            else:
                settled.append(Settled(catalog.delivery, Outcome.UNCHANGED))
                if not _is_same_run(catalog, there):
                    headers.append(self._header_fields(catalog, there))
                    touched.append(catalog)
        if full or ahead:
            # A superseded catalog may have brought what the newest one refers to.
            sources = [c for c in batch if isinstance(c, Full)]
            rows_, missing = self._store_contents(session, full, stored, sources, ahead)
            for catalog in full:
                if catalog.delivery in missing:
                    settled.append(Settled(catalog.delivery, Outcome.REDO))
                else:
                    settled.append(Settled(catalog.delivery, Outcome.STORED))
                    headers.append(rows_[catalog.delivery])
                    touched.append(catalog)
        known = [stored[c.header.certname].producer_timestamp is not None for c in touched]
        _write_headers(session, "update_catalogs", list(compress(headers, known)))
        _write_headers(session, "insert_catalogs", list(compress(headers, map(not_, known))))
        self._reactivate(session, touched, stored)
        return settled

    def _store_contents(
        self,
        session: Session,
        catalogs: Sequence[Full],
        stored: dict[str, Stored],
        sources: Sequence[Full],
        ahead: dict[bytes, Content],
    ) -> tuple[dict[int, HeaderFields], set[int]]:
        """Writes what is new of these catalogs. Returns the header's fields of each, and the deliveries of which a
        content is nowhere to be found."""
        found = self._contents.resolve(session, catalogs, sources, ahead)
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
        node_ids = {c.delivery: stored[c.header.certname].node_id for c in present}
        slots = {c.delivery: found.slots[c.delivery].ids for c in present}
        write_chunks(session, present, stored, node_ids, slots)
        write_exports(session, present, stored, node_ids, slots)
        headers = {
            c.delivery: self._header_fields(
                c,
                stored[c.header.certname],
                (found.edge_sets[c.edge_set], found.position_sets[c.position_set], c.slots),
            )
            for c in present
        }
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
            pgcopy.int4(self._name_id("environments", header.environment)),
            pgcopy.int4(self._name_id("producers", header.producer)),
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
        )

    def _resolve_names(self, session: Session, catalogs: Sequence[Claim | Full]) -> None:
        for table, names in (
            ("environments", {c.header.environment for c in catalogs}),
            ("producers", {c.header.producer for c in catalogs}),
        ):
            unknown = sorted(name for name in names if name is not None and (table, name) not in self._names)
            if unknown:
                session.cursor.execute(query(f"insert_{table}"), [unknown])
                session.cursor.execute(query(f"find_{table}"), [unknown])
                self._names.update({(table, name): id_ for name, id_ in session.cursor})

    def _name_id(self, table: str, name: str | None) -> int | None:
        return None if name is None else self._names[table, name]

    # Nodes

    def _reactivate(
        self, session: Session, catalogs: Sequence[Claim | Full], stored: dict[str, Stored]
    ) -> None:
        asleep = [
            (stored[c.header.certname].node_id, c.header.producer_timestamp)
            for c in catalogs
            if stored[c.header.certname].deactivated or stored[c.header.certname].expired
        ]
        if asleep:
            session.execute("reactivate_nodes", [[n for n, _ in asleep], [t for _, t in asleep]])

    def _deactivate(self, session: Session, commands: Sequence[Deactivate]) -> list[Settled]:
        newest: dict[str, Deactivate] = {}
        for command in sorted(commands, key=lambda c: c.producer_timestamp):
            newest[command.certname] = command
        if not newest:
            return []
        session.cursor.execute(
            query("deactivate_nodes"),
            [list(newest), [c.producer_timestamp for c in newest.values()]],
        )
        done = {row[0] for row in session.cursor}
        session.counts.rows_written += len(done)
        return [
            Settled(
                c.delivery,
                Outcome.SUPERSEDED
                if newest[c.certname] is not c
                else Outcome.STORED
                if c.certname in done
                else Outcome.STALE,
            )
            for c in commands
        ]


def _certnames(batch: Sequence[Work | QuarantineRow]) -> set[str]:
    """The nodes whose rows a batch may touch."""
    catalogs = {work.header.certname for work in batch if isinstance(work, Claim | Full)}
    return catalogs | {work.certname for work in batch if isinstance(work, Deactivate)}


def _write_headers(session: Session, statement: str, headers: Sequence[HeaderFields]) -> None:
    """Rows of ``catalogs`` as one array a column."""
    if headers:
        columns = zip(HEADER_OIDS, zip(*headers, strict=True), strict=True)
        session.execute(statement, [Encoded(pgcopy.array_of(oid, fields)) for oid, fields in columns])


def _is_same_run(catalog: Claim | Full, stored: Stored) -> bool:
    """The same message once more: not even its header differs."""
    return (
        catalog.header.producer_timestamp == stored.producer_timestamp
        and catalog.header.transaction_uuid == stored.transaction_uuid
        and catalog.sections.raw_digest == stored.raw_digest
    )
