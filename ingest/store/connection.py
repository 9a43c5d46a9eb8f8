"""Opens connections to PostgreSQL, and gives them up: on a server that is silent, on a session that was left behind."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ingest.errors import Misconfigured, Unavailable
from ingest.store.pooling import require_session_pooling
from ingest.store.queries import query
from ingest.store.session_settings import Home, Pinned, forget_environment, pin
from ingest.store.sqlstates import translate

SESSION_TOKEN_BITS = 64
APPLICATION_NAME_BYTES_MAX = 63  # PostgreSQL cuts what is longer: NAMEDATALEN


class Connection(psycopg.Connection[tuple[object, ...]]):
    """A connection whose session is ours (session_settings.py), and where it found our tables."""

    pinned = Pinned(Home(), False)

    @property
    def home(self) -> str | None:
        """The schema that statements name our tables in; None where there is none yet."""
        return self.pinned.home.schema


def connect(
    conninfo: str,
    *,
    application_name: str = "ingest",
    connect_timeout_s: float = 5,
    statement_timeout_s: float = 60,
    lock_timeout_s: float = 30,
    session_token: int | None = None,
) -> Connection:
    """A connection in autocommit mode with its settings and time limits pinned. Raises Unavailable or Misconfigured.

    ``session_token`` lets ``end_session()`` find this session and no other.
    """
    with translate_errors(opening=True):
        given = conninfo_to_dict(conninfo).get("application_name")
    name = _with_token(str(given or application_name), session_token)
    settings = {
        "application_name": name,  # once more: a pooler may keep it to itself
        "statement_timeout": f"{int(statement_timeout_s * 1000)}ms",
        "lock_timeout": f"{int(lock_timeout_s * 1000)}ms",
    }
    with translate_errors(opening=True):
        connection = _open(conninfo, name, connect_timeout_s)
        # A proxy may answer for a server that does not, and a pooler make us wait for one.
        silence = threading.Timer(max(2, connect_timeout_s), hang_up, [connection])
        silence.daemon = True
        silence.start()
        try:
            connection.pinned = pin(connection, settings)
        except BaseException:
            connection.close()
            raise
        finally:
            silence.cancel()
    connection.prepare_threshold = 2
    return connection


def require_own_session(connection: Connection, conninfo: str, connect_timeout_s: float = 5) -> None:
    """Raises Misconfigured when a pooler gives the session's server connection to others between transactions."""
    if connection.pinned.is_pooled:
        with translate_errors():
            require_session_pooling(connection, lambda: _open(conninfo, "ingest", connect_timeout_s), hang_up)


def require_writable(connection: Connection) -> None:
    """Raises Misconfigured on a standby, and where transactions are read-only."""
    with translate_errors():
        row = connection.execute(query("is_read_only")).fetchone()
    is_standby, is_read_only = row or (False, False)
    where = f"the server at {connection.info.host or 'its socket'} port {connection.info.port}"
    if is_standby:
        raise Misconfigured(
            "--database",
            f"{where} is a standby, which is read-only: name the primary, or all hosts with target_session_attrs=read-write",
        )
    if is_read_only:
        raise Misconfigured(
            "--database",
            f"{where} makes this role's transactions read-only (default_transaction_read_only): set it to off for the "
            "database or the role that set it",
        )


def _with_token(name: str, session_token: int | None) -> str:
    if session_token is None:
        return name
    token = f" {session_token:0{SESSION_TOKEN_BITS // 4}x}"
    return name.encode("ascii", "replace").decode()[: APPLICATION_NAME_BYTES_MAX - len(token)] + token


def _open(conninfo: str, application_name: str, connect_timeout_s: float) -> Connection:
    forget_environment()
    return Connection.connect(
        make_conninfo(
            conninfo,
            application_name=application_name,
            client_encoding="UTF8",
            options=conninfo_to_dict(conninfo).get("options") or "",  # not those of the environment
            connect_timeout=max(2, int(connect_timeout_s)),  # libpq takes 1 for 2
            tcp_user_timeout=30_000,  # ms; a server that fell off the network is noticed,
            keepalives_idle=15,  # and also while we wait for its answer: 30 s again
            keepalives_interval=5,
            keepalives_count=3,
        ),
        autocommit=True,
    )


@contextmanager
def hang_up_after(connection: Connection, seconds: float) -> Iterator[None]:
    """Hangs up on a server that stays silent: the statement ends as if the server had gone, with Unavailable.

    The server's own time limits are worth nothing when what is silent is a proxy, a firewall or a frozen server, and
    the operating system's when the other end's still answers. For the main thread: it takes SIGALRM.
    """

    before = signal.signal(signal.SIGALRM, lambda *_: hang_up(connection))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def hang_up(connection: psycopg.Connection[Any]) -> None:
    """Whoever waits on the connection, in whatever thread, finds it lost."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as shared:
        shared.shutdown(socket.SHUT_RDWR)


def end_session(connection: Connection, session_token: int) -> bool:
    """Ends the session that this role opened with that token; False where there is none.

    When a connection was given up because nothing came through, its other end does not know. In the middle of a COPY
    it would keep its locks for as long as TCP finds nothing wrong, and behind a proxy that may be for ever.
    """
    # What fails here ends when TCP does, then; and the next statement tells what is wrong.
    with suppress(psycopg.Error):
        token = f"{session_token:0{SESSION_TOKEN_BITS // 4}x}"
        return connection.execute(query("end_session"), [token]).fetchone() is not None
    return False


@contextmanager
def translate_errors(*, opening: bool = False) -> Iterator[None]:
    """Turns psycopg's errors into this package's: what to do about them, not where they came from."""
    try:
        yield
    except psycopg.Error as error:
        found = translate(error)
        if opening and isinstance(found, Unavailable):
            found = Unavailable(f"no database (--database): {found}")
        raise found from error
