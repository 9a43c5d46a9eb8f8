"""Opens connections to PostgreSQL, and says what an error of PostgreSQL means for the engine."""

from __future__ import annotations

import os
import re
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
from ingest.errors import Misconfigured, Rejected, Unavailable
from ingest.store.hosts import with_target
from ingest.store.poolers import require_one_session
from ingest.store.queries import query
from ingest.store.session_settings import (
    forget_environment,
    look_at,
    pin,
    require_own_schema,
    require_writable,
)
from ingest.store.sqlstates import OF_A_SETTING, OF_THE_ROW, remedy

Connection = psycopg.Connection[tuple[object, ...]]

# libpq quotes what it takes for a port, a host or a database.
UNREADABLE = (
    "it cannot be read for sure, and why is not shown, because a part of the password may be in that: quote values "
    "with spaces in a conninfo, and percent-encode those of a URI (%2F for a slash, %40 for @, %25 for a percent sign)"
)


class Name(NamedTuple):
    """What no other session at a server is: the process that serves it, and a number in its application_name."""

    backend_pid: int
    token: int  # 64 bits


def connect(
    conninfo: str,
    *,
    application_name: str = "ingest",
    connect_timeout_s: float = 5,
    statement_timeout_s: float = 60,
    lock_timeout_s: float = 30,
) -> Connection:
    """A connection in autocommit mode that relies on nothing that others have set. Raises Unavailable or Misconfigured."""
    forget_environment()
    with translate_errors(opening=conninfo):
        given: Any = with_target(conninfo_to_dict(conninfo), os.environ)
        connection = psycopg.connect(
            make_conninfo(
                conninfo,
                target_session_attrs=given.get("target_session_attrs"),
                application_name=f"{given.get('application_name') or application_name} {secrets.token_hex(8)}",
                client_encoding="UTF8",
                connect_timeout=max(2, int(connect_timeout_s)),  # libpq takes 1 for 2
                tcp_user_timeout=30_000,  # ms; a server that fell off the network is noticed,
                keepalives_idle=15,  # and also while we wait for its answer: 30 s again
                keepalives_interval=5,
                keepalives_count=3,
            ),
            autocommit=True,
        )
        # connect_timeout ends with the login. A thread: not every caller is the main one, and SIGALRM is for that.
        silence = threading.Timer(max(2.0, connect_timeout_s), hang_up, [connection])
        silence.daemon = True
        silence.start()
        try:
            pin(connection, look_at(connection), statement_timeout_s, lock_timeout_s)
        except BaseException:
            connection.close()
            raise
        finally:
            silence.cancel()
    connection.prepare_threshold = 2
    return connection


def require_usable(connection: Connection) -> None:
    """Before the first use: raises Misconfigured for a server on which nothing can be stored, for a schema in which others
    may create what our statements would meet, and for a pooler that mixes sessions up."""
    with translate_errors():
        server = look_at(connection)
        require_writable(server)
        require_own_schema(connection, server.schema)
        require_one_session(connection)


def name_of(connection: Connection) -> Name:
    """PostgreSQL's own process id, not the one that a pooler tells; and the token."""
    with translate_errors():
        row = connection.execute(query("backend_pid")).fetchone()
    assert row is not None
    name = connection.info.get_parameters()["application_name"]
    return Name(int(str(row[0])), int(name.rpartition(" ")[2], 16))


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


def hang_up(connection: Connection) -> None:
    """Whoever waits on the connection, in whatever thread, finds it lost."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as shared:
        shared.shutdown(socket.SHUT_RDWR)


def end_session(connection: Connection, left: Name) -> bool:
    """Ends a session that this role left behind; False where there is none.

    When a connection was given up because nothing came through, its other end does not know. In the middle of a COPY
    it would keep its locks for as long as TCP finds nothing wrong, and behind a proxy that may be for ever. A process id
    alone may be somebody else's by now, and behind a pooler the process serves others.
    """
    with suppress(
        psycopg.Error
    ):  # it ends when TCP does, then; and the next statement tells what is wrong here
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
        text = _line(error) if is_readable(opening) else UNREADABLE
        if isinstance(found, Misconfigured):
            raise Misconfigured(found.setting, text) from None
        raise Unavailable(f"no database (--database): {text}") from None


def require_conninfo(conninfo: str) -> None:
    """Raises Misconfigured for what libpq cannot read."""
    with translate_errors(opening=conninfo):
        conninfo_to_dict(conninfo)


def translate(error: psycopg.Error) -> Unavailable | Rejected | Misconfigured:
    """The plan for an error of PostgreSQL: quarantine the message, change a setting, or wait and try again."""
    state = error.sqlstate or ""
    if state in OF_THE_ROW:
        # Details and context of a refused row tell its values, and a value may be a secret.
        return Rejected("refused_by_postgresql", error.diag.message_primary or "no reason given")
    # Nor in what it says where it was: a line of COPY, a statement.
    text = _line(error) if error.diag.message_primary is None else _said(error)
    if state.startswith(OF_A_SETTING) or _is_login(error):
        return Misconfigured("--database", text)
    if isinstance(error, psycopg.ProgrammingError) and not state:
        return Misconfigured("--database", text)  # a conninfo that cannot be parsed
    if isinstance(error, psycopg.DataError) and not state:
        return Rejected("refused_by_postgresql", "a value cannot be sent to PostgreSQL")  # by psycopg itself
    words = remedy(state)
    return Unavailable(f"{text} (SQLSTATE {state}: {words})" if words else text)


def _is_login(error: psycopg.Error) -> bool:
    # A failed connection carries no SQLSTATE in psycopg; the server's words are all there is.
    text = str(error)
    return isinstance(error, psycopg.OperationalError) and (
        "password authentication failed" in text
        or "no password supplied" in text
        or "no pg_hba.conf entry" in text
        or ('role "' in text and "does not exist" in text)
        or ('database "' in text and "does not exist" in text)
        or "is not permitted to log in" in text
        or "invalid integer value" in text  # and whatever else of a conninfo libpq cannot use
        or re.search(r"invalid \w+ value: ", text) is not None
        or "definition of service" in text
        or "service file" in text
    )


def _said(error: psycopg.Error) -> str:
    said = (error.diag.message_primary, error.diag.message_hint)
    return " ".join(" ".join(filter(None, said)).split())


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
