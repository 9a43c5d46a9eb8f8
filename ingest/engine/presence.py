"""Tells other engines how far this one has settled what it holds, as long as messages come that have no time of any kind.

When a broker gives a message out again it does not say when it first did. What another engine stored meanwhile must stay
(docs/decisions/0008-order.md). Once a second, and on a connection of its own: writers may be waiting for a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import structlog

from ingest.core.times import EPOCH
from ingest.engine.supervisor import Supervisor
from ingest.errors import IngestError
from ingest.store import engines
from ingest.store.connection import Connection, connect, hang_up

TELL_EVERY_S = 1.0
ANSWER_TIMEOUT_S = 5.0


def tell_of_itself(stop: threading.Event, supervisor: Supervisor) -> None:
    """Until ``stop``; what cannot be told now is told later."""
    log = structlog.get_logger()
    connection: Connection | None = None
    try:
        while not stop.wait(TELL_EVERY_S):
            told = supervisor.held_since()
            try:
                if told:
                    connection = connection or _open(supervisor)
                    since = EPOCH + timedelta(microseconds=told >> 1)
                    with _hanging_up(connection):
                        engines.tell(connection, supervisor.engine, since, takes_new=bool(told & 1))
                elif connection is not None:
                    _leave(connection, supervisor.engine)
                    connection = None
            except IngestError as error:
                log.debug("engine_cannot_be_told_of", reason=str(error))
                if connection is not None:
                    connection.close()
                connection = None
    finally:
        # Not after a death or a drain that was given up: then it stays, for whoever gets what this engine held.
        if connection is not None and supervisor.drained:
            _leave(connection, supervisor.engine)


def _open(supervisor: Supervisor) -> Connection:
    config = supervisor.config
    return connect(
        config.database,
        application_name="ingest engine",
        connect_timeout_s=config.connect_timeout_s,
        statement_timeout_s=ANSWER_TIMEOUT_S,
        lock_timeout_s=ANSWER_TIMEOUT_S,
    )


def _leave(connection: Connection, engine: int) -> None:
    with suppress(IngestError), _hanging_up(connection):
        engines.leave(connection, engine)
    connection.close()


@contextmanager
def _hanging_up(connection: Connection) -> Iterator[None]:
    """A server that keeps silent does not keep this thread."""
    timer = threading.Timer(2 * ANSWER_TIMEOUT_S, hang_up, [connection])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
