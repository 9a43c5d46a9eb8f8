"""A writer's transaction: runs named statements and counts what they write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from ingest.store.content_table import copy_into
from ingest.store.queries import query

Cursor = psycopg.Cursor[tuple[Any, ...]]


class Counts(msgspec.Struct):
    """What one batch did to the tables."""

    rows_written: int = 0
    bytes_copied: int = 0
    resources_new: int = 0


class Session:
    """A cursor inside one transaction."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.counts = Counts()

    def execute(self, name: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> None:
        self.cursor.execute(query(name), parameters or None)
        self.counts.rows_written += max(0, self.cursor.rowcount)

    def copy(self, name: str, staged: Sequence[bytes]) -> None:
        self.counts.bytes_copied += copy_into(self.cursor, name, staged)

    def raw(self, name: str, parameters: Sequence[object]) -> Iterable[tuple[bytes, ...]]:
        """Rows as PostgreSQL's binary bytes: an array becomes numbers without a Python object each."""
        self.cursor.execute(query(name), parameters, binary=True)
        result = self.cursor.pgresult
        assert result is not None
        return [
            tuple(result.get_value(row, column) or b"" for column in range(result.nfields))
            for row in range(result.ntuples)
        ]
