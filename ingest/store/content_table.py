"""Content tables from the writer's side: digests in, ids out, rows inserted where the database has none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import psycopg

from ingest.core.bounded_cache import BoundedCache
from ingest.core.pgcopy import ELEMENT_OIDS, digest_array, fields_of
from ingest.store.parameters import Encoded, named_columns
from ingest.store.queries import query
from ingest.store.session import Session

# Rounds of insert-and-look. A second one happens when another transaction brought the row, a third when
# the cycling sequence met an id in use; ten in a row mean that something else is wrong.
ROUNDS_MAX = 10
# So many rows or fewer come as parameters: the commit of a transaction that touched a staging table costs PostgreSQL more than
# they cost here.
FEW_ROWS = 128
ID_BYTES = 150  # a digest and its id in a dict


class Ids:
    """What is known of the ids of digests; the oldest go.

    The database's ``content_state.generation`` tells when it may hold ids of rows that were collected.
    """

    def __init__(self, entries_max: int) -> None:
        self._ids: BoundedCache[bytes, int] = BoundedCache(
            max(1, entries_max) * ID_BYTES, lambda digest, id_: ID_BYTES, entry_bytes_max=ID_BYTES
        )

    def known(self, digests: Collection[bytes]) -> dict[bytes, int]:
        """Those that are here. Thousands are asked for at once, and mostly all of them are."""
        ids = list(map(self._ids.get, digests))
        found = zip(digests, ids, strict=True)
        if None not in ids:
            return dict(found)  # type: ignore[arg-type]
        return {digest: id_ for digest, id_ in found if id_ is not None}

    def put(self, ids: Mapping[bytes, int]) -> None:
        self._ids.put_all(ids)

    def clear(self) -> None:
        self._ids.clear()

    def __len__(self) -> int:
        return len(self._ids)


class ContentTable:
    """One content table (``tags``, ``resources``, ...) of one writer.

    Ids found in a transaction are remembered only when it has committed: a rolled back row has no id.
    """

    def __init__(self, name: str, entries_max: int, oids: Sequence[int]) -> None:
        """``oids``: the types of its columns. Where one is an array many rows go through a staging table."""
        self.name = name
        self.rows_written = 0
        self._oids = oids
        self._is_staged = not ELEMENT_OIDS.keys().isdisjoint(oids)
        self._ids = Ids(entries_max)
        self._fresh: dict[bytes, int] = {}

    def known(self, digests: Collection[bytes]) -> dict[bytes, int]:
        """The ids of those digests that are in the cache."""
        return self._ids.known(digests)

    def find(self, session: Session, digests: Collection[bytes]) -> dict[bytes, int]:
        """The ids of those digests that the database has."""
        if not digests:
            return {}
        session.cursor.execute(query(f"find_{self.name}"), [Encoded(digest_array(digests))], binary=True)
        found = {bytes(digest): int(id_) for digest, id_ in session.cursor}
        self._fresh.update(found)
        return found

    def insert(self, session: Session, rows: Mapping[bytes, Callable[[], bytes]]) -> dict[bytes, int]:
        """Inserts rows that the database may lack; returns the id of each, whoever inserted it.

        In the order of digests: two transactions that bring the same rows wait for each other, never in a
        circle.
        """
        ids: dict[bytes, int] = {}
        for _ in range(ROUNDS_MAX):
            missing = sorted(rows.keys() - ids.keys())
            if not missing:
                self._fresh.update(ids)
                return ids
            inserted = self._insert(session, [rows[digest]() for digest in missing])
            self.rows_written += len(inserted)
            ids.update(inserted)
            if len(ids) < len(rows):
                ids.update(self.find(session, [digest for digest in missing if digest not in inserted]))
        raise psycopg.OperationalError(f"{self.name}: no free id after {ROUNDS_MAX} rounds")

    def _insert(self, session: Session, rows: Sequence[bytes]) -> dict[bytes, int]:
        """The ids of those that were not there."""
        if self._is_staged and len(rows) > FEW_ROWS:
            session.stage(self.name, rows)
            found = session.cursor.execute(query(f"insert_staged_{self.name}"), binary=True)
        else:
            columns = named_columns(self._oids, list(map(fields_of, rows)))
            found = session.cursor.execute(query(f"insert_{self.name}"), columns, binary=True)
        return {bytes(digest): int(id_) for digest, id_ in found}

    def committed(self) -> None:
        self._ids.put(self._fresh)
        self._fresh.clear()

    def rolled_back(self) -> None:
        self._fresh.clear()

    def forget(self) -> None:
        """Garbage was collected: an id in the cache may be gone."""
        self._ids.clear()
        self._fresh.clear()
