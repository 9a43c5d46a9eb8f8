"""Opens connections to PostgreSQL, and says what an error of PostgreSQL means for the engine."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ingest.errors import Misconfigured, Rejected, Unavailable
from ingest.store.hosts import with_target
from ingest.store.queries import query

Connection = psycopg.Connection[tuple[object, ...]]

# SQLSTATE classes after which the same statement may succeed later, on this or another connection.
# Source: PostgreSQL documentation, appendix A.
_PASSING = ("08", "0A", "25", "40", "53", "55", "57", "58")
# What a person has to mend before any statement can succeed.
_SETTING = ("28", "3D000", "42501", "3F000", "42P01", "42703", "42883")


def connect(
    conninfo: str,
    *,
    application_name: str = "ingest",
    connect_timeout_s: float = 5,
    statement_timeout_s: float = 60,
    lock_timeout_s: float = 30,
    synchronous_commit: bool = True,
) -> Connection:
    """A connection in autocommit mode with its time limits set. Raises Unavailable or Misconfigured."""
    settings = {
        "statement_timeout": f"{int(statement_timeout_s * 1000)}ms",
        "lock_timeout": f"{int(lock_timeout_s * 1000)}ms",
        # A writer that fell off the network in a transaction keeps its nodes locked for that long; ours are
        # never idle in one for longer than it takes to make the next rows.
        "idle_in_transaction_session_timeout": "15s",
        # In the middle of a COPY a session is not idle, and PostgreSQL does not look at statement_timeout while it
        # waits for more rows: only its TCP notices then that a client's machine has gone, by itself after two hours.
        "tcp_keepalives_idle": "15",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "30000",
        "timezone": "UTC",
        "client_min_messages": "warning",
    }
    with translate_errors(opening=True):
        given: Any = with_target(conninfo_to_dict(conninfo), os.environ)
        options = " ".join([str(given.get("options") or ""), *(f"-c {k}={v}" for k, v in settings.items())])
        connection = psycopg.connect(
            make_conninfo(
                conninfo,
                target_session_attrs=given.get("target_session_attrs"),
                application_name=given.get("application_name") or application_name,
                connect_timeout=max(2, int(connect_timeout_s)),  # libpq takes 1 for 2
                options=options.strip(),
                tcp_user_timeout=30_000,  # ms; a server that fell off the network is noticed,
                keepalives_idle=15,  # and also while we wait for its answer: 30 s again
                keepalives_interval=5,
                keepalives_count=3,
            ),
            autocommit=True,
        )
    connection.prepare_threshold = 2
    return connection


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


def end_session(connection: Connection, backend_pid: int) -> bool:
    """Ends a session that this role left behind under the same application_name; False where there is none.

    When a connection was given up because nothing came through, its other end does not know. In the middle of a COPY
    it would keep its locks for as long as TCP finds nothing wrong, and behind a proxy that may be for ever.
    """
    with suppress(
        psycopg.Error
    ):  # it ends when TCP does, then; and the next statement tells what is wrong here
        found = connection.execute(query("end_session"), [backend_pid]).fetchone()
        return found is not None
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


def translate(error: psycopg.Error) -> Unavailable | Rejected | Misconfigured:
    """The plan for an error of PostgreSQL: wait and try again, quarantine, or change a setting."""
    text = _line(error)
    # Details and context of a refused row tell its values, and a value may be a secret.
    refusal = error.diag.message_primary or "no reason given"
    state = error.sqlstate or ""
    if state.startswith(_SETTING) or _is_login(error):
        return Misconfigured("--database", text)
    if isinstance(error, (pg.DataError, pg.IntegrityError, pg.ProgramLimitExceeded, pg.StatementTooComplex)):
        return Rejected("refused_by_postgresql", refusal)
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) or state.startswith(_PASSING):
        return Unavailable(text)
    if isinstance(error, psycopg.ProgrammingError) and not state:
        # libpq cannot parse the conninfo, and its words hold the part that it stumbled over: maybe a password's.
        return Misconfigured("--database", "it cannot be read as a libpq conninfo or URI")
    return Rejected("refused_by_postgresql", refusal)


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


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
