"""A writer's transaction: runs named statements and counts what they write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from ingest.core.pgcopy import HEADER, TRAILER
from ingest.errors import Misconfigured
from ingest.store.queries import query
from ingest.store.sqlstates import GRANT_AGAIN

Cursor = psycopg.Cursor[tuple[Any, ...]]


class Counts(msgspec.Struct):
    """What one batch did to the tables."""

    rows_written: int = 0
    bytes_copied: int = 0
    resources_new: int = 0


class Staging:
    """The staging tables that a connection has: each is made when rows first go through it."""

    def __init__(self) -> None:
        self._made: set[str] = set()
        self._fresh: set[str] = set()

    def ensure(self, cursor: Cursor, name: str) -> None:
        if name not in self._made and name not in self._fresh:
            cursor.execute(query(f"create_stage_{name}"))
            self._fresh.add(name)

    def committed(self) -> None:
        self._made |= self._fresh
        self._fresh.clear()

    def rolled_back(self) -> None:
        self._fresh.clear()


def require_staging(connection: psycopg.Connection[Any]) -> None:
    """Raises Misconfigured now for a role that could make no staging table when there is much to write."""
    if connection.execute(query("may_stage")).fetchone() != (True,):
        raise Misconfigured("--database", f"this role may not make temporary tables: {GRANT_AGAIN}")


class Session:
    """A cursor inside one transaction."""

    def __init__(self, cursor: Cursor, staging: Staging | None = None) -> None:
        self.cursor = cursor
        self.counts = Counts()
        self._staging = Staging() if staging is None else staging

    def execute(self, name: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> None:
        self.cursor.execute(query(name), parameters or None)
        self.counts.rows_written += max(0, self.cursor.rowcount)

    def stage(self, name: str, rows: Sequence[bytes]) -> None:
        """Encoded rows into that staging table, which the transaction's end empties."""
        self._staging.ensure(self.cursor, name)
        self.copy(f"copy_{name}", rows)

    def copy(self, statement: str, rows: Sequence[bytes]) -> None:
        """Encoded rows with one of the COPY statements."""
        data = b"".join((HEADER, *rows, TRAILER))
        with self.cursor.copy(query(statement)) as copy:
            copy.write(data)
        self.counts.bytes_copied += len(data)

    def raw(self, name: str, parameters: Sequence[object]) -> Iterable[tuple[bytes, ...]]:
        """Rows as PostgreSQL's binary bytes: an array becomes numbers without a Python object each."""
        self.cursor.execute(query(name), parameters, binary=True)
        result = self.cursor.pgresult
        assert result is not None
        return [
            tuple(result.get_value(row, column) or b"" for column in range(result.nfields))
            for row in range(result.ntuples)
        ]
