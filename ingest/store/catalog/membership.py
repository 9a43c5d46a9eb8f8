"""Which resources a node has: chunks of slots, and those of them that are exported. Only what differs is written."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ingest.core import pgcopy
from ingest.core.catalog.diff import diff_chunks
from ingest.core.delivery.batching import Stored
from ingest.core.delivery.work import Full
from ingest.store.parameters import Encoded
from ingest.store.session import Session


class Rows:
    """Rows of membership on their way: one array a column, and the ids of all rows one behind the other."""

    def __init__(self) -> None:
        self._nodes = array("i")
        self._chunks = array("i")
        self._lasts = array("i")  # where the ids of each row end, counted as SQL does, from 1
        self._ids = array("i")

    def add(self, node_id: int, chunk: int, ids: array[int]) -> None:
        self._nodes.append(node_id)
        self._chunks.append(chunk)
        self._ids += ids
        self._lasts.append(len(self._ids))

    def add_all(self, node_id: int, chunks: Iterable[tuple[int, array[int]]]) -> None:
        for chunk, ids in chunks:
            self.add(node_id, chunk, ids)

    def write(self, session: Session, statement: str) -> None:
        if self._nodes:
            firsts = array("i", [1, *[last + 1 for last in self._lasts[:-1]]])
            columns = {
                "node_ids": self._nodes,
                "chunks": self._chunks,
                "firsts": firsts,
                "lasts": self._lasts,
            }
            session.execute(
                statement,
                {
                    name: Encoded(pgcopy.int4_array(values)[4:])
                    for name, values in {**columns, "ids": self._ids}.items()
                },
            )


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
    changed, added = Rows(), Rows()
    shrunk: list[tuple[int, int]] = []
    for catalog in catalogs:
        node_id = node_ids[catalog.delivery]
        diff = diff_chunks(before.get(node_id, {}), slots[catalog.delivery])
        changed.add_all(node_id, diff.changed)
        added.add_all(node_id, diff.added)
        if diff.shrunk:
            shrunk.append((node_id, diff.chunks))
    changed.write(session, "update_chunks")
    added.write(session, "insert_chunks")
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
    changed, added = Rows(), Rows()
    for catalog in catalogs:
        node_id = node_ids[catalog.delivery]
        slot_ids = slots[catalog.delivery]
        incoming = array("i", sorted(slot_ids[slot] for slot in catalog.exported))
        there = before.get(node_id)
        if (there or array("i")) != incoming:
            (added if there is None else changed).add(node_id, 0, incoming)
    changed.write(session, "update_exports")
    added.write(session, "insert_exports")


def _int(field: bytes) -> int:
    return int.from_bytes(field, "big", signed=True)
