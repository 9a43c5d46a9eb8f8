"""Runs a compiled query: rows come as JSON text, a piece at a time, and a piece is never much larger than PIECE_BYTES.

A query has a connection to itself until it is closed. What PostgreSQL has against a query is its asker's fault, as far as
it is about types, patterns and values: he gets PostgreSQL's own words.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import psycopg
from psycopg.pq.abc import PGresult

from ingest.core.query.ast import BadQuery
from ingest.errors import IngestError, Unavailable
from ingest.store.connection import Connection, connect, hang_up, translate_errors
from ingest.store.queries import query
from ingest.store.query.compiling import Compiled
from ingest.store.query.values import clean
from ingest.store.query.wire import Plans, Steps, Wire
from ingest.store.sqlstates import one_line

PIECE_BYTES = 192 * 1024  # what is sent at once; a slow client's piece waits in memory
PIECE_S = 0.05  # rows do not wait longer than that for others
ROWS = 4  # that come at once: singly they cost twice as much CPU here, by the hundred hardly less
IDLE_S_MAX = 60  # in a transaction; the front gives up slow clients by itself
CANCEL_TIMEOUT_S = 2.0
LAG_EVERY_S = 1.0  # a question to a replica between queries, and none to a primary

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
    connection.plans = Plans()
    return connection


class RunningQuery:
    """``begin`` gives the first rows, then ``next_piece`` until it gives none, and ``close`` in any case: steps, to be carried
    out by whoever waits for them (wire.py).

    ``timeout_s``: ``is_usual`` where the connection was opened with it.
    """

    def __init__(self, connection: Connection, timeout_s: float, *, is_usual: bool = False) -> None:
        self._wire = Wire(connection)
        self._connection = connection
        self._timeout_s = timeout_s
        self._is_told = is_usual
        self._in_transaction = False
        self._with_total = False
        self._ends_s = 0.0
        self._is_over = True
        self.total: int | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether PostgreSQL has something to end."""
        return self._wire.is_under_way or self._in_transaction

    @property
    def is_carried_out(self) -> bool:
        """Whether it can be cancelled."""
        return self._wire.is_under_way

    @property
    def is_over(self) -> bool:
        """Whether all rows have been given."""
        return self._is_over

    def find(self, kind: str, name: str) -> Steps[bool]:
        """Whether anything is known of a node, a catalog, an environment, a producer. Raises Unavailable."""
        with translate_errors():
            found = yield from self._wire.run_named("object_exists", {"kind": kind, "name": clean(name)})
        return found.get_value(0, 0) == b"t"

    def lag_s(self, *, is_new: bool = False) -> Steps[float | None]:
        """How old answers may be, as it was a second ago if not ``is_new``; None: they come from no replica. Raises
        Unavailable."""
        connection, now_s = self._connection, time.monotonic()
        # The server says so by itself, and again when it is promoted; a pooler before it may keep that to itself.
        if connection.pgconn.parameter_status(b"in_hot_standby") == b"off":
            return None
        if is_new or connection.lag is None or now_s - connection.lag[0] > LAG_EVERY_S:
            with translate_errors():
                found = yield from self._wire.run_named("replica_lag", {})
            seconds = found.get_value(0, 0)
            connection.lag = (now_s, None if seconds is None else max(0.0, float(seconds)))
        return connection.lag[1]

    def has_replayed(self, position: str) -> Steps[bool]:
        """Whether the replica shows what ``written_so_far`` had told. Raises Unavailable."""
        with translate_errors():
            found = yield from self._wire.run_named("has_replayed", {"position": position})
        return found.get_value(0, 0) == b"t"

    def begin(self, compiled: Compiled, *, with_total: bool = False) -> Steps[list[bytes]]:
        """The first rows. Raises BadQuery, TooSlow or Unavailable."""
        self._with_total, self._is_over = with_total, False
        text = compiled.rows if not with_total else _with_total(compiled)
        with _told():
            yield from self._set_limits()
            yield from self._wire.send(text, compiled.parameters, rows=1 if compiled.has_large_rows else ROWS)
        return (yield from self.next_piece())

    def explain(self, compiled: Compiled) -> Steps[bytes]:
        """PostgreSQL's plan and what carrying it out took, as JSON."""
        with _told():
            yield from self._set_limits()
            text = f"EXPLAIN (VERBOSE, ANALYZE, BUFFERS, FORMAT JSON) {compiled.rows}"
            yield from self._wire.send(text, compiled.parameters, is_kept=False)
            result = yield from self._wire.next_result()
            yield from self._wire.drain()
            return (result.get_value(0, 0) if result is not None else None) or b"[]"

    def next_piece(self) -> Steps[list[bytes]]:
        """The next rows; none: that was all. Raises as ``begin`` does."""
        wire, size = self._wire, 0
        found: list[bytes] = []
        begun_s = self.require_time()
        with _told():
            while size < PIECE_BYTES and not self._is_over:
                if found and not wire.can_go_on() and time.monotonic() - begun_s > PIECE_S:
                    break
                result = yield from wire.next_result()
                if result is None:
                    self._is_over = True
                else:
                    rows = self._rows(result)
                    found += rows
                    size += sum(map(len, rows))
        return found

    def await_rows(self) -> Steps[None]:
        """Until some are there. Raises as ``begin`` does."""
        with _told():
            yield from self._wire.await_result()

    def require_time(self) -> float:
        """What the clock says. Raises TooSlow when the answer has taken as long as it may."""
        now_s = time.monotonic()
        if now_s > self._ends_s:
            raise TooSlow(f"the query took longer than {self._timeout_s:g} s")
        return now_s

    def _rows(self, result: PGresult) -> list[bytes]:
        count = result.ntuples
        if not self._with_total:
            return [result.get_value(number, 0) or b"null" for number in range(count)]
        if count:
            self.total = int(result.get_value(0, 0) or 0)
        return [row for number in range(count) if (row := result.get_value(number, 1)) is not None]

    def close(self) -> Steps[bool]:
        """Whether the connection can be used again. What is under way is waited for: it has been cancelled."""
        self._is_over = True
        with suppress(psycopg.Error):
            yield from self._wire.drain()
            if self._in_transaction:
                yield from self._wire.run("ROLLBACK")
                self._in_transaction = False
            return not self._connection.closed
        return False

    def _set_limits(self) -> Steps[None]:
        self._ends_s = time.monotonic() + self._timeout_s
        if self._is_told:
            return
        self._in_transaction = True
        yield from self._wire.run("BEGIN READ ONLY")
        limits = {
            "statement_timeout": f"{max(1, int(self._timeout_s * 1000))}ms",
            "idle_timeout": f"{IDLE_S_MAX}s",
        }
        yield from self._wire.run_named("limit_query", limits)


def _with_total(compiled: Compiled) -> str:
    """The number of all rows beside each of them, and beside none where there is none: both are of one moment."""
    return (
        f"SELECT total.number, shown.row FROM ({compiled.total}) AS total (number) "
        f"LEFT JOIN ({compiled.rows}) AS shown (row) ON true"
    )


def cancel(connection: Connection) -> None:
    """Ends what the connection is carrying out, from another thread; who waits for it gets Unavailable."""
    try:
        connection.cancel_safe(timeout=CANCEL_TIMEOUT_S)
    except psycopg.Error:
        hang_up(connection)


def written_so_far(connection: Connection) -> str | None:
    """The place in the WAL up to which the primary has committed; None: it is none. Raises Unavailable."""
    with translate_errors():
        row: Any = connection.execute(query("written_so_far")).fetchone()
    return None if row[0] is None else str(row[0])


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
