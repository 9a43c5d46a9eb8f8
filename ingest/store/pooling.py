"""Tells a pooler that keeps a session's server connection from one that does not.

The only sure sign of PgBouncer's pool_mode = transaction is that two of our connections meet the same server process, or
that one of them meets two. Idle, each would go on meeting its own: so a second connection opens transactions, while the
first one looks whether its server process is still its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

from ingest.errors import Misconfigured
from ingest.store.queries import query
from ingest.store.session_settings import MIXED

# PgBouncer hands out the server connection that was given back last: on a quiet pool the first round tells, on a busy one
# another client may be quicker, now and then. Several PgBouncers may share a port (so_reuseport), each with a pool of its
# own, and chance says to which one a connection goes: with four of them one of a hundred tries meets none of sixteen.
ROUNDS = 16
PATIENCE_S = 2.0


def require_session_pooling(
    connection: psycopg.Connection[Any],
    open_another: Callable[[], psycopg.Connection[Any]],
    hang_up: Callable[[psycopg.Connection[Any]], None],
) -> None:
    """Raises Misconfigured when a pooler shares server connections between transactions."""
    for _ in range(ROUNDS):
        other = open_another()
        # In session mode a pool may have no second connection to give. In transaction mode it has: the one that our first
        # connection does not use at the moment.
        timer = threading.Timer(PATIENCE_S, hang_up, [other])
        timer.daemon = True
        timer.start()
        try:
            if not _compare(connection, other):
                return
        finally:
            timer.cancel()
            with suppress(psycopg.Error):
                other.close()


def _compare(connection: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    """False: there was nothing to compare with."""
    before = _backend(connection)
    try:
        other.execute(query("begin"))
        theirs = _backend(other)
    except psycopg.Error as error:
        if "statement pooling" in str(error):
            raise Misconfigured("--database", MIXED) from error
        return False  # none to be had, or hung up: our own is kept for us
    if theirs == before or _backend(connection) != before:
        raise Misconfigured("--database", MIXED)
    with suppress(psycopg.Error):
        other.execute(query("rollback"))
    return True


def _backend(connection: psycopg.Connection[Any]) -> Any:
    row = connection.execute(query("own_backend"), prepare=False).fetchone()
    assert row is not None
    return row[0]
