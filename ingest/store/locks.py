"""The advisory locks of writers and housekeeping, the same in every instance on one database."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from ingest.store.connection import Connection
from ingest.store.queries import query
from ingest.store.session import Session

# The first key of our advisory locks; the second tells what is locked. Anybody who may connect can take them.
CONTENT_LOCK = 464379
NODE_LOCK = 464380
POLL_S = 0.01  # a step of garbage collection takes some ten milliseconds


def node_key(certname: str) -> int:
    """The second key of a node's advisory lock, a signed 32-bit number: the same in every instance."""
    unsigned = zlib.crc32(certname.encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


def lock_content(session: Session, pause: Callable[[float], None] = time.sleep) -> None:
    """Shared, against garbage collection of the version before. Whoever holds it without the right to write is none, and is
    passed by: nothing of ours stops for a reader. Raises psycopg's LockNotAvailable after lock_timeout."""
    waited_s = 0.0
    while not _try(session):
        session.cursor.execute(query("lock_holders"), {"class": None, "keys": [CONTENT_LOCK]})
        holders = session.cursor.fetchall()
        if holders and not any(can_write for *_, can_write in holders):
            return
        if waited_s >= _lock_timeout_s(session):
            raise psycopg.errors.LockNotAvailable("garbage collection holds the content lock")
        pause(POLL_S)
        waited_s += POLL_S


def is_free_of_writers(connection: Connection) -> bool:
    """Takes the content lock alone, where nobody has it. Where only readers do, it is as good as taken."""
    ((taken,),) = connection.execute(query("try_lock_content_alone"), [CONTENT_LOCK]).fetchall()
    if taken:
        return True
    rows: Any = connection.execute(query("lock_holders"), {"class": None, "keys": [CONTENT_LOCK]}).fetchall()
    return bool(rows) and not any(can_write for *_, can_write in rows)


def holders_of_nodes(connection: Connection, certnames: Iterable[str]) -> str:
    """Who has the locks of these nodes, in words; empty when nobody has any more."""
    keys = [node_key(certname) for certname in certnames]
    rows = connection.execute(query("lock_holders"), {"class": NODE_LOCK, "keys": keys}).fetchall()
    return ", ".join(
        f"process {pid} of the role {role}" + (f" ({name})" if name else "") for pid, role, name, _ in rows
    )


def _try(session: Session) -> bool:
    session.cursor.execute(query("try_lock_content"), [CONTENT_LOCK])
    row = session.cursor.fetchone()
    return row is not None and bool(row[0])


def _lock_timeout_s(session: Session) -> float:
    session.cursor.execute(query("lock_timeout_ms"))
    ((milliseconds,),) = session.cursor.fetchall()
    return float(milliseconds) / 1000
