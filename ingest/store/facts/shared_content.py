"""Rows of content that many nodes share: digests in, ids out, inserted where the database has none.

Their columns come as parameters, not through a staging table: most batches bring no new ones, and each temporary table
costs every transaction that touches any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import psycopg

from ingest.core import pgcopy
from ingest.store.content_table import ROUNDS_MAX, Ids
from ingest.store.parameters import Encoded, column_parameters
from ingest.store.queries import query
from ingest.store.session import Session

LIST = "\x02"  # before each element of a list on its way into the database
Fields = tuple[bytes, ...]  # encoded, in the order of the statement

OIDS = {
    "fact_shapes": (pgcopy.BYTEA_OID, *[pgcopy.TEXT_OID] * 4),
    "fact_bases": (pgcopy.BYTEA_OID, pgcopy.INT4_OID, pgcopy.TEXT_OID),
    "package_versions": (pgcopy.BYTEA_OID, *[pgcopy.TEXT_OID] * 3),
    "package_sets": (pgcopy.BYTEA_OID, pgcopy.TEXT_OID),
}


def list_field(items: Iterable[object]) -> bytes:
    """A list as the statements take it."""
    return pgcopy.text("".join([f"{LIST}{item}" for item in items]))


class FactContents:
    """One of these tables, as one writer knows it. What was found in a transaction is remembered when it has committed."""

    def __init__(self, name: str, entries_max: int) -> None:
        self.name = name
        self._ids = Ids(entries_max)
        self._fresh: dict[bytes, int] = {}

    def find(self, session: Session, digests: Collection[bytes]) -> dict[bytes, int]:
        """The ids of those that are there."""
        ids = self._ids.known(digests)
        if missing := [digest for digest in digests if digest not in ids]:
            ids |= self._ask(session, missing)
        return ids

    def resolve(self, session: Session, rows: Mapping[bytes, Callable[[], Fields]]) -> dict[bytes, int]:
        """The ids of all, whoever inserts them. In the order of digests: two that bring the same rows wait for each other,
        never in a circle."""
        ids = self.find(session, rows.keys())
        for _ in range(ROUNDS_MAX):
            missing = sorted(rows.keys() - ids.keys())
            if not missing:
                return ids
            session.cursor.execute(
                query(f"insert_{self.name}"),
                column_parameters(OIDS[self.name], [rows[digest]() for digest in missing]),
                binary=True,
            )
            inserted = {bytes(digest): int(id_) for digest, id_ in session.cursor}
            session.counts.rows_written += len(inserted)
            self._fresh |= inserted
            ids |= inserted
            if left := [digest for digest in missing if digest not in inserted]:
                ids |= self._ask(session, left)
        raise psycopg.OperationalError(f"{self.name}: no free id after {ROUNDS_MAX} rounds")

    def committed(self) -> None:
        self._ids.put(self._fresh)
        self._fresh.clear()

    def rolled_back(self) -> None:
        self._fresh.clear()

    def forget(self) -> None:
        self._ids.clear()
        self._fresh.clear()

    def _ask(self, session: Session, digests: Collection[bytes]) -> dict[bytes, int]:
        session.cursor.execute(
            query(f"find_{self.name}"), [Encoded(pgcopy.digest_array(digests))], binary=True
        )
        found = {bytes(digest): int(id_) for digest, id_ in session.cursor}
        self._fresh |= found
        return found
