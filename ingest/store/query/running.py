"""Runs a compiled query: rows come as JSON text, a piece at a time, and a piece is never much larger than PIECE_BYTES.

A query has a connection to itself until it is closed. What PostgreSQL has against a query is its asker's fault, as far as
it is about types, patterns and values: he gets PostgreSQL's own words.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import psycopg
from psycopg.sql import SQL

from ingest.core.query.ast import BadQuery
from ingest.errors import IngestError, Unavailable
from ingest.store.connection import Connection, connect, hang_up, translate_errors
from ingest.store.queries import NamedQuery, query
from ingest.store.query.compiling import Compiled
from ingest.store.query.values import clean
from ingest.store.sqlstates import one_line

PIECE_BYTES = 128 * 1024  # what is sent at once; a slow client's piece waits in memory
ROWS_MAX = 2000  # of one piece
GROWTH = 8  # from a piece to the next: the rows to come may be larger
IDLE_S_MAX = 60  # between two pieces; the front gives up slower clients by itself
CANCEL_TIMEOUT_S = 2.0
PLANS_MAX = 16  # that a connection keeps: of reports a plan has as many parts as there are days, and takes longer than the answer

# By the class of a SQLSTATE: data exceptions, syntax and types, limits of a statement (its depth, its size).
_ASKERS_FAULT = ("22", "42", "54", "2201B")
_NOT_HIS = ("42501", "42P01", "42704")  # rights, and what the schema lacks


class TooSlow(IngestError):
    """The query took longer than it may: tell the asker so."""


def open_reader(conninfo: str, *, connect_timeout_s: float, timeout_s: float) -> Connection:
    """A connection that reads and cannot write. Raises Unavailable or Misconfigured."""
    connection = connect(
        conninfo,
        application_name="ingest serve",
        connect_timeout_s=connect_timeout_s,
        statement_timeout_s=timeout_s,
    )
    with translate_errors():
        connection.execute(query("only_reads"), [f"{IDLE_S_MAX}s"])
    connection.prepared_max = PLANS_MAX
    return connection


class RunningQuery:
    """Begun by ``open``; then ``next_piece`` until it gives nothing, and ``close`` in any case.

    ``timeout_s``: where it is another one than the connection was opened with.
    """

    def __init__(self, connection: Connection, timeout_s: float, *, is_usual: bool = False) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        # What a session was told does not count when a pooler gives each transaction another one.
        self._is_told = is_usual and not connection.pinned.is_pooled
        self._ends_s = 0.0
        self._rows = 1
        self._is_over = False
        self.total: int | None = None

    def begin(self, compiled: Compiled, *, with_total: bool = False, is_one_row: bool = False) -> list[bytes]:
        """Opens it; its first rows. A statement for one row goes to PostgreSQL as it is, without a cursor."""
        if is_one_row and self._is_told and not with_total:
            self._is_over = True
            with _told():
                result = self._connection.execute(NamedQuery(compiled.rows), compiled.parameters).pgresult
            assert result is not None
            return [result.get_value(number, 0) or b"null" for number in range(result.ntuples)]
        self.open(compiled, with_total=with_total)
        return self.next_piece()

    def open(self, compiled: Compiled, *, with_total: bool = False) -> None:
        """Until PostgreSQL has planned it. Raises BadQuery, TooSlow or Unavailable."""
        connection = self._connection
        self._ends_s = time.monotonic() + self._timeout_s
        with _told():
            connection.execute(query("begin_query"))
            if not self._is_told:
                limits = [f"{max(1, int(self._timeout_s * 1000))}ms", f"{IDLE_S_MAX}s"]
                connection.execute(query("limit_query"), limits)
            if with_total:
                row = connection.execute(
                    NamedQuery(compiled.total), compiled.parameters, prepare=False
                ).fetchone()
                assert row is not None
                self.total = int(str(row[0]))
            declared = NamedQuery(f"DECLARE answer NO SCROLL CURSOR FOR {compiled.rows}")
            connection.execute(declared, compiled.parameters, prepare=False)

    def explain(self, compiled: Compiled) -> bytes:
        """PostgreSQL's plan and what carrying it out took, as JSON."""
        with _told():
            self._connection.execute(query("begin_query"))
            statement = NamedQuery(f"EXPLAIN (VERBOSE, ANALYZE, BUFFERS, FORMAT JSON) {compiled.rows}")
            cursor = self._connection.execute(statement, compiled.parameters, prepare=False)
            assert cursor.pgresult is not None
            return cursor.pgresult.get_value(0, 0) or b"[]"

    def next_piece(self) -> list[bytes]:
        """The next rows; none: that was all. Raises as ``open`` does."""
        if self._is_over:
            return []
        if time.monotonic() > self._ends_s:
            raise TooSlow(f"the query took longer than {self._timeout_s:g} s")
        with _told():
            cursor = self._connection.execute(
                SQL("FETCH FORWARD {} FROM answer").format(self._rows), prepare=False
            )
        result = cursor.pgresult
        assert result is not None
        found = [result.get_value(number, 0) or b"null" for number in range(result.ntuples)]
        self._is_over = len(found) < self._rows
        mean_bytes = sum(map(len, found)) / len(found) if found else 1.0
        self._rows = max(1, min(ROWS_MAX, self._rows * GROWTH, int(PIECE_BYTES / max(1.0, mean_bytes))))
        return found

    def close(self) -> bool:
        """Whether the connection can be used again."""
        with suppress(psycopg.Error):
            if not self._connection.closed:
                self._connection.rollback()
                return True
        return False


def cancel(connection: Connection) -> None:
    """Ends what the connection is carrying out, from another thread; its thread gets Unavailable."""
    try:
        connection.cancel_safe(timeout=CANCEL_TIMEOUT_S)
    except psycopg.Error:
        hang_up(connection)


def object_exists(connection: Connection, kind: str, name: str) -> bool:
    """Whether anything is known of a node, a catalog, an environment, a producer. Raises Unavailable."""
    with translate_errors():
        row = connection.execute(query("object_exists"), {"kind": kind, "name": clean(name)}).fetchone()
    return row is not None and bool(row[0])


def is_stored(connection: Connection, command: str, certname: str, timestamp: datetime) -> bool:
    """Whether a node's command of that time, or a newer one, has been stored. Raises Unavailable."""
    asked = {"command": command, "certname": clean(certname), "timestamp": timestamp}
    with translate_errors():
        row = connection.execute(query("is_stored"), asked).fetchone()
    return row is not None and bool(row[0])


def count_population(connection: Connection) -> tuple[int, int, int]:
    """(active nodes, inactive ones, resources). Raises Unavailable."""
    with translate_errors():
        row = connection.execute(query("count_population")).fetchone()
    assert row is not None
    active, inactive, resources = (int(str(one)) for one in row)
    return active, inactive, resources


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        if "statement timeout" in str(error):
            raise TooSlow("the query took longer than it may") from error
        raise Unavailable("the query was cancelled") from error
    except psycopg.Error as error:
        state = error.sqlstate or ""
        if isinstance(error, psycopg.DataError) and not state:
            raise BadQuery("a value of the query cannot be sent to PostgreSQL") from error
        if state.startswith(_ASKERS_FAULT) and state not in _NOT_HIS:
            raise BadQuery(f"ERROR: {one_line(error)}") from error
        with translate_errors():
            raise
