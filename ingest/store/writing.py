"""One transaction of a writer: takes a batch of work, leaves every node of it at its newest catalog.

The order of locks is the same for everybody: content lock (shared), nodes by key, names, content by digest,
quarantine by digest.
That is why several writers and several instances meet no deadlock.
"""

from __future__ import annotations

import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from ingest.core import rows
from ingest.core.batching import Stored, is_stale, supersede
from ingest.core.diff import diff_chunks
from ingest.core.work import DIGEST_BYTES, Claim, Content, Deactivate, Full, Outcome, Settled, Work
from ingest.errors import Refused, Rejected
from ingest.store.connection import Connection, meaning
from ingest.store.content import ContentTable, copy_into
from ingest.store.queries import query

# The first key of our advisory locks; the second tells what is locked. Private to this schema's users.
CONTENT_LOCK = 464379
NODE_LOCK = 464380

Cursor = psycopg.Cursor[tuple[Any, ...]]


class QuarantineRow(msgspec.Struct, frozen=True):
    """A message that cannot be stored, its secrets already taken out."""

    delivery: int
    digest: bytes
    reason: str
    detail: str
    certname: str | None
    headers: dict[str, str]
    body: bytes | None
    body_note: str | None
    body_bytes: int


class QuarantineLimits(msgspec.Struct, frozen=True):
    """How full the quarantine may get before the engine stops; 0: no limit."""

    messages_max: int = 0
    per_minute_max: int = 0


NO_QUARANTINE_LIMITS = QuarantineLimits()


class Counts(msgspec.Struct):
    """What one batch did to the tables."""

    rows_written: int = 0
    bytes_copied: int = 0
    resources_new: int = 0


class Missing(Exception):  # not an error: a question to the decoder
    """Contents that neither the work nor the database has."""


