"""The ids of environments and producers, as one writer knows them.

Any producer can send ever new names: the database collects those that no node has any more (``housekeeping.py``), and what
is remembered here is bounded in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from ingest.store.connection import Connection
from ingest.store.queries import query
from ingest.store.session import Session

TABLES = ("environments", "producers")
NAMES_BYTES_MAX = 1024 * 1024  # thousands of names; a site has some tens
_ENTRY_BYTES = 250  # beside the characters; measured 167: a tuple, a text, a number, a place in the table

Name = tuple[str, str]  # table, name


class Names:
    """Ids found in a transaction are remembered only when it has committed: a rolled back row has no id."""

    def __init__(self, bytes_max: int = NAMES_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._ids: dict[Name, int] = {}
        self._batch: dict[Name, int] = {}

    def resolve(self, session: Session, names: Iterable[tuple[str | None, str | None]]) -> None:
        """Makes the ids of these (environment, producer) known for this transaction."""
        self._batch.clear()
        for table, wanted in zip(TABLES, map(set, zip(*names, strict=True)), strict=False):
            unknown = []
            for name in wanted - {None}:
                id_ = self._ids.get((table, name))
                if id_ is None:
                    unknown.append(name)
                else:
                    self._batch[table, name] = id_
            if unknown:
                self._ask(session, table, sorted(unknown))

    def make(self, connection: Connection, names: Iterable[tuple[str | None, str | None]]) -> None:
        """Inserts what is missing of these (environment, producer), outside of a transaction: who holds content may wait for no
        name, and two who insert several hold none while they wait. What is collected before it is used is inserted again by
        ``resolve``."""
        for table, wanted in zip(TABLES, map(set, zip(*names, strict=True)), strict=False):
            if unknown := sorted(name for name in wanted - {None} if (table, name) not in self._ids):
                found = {name for name, _ in connection.execute(query(f"find_{table}"), [unknown])}
                if missing := [name for name in unknown if name not in found]:
                    connection.execute(query(f"insert_{table}"), [missing])

    def id(self, table: str, name: str | None) -> int | None:
        return None if name is None else self._batch[table, name]

    def committed(self) -> None:
        for key, id_ in self._batch.items():
            if key not in self._ids:
                self._ids[key] = id_
                self._bytes += _bytes_of(key)
        self._batch.clear()
        if self._bytes > self._bytes_max:
            # An eighth more than needed, the oldest first: not with every new one again.
            for key in list(self._ids):
                if self._bytes <= self._bytes_max * 7 // 8:
                    break
                del self._ids[key]
                self._bytes -= _bytes_of(key)

    def rolled_back(self) -> None:
        self._batch.clear()

    def forget(self) -> None:
        """Names were collected: an id may be gone."""
        self._ids.clear()
        self._bytes = 0

    def _ask(self, session: Session, table: str, names: list[str]) -> None:
        found = self._find(session, table, names)
        # Inserted only where it is missing: each try takes a number of the sequence.
        if missing := [name for name in names if name not in found]:
            session.cursor.execute(query(f"insert_{table}"), [missing])
            session.counts.rows_written += max(0, session.cursor.rowcount)
            found |= self._find(session, table, missing)
        self._batch.update({(table, name): id_ for name, id_ in found.items()})

    def _find(self, session: Session, table: str, names: list[str]) -> dict[str, int]:
        session.cursor.execute(query(f"find_{table}"), [names])
        return dict(session.cursor)


def _bytes_of(key: Name) -> int:
    # Four bytes a character: what is outside of ASCII takes no more.
    return _ENTRY_BYTES + (len(key[1]) if key[1].isascii() else 4 * len(key[1]))
