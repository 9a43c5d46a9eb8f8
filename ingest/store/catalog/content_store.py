"""What a batch's catalogs consist of, as ids: looked up in the caches, then in the database, else inserted.

Content by digest: two writers that bring the same rows wait for each other, never in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from ingest.core import pgcopy
from ingest.core.delivery.work import DIGEST_BYTES, Content, Full
from ingest.store.catalog.slot_ids import SlotIdCache, SlotIds
from ingest.store.content_table import ContentTable
from ingest.store.session import Session

TAG_OIDS = (pgcopy.BYTEA_OID, pgcopy.TEXT_OID)
POSITION_OIDS = (pgcopy.BYTEA_OID, pgcopy.TEXT_OID, pgcopy.INT8_OID, pgcopy.BYTEA_OID)
RESOURCE_OIDS = (
    pgcopy.BYTEA_OID, pgcopy.BOOL_OID, pgcopy.TEXT_OID, pgcopy.TEXT_OID, pgcopy.CHAR_OID, pgcopy.INT4_ARRAY_OID,
    pgcopy.JSONB_OID, pgcopy.BYTEA_OID,
)  # fmt: skip
EDGE_SET_OIDS = (pgcopy.BYTEA_OID, pgcopy.INT4_ARRAY_OID, pgcopy.INT4_ARRAY_OID, pgcopy.INT2_ARRAY_OID)
POSITION_SET_OIDS = (pgcopy.BYTEA_OID, pgcopy.INT4_ARRAY_OID)


class Found(NamedTuple):
    """``slots`` by delivery; digest -> id, what is nowhere to be found is not in it."""

    slots: dict[int, SlotIds]
    edge_sets: dict[bytes, int]
    position_sets: dict[bytes, int]


class Contents:
    """The content tables of one writer, with their caches of ids."""

    def __init__(self, cache_entries_max: int) -> None:
        # Resources take most of the cache; the other tables have few distinct rows.
        self._tags = ContentTable("tags", cache_entries_max // 8, TAG_OIDS)
        self._positions = ContentTable("positions", cache_entries_max // 8, POSITION_OIDS)
        self._resources = ContentTable("resources", cache_entries_max // 2, RESOURCE_OIDS)
        self._edge_sets = ContentTable("edge_sets", cache_entries_max // 16, EDGE_SET_OIDS)
        self._position_sets = ContentTable("position_sets", cache_entries_max // 16, POSITION_SET_OIDS)
        self._slots = SlotIdCache()
        self._tables = (self._tags, self._positions, self._resources, self._edge_sets, self._position_sets)

    def resolve(
        self, session: Session, catalogs: Sequence[Full], sources: Sequence[Full], early: dict[bytes, Content]
    ) -> Found:
        """The ids of what these catalogs refer to. ``sources`` are the works that may bring it along: also a superseded
        catalog has contents. ``early``: what others will refer to, by digest."""
        slots = {c.delivery: self._slots.of(c.digests) for c in catalogs}
        wanted = set(early).union(*[one.wanted() for one in slots.values()])
        ids = self._resolve_resources(session, wanted, sources, early)
        for one in slots.values():
            one.fill(ids)
        return Found(
            slots,
            self._resolve_sets(
                session, self._edge_sets, {c.edge_set for c in catalogs},
                {c.edge_set: _edge_row(c) for c in sources if c.edges is not None},
            ),
            self._resolve_positions(session, {c.position_set for c in catalogs}, sources),
        )  # fmt: skip

    def committed(self) -> None:
        for table in self._tables:
            table.committed()
        self._slots.committed()

    def rolled_back(self) -> None:
        for table in self._tables:
            table.rolled_back()
        self._slots.rolled_back()

    def forget(self) -> None:
        for table in self._tables:
            table.forget()
        self._slots.forget()

    def _resolve_resources(
        self, session: Session, wanted: set[bytes], sources: Sequence[Full], early: dict[bytes, Content]
    ) -> dict[bytes, int]:
        ids = self._resources.known(wanted)
        if len(ids) == len(wanted):
            return ids
        ids.update(self._resources.find(session, wanted - ids.keys()))
        contents = {digest: content for digest, content in early.items() if digest not in ids}
        for catalog in sources:
            for slot, content in catalog.contents.items():
                digest = catalog.digests[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES]
                if digest in wanted and digest not in ids:
                    contents[digest] = content
        if contents:
            tags = self._resolve_tags(session, {content.tags for content in contents.values()})
            new = self._resources.insert(
                session,
                {digest: _resource_row(content, tags) for digest, content in contents.items()},
            )
            session.counts.resources_new += len(new)
            ids.update(new)
        return ids

    def _resolve_tags(self, session: Session, several: Collection[str]) -> dict[str, bytes]:
        """The field of each resource's tags: their ids."""
        lists = {tags: tags.split("\n") if tags else [] for tags in several}
        names = {tag: pgcopy.name_digest(tag) for tag in set().union(*lists.values())}
        ids = self._resolve_sets(
            session,
            self._tags,
            set(names.values()),
            {digest: _tag_row(name, digest) for name, digest in names.items()},
        )
        elements = {tag: pgcopy.int4(ids[digest]) for tag, digest in names.items()}
        return {
            tags: pgcopy.bytea(pgcopy.array_of(pgcopy.INT4_OID, [elements[tag] for tag in list_]))
            for tags, list_ in lists.items()
        }

    def _resolve_positions(
        self, session: Session, wanted: set[bytes], sources: Sequence[Full]
    ) -> dict[bytes, int]:
        """The ids of the position sets; the distinct positions of new sets first."""
        ids = self._position_sets.known(wanted)
        ids.update(self._position_sets.find(session, wanted - ids.keys()))
        new = {
            c.position_set: c.positions
            for c in sources
            if c.positions and c.position_set in wanted and c.position_set not in ids
        }
        if new:
            places = {digest: fields for p in new.values() for digest, fields in p.positions}
            place_ids = self._resolve_sets(
                session, self._positions, set(places),
                {digest: _position_row(digest, fields) for digest, fields in places.items()},
            )  # fmt: skip
            ids.update(
                self._position_sets.insert(
                    session,
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
        session: Session,
        table: ContentTable,
        wanted: set[bytes],
        rows_: dict[bytes, Callable[[], bytes]],
    ) -> dict[bytes, int]:
        """Ids from the cache, else from the database, else by inserting the rows that came with the work."""
        ids = table.known(wanted)
        if len(ids) < len(wanted):
            ids.update(table.find(session, wanted - ids.keys()))
        new = {digest: make for digest, make in rows_.items() if digest in wanted and digest not in ids}
        if new:
            ids.update(table.insert(session, new))
        return ids


def _resource_row(content: Content, tags: dict[str, bytes]) -> Callable[[], bytes]:
    return lambda: b"".join((pgcopy.count(8), content.head, tags[content.tags], content.tail))


def _tag_row(name: str, digest: bytes) -> Callable[[], bytes]:
    return lambda: pgcopy.row(pgcopy.bytea(digest), pgcopy.text(name))


def _position_row(digest: bytes, fields: bytes) -> Callable[[], bytes]:
    return lambda: b"".join((pgcopy.count(4), pgcopy.bytea(digest), fields))


def _position_set_row(digest: bytes, ids: Sequence[int], indexes: Sequence[int]) -> Callable[[], bytes]:
    return lambda: pgcopy.row(pgcopy.bytea(digest), pgcopy.int4_array([ids[i] for i in indexes]))


def _edge_row(catalog: Full) -> Callable[[], bytes]:
    edges = catalog.edges
    assert edges is not None
    return lambda: b"".join((pgcopy.count(4), pgcopy.bytea(catalog.edge_set), edges.fields))
