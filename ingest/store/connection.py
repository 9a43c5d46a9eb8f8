"""Opens connections to PostgreSQL, and gives them up: on a server that is silent, on a session that was left behind."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ingest.core.passwords import is_readable
from ingest.errors import Misconfigured, Unavailable
from ingest.store.hosts import with_target
from ingest.store.pooling import require_session_pooling
from ingest.store.queries import query
from ingest.store.session_settings import Home, Pinned, forget_environment, pin
from ingest.store.sqlstates import translate

APPLICATION_NAME_BYTES_MAX = 63  # PostgreSQL cuts what is longer: NAMEDATALEN
TOKEN_BYTES = 8

# libpq quotes what it takes for a port, a host or a database.
UNREADABLE = (
    "it cannot be read for sure, and why is not shown, because a part of the password may be in that: quote values "
    "with spaces in a conninfo, and percent-encode those of a URI (%2F for a slash, %40 for @, %25 for a percent sign)"
)


class Name(NamedTuple):
    """What no other session at a server is: the process that serves it, and a number in its application_name."""

    backend_pid: int
    token: int  # 64 bits


class Connection(psycopg.Connection[tuple[object, ...]]):
    """A connection whose session is ours (session_settings.py), and where it found our tables."""

    pinned = Pinned(Home(), False, 0)
    token = 0
    lock_timeout_s = 30.0
    plans: Any = None  # what store/query/wire.py has prepared on it
    lag: tuple[float, float | None] | None = None  # when it was asked, and what store/query/running.py found

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
) -> Connection:
    """A connection in autocommit mode that relies on nothing that others have set. Raises Unavailable or Misconfigured."""
    token = secrets.token_hex(TOKEN_BYTES)
    with translate_errors(opening=conninfo):
        given = conninfo_to_dict(conninfo).get("application_name")
        name = _with_token(str(given or application_name), token)
        settings = {
            "application_name": name,  # once more: a pooler may keep it to itself
            "statement_timeout": f"{int(statement_timeout_s * 1000)}ms",
            "lock_timeout": f"{int(lock_timeout_s * 1000)}ms",
        }
        connection = _open(conninfo, name, connect_timeout_s)
        # connect_timeout ends with the login: a proxy may answer for a server that does not, and a pooler make us wait for
        # one. A thread: not every caller is the main one, and SIGALRM is for that.
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
    connection.token, connection.lock_timeout_s = int(token, 16), lock_timeout_s
    connection.prepare_threshold = 2
    return connection


def require_own_session(connection: Connection, conninfo: str, connect_timeout_s: float = 5) -> None:
    """Raises Misconfigured when a pooler gives the session's server connection to others between transactions."""
    if connection.pinned.is_pooled:
        with translate_errors(opening=conninfo):
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


def name_of(connection: Connection) -> Name:
    """PostgreSQL's own process id, not the one that a pooler tells; and the token."""
    return Name(connection.pinned.backend_pid, connection.token)


def _with_token(name: str, token: str) -> str:
    return (
        name.encode("ascii", "replace").decode()[: APPLICATION_NAME_BYTES_MAX - len(token) - 1] + f" {token}"
    )


def _open(conninfo: str, application_name: str, connect_timeout_s: float) -> Connection:
    forget_environment()
    given: Any = with_target(conninfo_to_dict(conninfo), os.environ)
    return Connection.connect(
        make_conninfo(
            conninfo,
            target_session_attrs=given.get("target_session_attrs"),
            application_name=application_name,
            client_encoding="UTF8",
            options=given.get("options") or "",  # not those of the environment or a service file
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
    outer_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    started_s = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer_s:  # one within another: the outer one's time goes on
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer_s - (time.monotonic() - started_s)))


def hang_up(connection: psycopg.Connection[Any]) -> None:
    """Whoever waits on the connection, in whatever thread, finds it lost."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as shared:
        shared.shutdown(socket.SHUT_RDWR)


def end_session(connection: Connection, left: Name) -> bool:
    """Ends a session that this role left behind; False where there is none.

    When a connection was given up because nothing came through, its other end does not know. In the middle of a COPY
    it would keep its locks for as long as TCP finds nothing wrong, and behind a proxy that may be for ever. A process id
    alone may be somebody else's by now, and behind a pooler the process serves others.
    """
    # It ends when TCP does, otherwise; and the next statement tells what is wrong here.
    with suppress(psycopg.Error), connection.transaction():
        connection.execute(query("as_logged_in"))
        found = connection.execute(query("end_session"), [left.backend_pid, f"{left.token:016x}"]).fetchone()
        return found is not None
    return False


@contextmanager
def translate_errors(*, opening: str | None = None) -> Iterator[None]:
    """Turns psycopg's errors into this package's: what to do about them, not where they came from. ``opening`` is the
    conninfo that is being used: no part of its passwords is in what is said."""
    try:
        yield
    except psycopg.Error as error:
        if opening is None:
            raise translate(error) from error
        found = translate(error)
        if isinstance(found, Misconfigured):
            raise Misconfigured(found.setting, found.text if is_readable(opening) else UNREADABLE) from None
        raise Unavailable(
            f"no database (--database): {found if is_readable(opening) else UNREADABLE}"
        ) from None


def require_conninfo(conninfo: str) -> None:
    """Raises Misconfigured for what libpq cannot read."""
    with translate_errors(opening=conninfo):
        conninfo_to_dict(conninfo)