class Lane:
    """The store as one writer uses it: a connection, its caches of ids, one batch at a time."""

    def __init__(
        self,
        connection: Connection,
        cache_entries_max: int,
        quarantine_limits: QuarantineLimits = NO_QUARANTINE_LIMITS,
    ) -> None:
        self.connection = connection
        self._quarantine_limits = quarantine_limits
        self.counts = Counts()
        self._generation: int | None = None
        self._names: dict[tuple[str, str], int] = {}
        # Resources take most of the cache; the other tables have few distinct rows.
        self._tags = ContentTable("tags", cache_entries_max // 8)
        self._positions = ContentTable("positions", cache_entries_max // 8)
        self._resources = ContentTable("resources", cache_entries_max // 2)
        self._edge_sets = ContentTable("edge_sets", cache_entries_max // 16)
        self._position_sets = ContentTable("position_sets", cache_entries_max // 16)
        self._tables = (self._tags, self._positions, self._resources, self._edge_sets, self._position_sets)
        with meaning():
            connection.execute(query("create_staging"))

    def apply(self, batch: Sequence[Work | QuarantineRow]) -> list[Settled]:
        """Settles a batch in one transaction. Raises Unavailable, Rejected (PostgreSQL refuses something in it)
        or Refused (the quarantine is full); nothing happened then, and halves of the batch may fare better."""
        self.counts = Counts()
        try:
            with meaning(), self.connection.transaction(), self.connection.cursor() as cursor:
                settled = self._apply(cursor, batch)
        except BaseException:
            for table in self._tables:
                table.rolled_back()
            self._names.clear()
            raise
        for table in self._tables:
            table.committed()
        return settled

    def hints(self) -> list[tuple[str, bytes]]:
        """(certname, raw digest) of every stored catalog."""
        with meaning(), self.connection.cursor(binary=True) as cursor:
            cursor.execute(query("hints"))
            return [(str(certname), bytes(digest)) for certname, digest in cursor]  # type: ignore[call-overload]

    def _apply(self, cursor: Cursor, batch: Sequence[Work | QuarantineRow]) -> list[Settled]:
        catalogs = [work for work in batch if isinstance(work, Claim | Full)]
        commands = [work for work in batch if isinstance(work, Deactivate)]
        newest, superseded = supersede(catalogs)
        certnames = sorted({c.header.certname for c in newest} | {c.certname for c in commands})
        stored = self._lock_and_read(cursor, certnames)

        settled = []
        settled += self._store(cursor, newest, stored, catalogs)
        redo = {s.delivery for s in settled if s.outcome is Outcome.REDO}
        waiting = {c.header.certname for c in newest if c.delivery in redo}
        for catalog in superseded:
            # Its rival is not stored yet and may still be refused: then this one is the newest.
            again = catalog.header.certname in waiting
            settled.append(Settled(catalog.delivery, Outcome.REDO if again else Outcome.SUPERSEDED))
        settled += self._deactivate(cursor, commands)
        # By digest: another instance may have the same ones in another order.
        refused = sorted((row for row in batch if isinstance(row, QuarantineRow)), key=lambda row: row.digest)
        settled += [self._quarantine(cursor, row) for row in refused]
        if refused:
            self._require_room_in_quarantine(cursor)
        return settled

    # Reading what is there

    def _lock_and_read(self, cursor: Cursor, certnames: list[str]) -> dict[str, Stored]:
        cursor.execute(query("lock_content"), [CONTENT_LOCK])
        if certnames:
            keys = sorted({node_key(certname) for certname in certnames})
            cursor.execute(query("lock_nodes"), [NODE_LOCK, keys])
        cursor.execute(query("content_generation"))
        row = cursor.fetchone()
        generation = None if row is None else row[0]
        if generation != self._generation:
            for table in self._tables:
                table.forget()
            self._generation = generation
        if not certnames:
            return {}
        stored = self._read_nodes(cursor, certnames)
        unknown = [certname for certname in certnames if certname not in stored]
        if unknown:
            cursor.execute(query("insert_nodes"), [unknown])
            stored.update(self._read_nodes(cursor, unknown))
            self.counts.rows_written += len(unknown)
        return stored

    def _read_nodes(self, cursor: Cursor, certnames: list[str]) -> dict[str, Stored]:
        cursor.execute(query("read_nodes"), [certnames], binary=True)
        found = {}
        for (
            certname,
            node_id,
            deactivated,
            expired,
            timestamp,
            uuid,
            raw,
            content,
            slots,
            edges,
            places,
        ) in cursor:
            found[certname] = Stored(
                node_id, deactivated, expired, timestamp, None if uuid is None else str(uuid), raw, content,
                slots or 0, edges, places,
            )  # fmt: skip
        return found

    # Catalogs

    def _store(
        self,
        cursor: Cursor,
        newest: Sequence[Claim | Full],
        stored: dict[str, Stored],
        batch: Sequence[Claim | Full],
    ) -> list[Settled]:
        settled: list[Settled] = []
        full: list[Full] = []
        headers: list[bytes] = []
        touched: list[Claim | Full] = []
        named = [c for c in newest if not is_stale(c, stored[c.header.certname])]
        self._resolve_names(cursor, named)
        for catalog in newest:
            there = stored[catalog.header.certname]
            if is_stale(catalog, there):
                settled.append(Settled(catalog.delivery, Outcome.STALE))
            elif isinstance(catalog, Full) and catalog.content_digest != there.content_digest:
                full.append(catalog)
            elif isinstance(catalog, Claim) and catalog.raw_digest != there.raw_digest:
                settled.append(Settled(catalog.delivery, Outcome.REDO))
            else:
                settled.append(Settled(catalog.delivery, Outcome.UNCHANGED))
                if not _is_same_run(catalog, there):
                    headers.append(self._header_row(catalog, there))
                    touched.append(catalog)
        if full:
            # A superseded catalog may have brought what the newest one refers to.
            sources = [c for c in batch if isinstance(c, Full)]
            rows_, missing = self._store_contents(cursor, full, stored, sources)
            for catalog in full:
                if catalog.delivery in missing:
                    settled.append(Settled(catalog.delivery, Outcome.REDO))
                else:
                    settled.append(Settled(catalog.delivery, Outcome.STORED))
                    headers.append(rows_[catalog.delivery])
                    touched.append(catalog)
        if headers:
            self._copy(cursor, "copy_catalogs", headers)
            if any(stored[c.header.certname].producer_timestamp is not None for c in touched):
                self._execute(cursor, "update_catalogs")
            if any(stored[c.header.certname].producer_timestamp is None for c in touched):
                self._execute(cursor, "insert_catalogs")
        self._reactivate(cursor, touched, stored)
        return settled

    def _store_contents(
        self, cursor: Cursor, catalogs: Sequence[Full], stored: dict[str, Stored], sources: Sequence[Full]
    ) -> tuple[dict[int, bytes], set[int]]:
        """Writes what is new of these catalogs. Returns the header row of each, and the deliveries of which a
        content is nowhere to be found."""
        split = {c.delivery: _digests(c) for c in catalogs}
        resource_ids = self._resolve_resources(cursor, split, sources)
        edge_ids = self._resolve_sets(
            cursor, self._edge_sets, {c.edge_set for c in catalogs},
            {c.edge_set: _edge_row(c) for c in sources if c.edges is not None},
        )  # fmt: skip
        position_ids = self._resolve_positions(cursor, {c.position_set for c in catalogs}, sources)

        missing = {
            c.delivery
            for c in catalogs
            if c.edge_set not in edge_ids
            or c.position_set not in position_ids
            or not all(digest in resource_ids for digest in split[c.delivery])
        }
        if any(c.complete and c.delivery in missing for c in catalogs):
            raise Rejected("incomplete_work", "a decoder called its work complete and it was not")
        present = [c for c in catalogs if c.delivery not in missing]
        node_ids = {c.delivery: stored[c.header.certname].node_id for c in present}
        slots = {c.delivery: array("i", map(resource_ids.__getitem__, split[c.delivery])) for c in present}
        self._write_chunks(cursor, present, stored, node_ids, slots)
        self._write_exports(cursor, present, stored, node_ids, slots)
        headers = {
            c.delivery: self._header_row(
                c, stored[c.header.certname], (edge_ids[c.edge_set], position_ids[c.position_set], c.slots)
            )
            for c in present
        }
        return headers, missing

    def _resolve_resources(
        self, cursor: Cursor, split: dict[int, list[bytes]], sources: Sequence[Full]
    ) -> dict[bytes, int]:
        wanted = set().union(*split.values())
        ids = self._resources.known(wanted)
        if len(ids) == len(wanted):
            return ids
        ids.update(self._resources.find(cursor, wanted - ids.keys()))
        contents: dict[bytes, Content] = {}
        for catalog in sources:
            for slot, content in catalog.contents.items():
                digest = catalog.digests[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES]
                if digest in wanted and digest not in ids:
                    contents[digest] = content
        if contents:
            tag_ids = self._resolve_tags(cursor, contents.values())
            new = self._resources.insert(
                cursor, {digest: _resource_row(content, tag_ids) for digest, content in contents.items()}
            )
            self.counts.resources_new += len(new)
            ids.update(new)
        return ids

    def _resolve_tags(self, cursor: Cursor, contents: Iterable[Content]) -> dict[str, int]:
        names = {tag: rows.name_digest(tag) for tag in set().union(*(content.tags for content in contents))}
        ids = self._resolve_sets(
            cursor,
            self._tags,
            set(names.values()),
            {digest: _tag_row(name, digest) for name, digest in names.items()},
        )
        return {name: ids[digest] for name, digest in names.items()}

    def _resolve_positions(
        self, cursor: Cursor, wanted: set[bytes], sources: Sequence[Full]
    ) -> dict[bytes, int]:
        """The ids of the position sets; the distinct positions of new sets first."""
        ids = self._position_sets.known(wanted)
        ids.update(self._position_sets.find(cursor, wanted - ids.keys()))
        new = {
            c.position_set: c.positions
            for c in sources
            if c.positions and c.position_set in wanted and c.position_set not in ids
        }
        if new:
            places = {digest: fields for p in new.values() for digest, fields in p.positions}
            place_ids = self._resolve_sets(
                cursor, self._positions, set(places),
                {digest: _position_row(digest, fields) for digest, fields in places.items()},
            )  # fmt: skip
            ids.update(
                self._position_sets.insert(
                    cursor,
                    {
                        digest: _position_set_row(
                            digest, [place_ids[p[0]] for p in set_.positions], set_.indexes
                        )
                        for digest, set_ in new.items()
                    },
                )
            )
        return ids

    def _resolve_sets(
        self,
        cursor: Cursor,
        table: ContentTable,
        wanted: set[bytes],
        rows_: dict[bytes, Callable[[], bytes]],
    ) -> dict[bytes, int]:
        """Ids from the cache, else from the database, else by inserting the rows that came with the work."""
        ids = table.known(wanted)
        if len(ids) < len(wanted):
            ids.update(table.find(cursor, wanted - ids.keys()))
        new = {digest: make for digest, make in rows_.items() if digest in wanted and digest not in ids}
        if new:
            ids.update(table.insert(cursor, new))
        return ids

    def _write_chunks(
        self,
        cursor: Cursor,
        catalogs: Sequence[Full],
        stored: dict[str, Stored],
        node_ids: dict[int, int],
        slots: dict[int, array[int]],
    ) -> None:
        known = [node_ids[c.delivery] for c in catalogs if stored[c.header.certname].slots]
        before: dict[int, dict[int, array[int]]] = defaultdict(dict)
        if known:
            for node, chunk_number, ids in self._raw(cursor, "read_chunks", [known]):
                before[_int(node)][_int(chunk_number)] = rows.read_int4_array(ids)
        staged: list[bytes] = []
        shrunk: list[tuple[int, int]] = []
        changed = added = 0
        for catalog in catalogs:
            node_id = node_ids[catalog.delivery]
            diff = diff_chunks(before.get(node_id, {}), slots[catalog.delivery])
            for known_, chunks in ((True, diff.changed), (False, diff.added)):
                staged += [
                    rows.row(
                        rows.int4(node_id), rows.int4(chunk), rows.boolean(known_), rows.int4_array(chunk_ids)
                    )
                    for chunk, chunk_ids in chunks
                ]
            changed += len(diff.changed)
            added += len(diff.added)
            if diff.shrunk:
                shrunk.append((node_id, diff.chunks))
        if staged:
            self._copy(cursor, "copy_catalog_resources", staged)
        if changed:
            self._execute(cursor, "update_chunks")
        if added:
            self._execute(cursor, "insert_chunks")
        if shrunk:
            self._execute(cursor, "delete_chunks", [[n for n, _ in shrunk], [c for _, c in shrunk]])

    def _write_exports(
        self,
        cursor: Cursor,
        catalogs: Sequence[Full],
        stored: dict[str, Stored],
        node_ids: dict[int, int],
        slots: dict[int, array[int]],
    ) -> None:
        # Not those with slots: a catalog that became empty left its row of exports behind, empty too.
        known = [
            node_ids[c.delivery] for c in catalogs if stored[c.header.certname].producer_timestamp is not None
        ]
        before: dict[int, array[int]] = {}
        if known:
            for node, ids in self._raw(cursor, "read_exports", [known]):
                before[_int(node)] = rows.read_int4_array(ids)
        staged: list[bytes] = []
        changed = added = 0
        for catalog in catalogs:
            node_id = node_ids[catalog.delivery]
            slot_ids = slots[catalog.delivery]
            incoming = array("i", sorted(slot_ids[slot] for slot in catalog.exported))
            there = before.get(node_id)
            if (there or array("i")) != incoming:
                staged.append(
                    rows.row(rows.int4(node_id), rows.boolean(there is not None), rows.int4_array(incoming))
                )
                changed += there is not None
                added += there is None
        if staged:
            self._copy(cursor, "copy_catalog_exports", staged)
        if changed:
            self._execute(cursor, "update_exports")
        if added:
            self._execute(cursor, "insert_exports")

    def _header_row(
        self, catalog: Claim | Full, stored: Stored, content: tuple[int, int, int] | None = None
    ) -> bytes:
        """The row of stage_catalogs; ``content`` is (edge set, position set, slots) where they are new."""
        header = catalog.header
        edge_set, position_set, slots = content or (stored.edge_set_id, stored.position_set_id, stored.slots)
        digest = catalog.content_digest if isinstance(catalog, Full) else stored.content_digest
        return rows.row(
            rows.int4(stored.node_id),
            rows.boolean(stored.producer_timestamp is not None),
            rows.boolean(content is not None),
            rows.int4(edge_set),
            rows.int4(position_set),
            rows.int4(self._name_id("environments", header.environment)),
            rows.int4(self._name_id("producers", header.producer)),
            rows.int4(slots),
            rows.bytea(catalog.raw_digest),
            rows.bytea(digest),
            rows.text(header.code_id),
            rows.text(header.job_id),
            rows.text(header.version),
            rows.uuid_or_null(header.transaction_uuid),
            rows.uuid_or_null(header.catalog_uuid),
            rows.timestamptz(header.producer_timestamp),
            rows.timestamptz(catalog.received_at),
        )

    def _resolve_names(self, cursor: Cursor, catalogs: Sequence[Claim | Full]) -> None:
        for table, names in (
            ("environments", {c.header.environment for c in catalogs}),
            ("producers", {c.header.producer for c in catalogs}),
        ):
            unknown = sorted(name for name in names if name is not None and (table, name) not in self._names)
            if unknown:
                cursor.execute(query(f"insert_{table}"), [unknown])
                cursor.execute(query(f"find_{table}"), [unknown])
                self._names.update({(table, name): id_ for name, id_ in cursor})

    def _name_id(self, table: str, name: str | None) -> int | None:
        return None if name is None else self._names[table, name]

    # Nodes and quarantine

    def _reactivate(
        self, cursor: Cursor, catalogs: Sequence[Claim | Full], stored: dict[str, Stored]
    ) -> None:
        asleep = [
            (stored[c.header.certname].node_id, c.header.producer_timestamp)
            for c in catalogs
            if stored[c.header.certname].deactivated or stored[c.header.certname].expired
        ]
        if asleep:
            self._execute(cursor, "reactivate_nodes", [[n for n, _ in asleep], [t for _, t in asleep]])

    def _deactivate(self, cursor: Cursor, commands: Sequence[Deactivate]) -> list[Settled]:
        newest: dict[str, Deactivate] = {}
        for command in sorted(commands, key=lambda c: c.producer_timestamp):
            newest[command.certname] = command
        if not newest:
            return []
        cursor.execute(
            query("deactivate_nodes"),
            [list(newest), [c.producer_timestamp for c in newest.values()]],
        )
        done = {row[0] for row in cursor}
        self.counts.rows_written += len(done)
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

    def _quarantine(self, cursor: Cursor, row: QuarantineRow) -> Settled:
        cursor.execute(
            query("quarantine"),
            [row.digest, row.reason, row.detail, row.certname, Jsonb(row.headers), row.body, row.body_note,
             row.body_bytes],
        )  # fmt: skip
        self.counts.rows_written += 1
        return Settled(row.delivery, Outcome.QUARANTINED)

    def _require_room_in_quarantine(self, cursor: Cursor) -> None:
        cursor.execute(query("quarantine_fill"))
        total, within_a_minute = cursor.fetchone() or (0, 0)
        limits = self._quarantine_limits
        if limits.messages_max and int(str(total)) > limits.messages_max:
            raise Refused(
                f"quarantine_messages_max={limits.messages_max} messages are in quarantine, and one more would "
                "have to go there: look with 'ingest quarantine list', then retry or drop them"
            )
        if limits.per_minute_max and int(str(within_a_minute)) > limits.per_minute_max:
            raise Refused(
                f"more than quarantine_per_minute_max={limits.per_minute_max} messages would go into quarantine "
                "within a minute: look with 'ingest quarantine list' at what has become of the producers"
            )

    # Small helpers

    def _execute(self, cursor: Cursor, name: str, parameters: Sequence[object] = ()) -> None:
        cursor.execute(query(name), parameters or None)
        self.counts.rows_written += max(0, cursor.rowcount)

    def _copy(self, cursor: Cursor, name: str, staged: Sequence[bytes]) -> None:
        self.counts.bytes_copied += copy_into(cursor, name, staged)

    def _raw(self, cursor: Cursor, name: str, parameters: Sequence[object]) -> Iterable[tuple[bytes, ...]]:
        """Rows as PostgreSQL's binary bytes: an array becomes numbers without a Python object each."""
        cursor.execute(query(name), parameters, binary=True)
        result = cursor.pgresult
        assert result is not None
        return [
            tuple(result.get_value(row, column) or b"" for column in range(result.nfields))
            for row in range(result.ntuples)
        ]


def node_key(certname: str) -> int:
    """The second key of a node's advisory lock, a signed 32-bit number: the same in every instance."""
    unsigned = zlib.crc32(certname.encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


def _int(field: bytes) -> int:
    return int.from_bytes(field, "big", signed=True)


def _digests(catalog: Full) -> list[bytes]:
    digests = catalog.digests
    return [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]


def _is_same_run(catalog: Claim | Full, stored: Stored) -> bool:
    """The same message once more: not even its header differs."""
    return (
        catalog.header.producer_timestamp == stored.producer_timestamp
        and catalog.header.transaction_uuid == stored.transaction_uuid
        and catalog.raw_digest == stored.raw_digest
    )


def _resource_row(content: Content, tag_ids: dict[str, int]) -> Callable[[], bytes]:
    def make() -> bytes:
        ids = rows.int4_array([tag_ids[tag] for tag in content.tags])
        return b"".join((rows.count(8), content.head, ids, content.tail))

    return make


def _tag_row(name: str, digest: bytes) -> Callable[[], bytes]:
    return lambda: rows.row(rows.bytea(digest), rows.text(name))


def _position_row(digest: bytes, fields: bytes) -> Callable[[], bytes]:
    return lambda: b"".join((rows.count(4), rows.bytea(digest), fields))


def _position_set_row(digest: bytes, ids: Sequence[int], indexes: Sequence[int]) -> Callable[[], bytes]:
    return lambda: rows.row(rows.bytea(digest), rows.int4_array([ids[i] for i in indexes]))


def _edge_row(catalog: Full) -> Callable[[], bytes]:
    edges = catalog.edges
    assert edges is not None
    return lambda: b"".join((rows.count(4), rows.bytea(catalog.edge_set), edges.fields))
