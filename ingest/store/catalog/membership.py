"""Which resources a node has: chunks of slots, and those of them that are exported. Only what differs is written."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Sequence

from ingest.core import pgcopy
from ingest.core.catalog.diff import diff_chunks
from ingest.core.delivery.batching import Stored
from ingest.core.delivery.work import Full
from ingest.store.session import Session


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
    staged: list[bytes] = []
    shrunk: list[tuple[int, int]] = []
    changed = added = 0
    for catalog in catalogs:
        node_id = node_ids[catalog.delivery]
        diff = diff_chunks(before.get(node_id, {}), slots[catalog.delivery])
        staged += [_chunk_row(node_id, True, chunk, ids) for chunk, ids in diff.changed]
        staged += [_chunk_row(node_id, False, chunk, ids) for chunk, ids in diff.added]
        changed += len(diff.changed)
        added += len(diff.added)
        if diff.shrunk:
            shrunk.append((node_id, diff.chunks))
    if staged:
        session.copy("copy_catalog_resources", staged)
    if changed:
        session.execute("update_chunks")
    if added:
        session.execute("insert_chunks")
    if shrunk:
        session.execute("delete_chunks", [[n for n, _ in shrunk], [c for _, c in shrunk]])


def _chunk_row(node_id: int, is_known: bool, chunk: int, ids: array[int]) -> bytes:
    return pgcopy.row(
        pgcopy.int4(node_id), pgcopy.int4(chunk), pgcopy.boolean(is_known), pgcopy.int4_array(ids)
    )


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
    staged: list[bytes] = []
    changed = added = 0
    for catalog in catalogs:
        node_id = node_ids[catalog.delivery]
        slot_ids = slots[catalog.delivery]
        incoming = array("i", sorted(slot_ids[slot] for slot in catalog.exported))
        there = before.get(node_id)
        if (there or array("i")) != incoming:
            staged.append(
                pgcopy.row(
                    pgcopy.int4(node_id), pgcopy.boolean(there is not None), pgcopy.int4_array(incoming)
                )
            )
            changed += there is not None
            added += there is None
    if staged:
        session.copy("copy_catalog_exports", staged)
    if changed:
        session.execute("update_exports")
    if added:
        session.execute("insert_exports")


def _int(field: bytes) -> int:
    return int.from_bytes(field, "big", signed=True)
