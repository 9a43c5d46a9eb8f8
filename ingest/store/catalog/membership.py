"""Which resources a node has: chunks of slots, and those of them that are exported. Only what differs is written."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence

from ingest.core import pgcopy
from ingest.core.catalog.diff import diff_chunks
from ingest.core.delivery.batching import Stored
from ingest.core.delivery.work import Full
from ingest.store.parameters import named_columns
from ingest.store.session import Session

CHUNK_OIDS = (pgcopy.INT4_OID, pgcopy.INT4_OID, pgcopy.INT4_ARRAY_OID)
EXPORT_OIDS = (pgcopy.INT4_OID, pgcopy.INT4_ARRAY_OID)
Rows = list[tuple[bytes, ...]]  # of encoded fields


def write_chunks(
    session: Session,
    catalogs: Sequence[Full],
    stored: dict[str, Stored],
    node_ids: dict[int, int],
    slots: dict[int, array[int]],
) -> None:
    """``node_ids`` and ``slots`` (the ids of a catalog's resources) are by delivery."""
    known = [node_ids[c.delivery] for c in catalogs if stored[c.certname].slots]
    before: dict[int, dict[int, array[int]]] = defaultdict(dict)
    if known:
        for node, chunk_number, ids in session.raw("read_chunks", [known]):
            before[_int(node)][_int(chunk_number)] = pgcopy.read_int4_array(ids)
    changed: Rows = []
    added: Rows = []
    shrunk: list[tuple[int, int]] = []
    for catalog in catalogs:
        node_id = node_ids[catalog.delivery]
        diff = diff_chunks(before.get(node_id, {}), slots[catalog.delivery])
        changed += [_chunk_row(node_id, *chunk) for chunk in diff.changed]
        added += [_chunk_row(node_id, *chunk) for chunk in diff.added]
        if diff.shrunk:
            shrunk.append((node_id, diff.chunks))
    _write(session, "update_chunks", CHUNK_OIDS, changed)
    _write(session, "insert_chunks", CHUNK_OIDS, added)
    if shrunk:
        session.execute("delete_chunks", [[n for n, _ in shrunk], [c for _, c in shrunk]])


def write_exports(
    session: Session,
    catalogs: Sequence[Full],
    stored: dict[str, Stored],
    node_ids: dict[int, int],
    slots: dict[int, array[int]],
) -> None:
    # Not those with slots: a catalog that became empty left its row of exports behind, empty too.
    known = [node_ids[c.delivery] for c in catalogs if stored[c.certname].producer_timestamp is not None]
    before: dict[int, array[int]] = {}
    if known:
        for node, ids in session.raw("read_exports", [known]):
            before[_int(node)] = pgcopy.read_int4_array(ids)
    changed: Rows = []
    added: Rows = []
    for catalog in catalogs:
        node_id = node_ids[catalog.delivery]
        slot_ids = slots[catalog.delivery]
        incoming = array("i", sorted(slot_ids[slot] for slot in catalog.exported))
        there = before.get(node_id)
        if (there or array("i")) != incoming:
            row = (pgcopy.int4(node_id), pgcopy.int4_array(incoming))
            (added if there is None else changed).append(row)
    _write(session, "update_exports", EXPORT_OIDS, changed)
    _write(session, "insert_exports", EXPORT_OIDS, added)


def _chunk_row(node_id: int, chunk: int, ids: array[int]) -> tuple[bytes, ...]:
    return pgcopy.int4(node_id), pgcopy.int4(chunk), pgcopy.int4_array(ids)


def _write(session: Session, statement: str, oids: Sequence[int], rows: Rows) -> None:
    if rows:
        session.execute(statement, named_columns(oids, rows))


def _int(field: bytes) -> int:
    return int.from_bytes(field, "big", signed=True)
