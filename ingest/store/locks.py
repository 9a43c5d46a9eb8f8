"""The locks of writers, housekeeping and migrations, the same in every instance on one database.

What counts are locks on tables and rows of ours, which take a right that readers do not have: content is locked by the
table ``content_state``, a node by a row of ``node_locks``. Anybody who may connect can take an advisory lock. Ours are
for programs of the version before, which know no others: whoever holds one and may not write our tables is no such
program, and is passed over. docs/decisions/0009-session.md.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg import errors as pg

from ingest.core import pgcopy
from ingest.errors import Unavailable
from ingest.store.connection import Connection
from ingest.store.parameters import Encoded
from ingest.store.queries import query

# The keys of the advisory locks; of a node's, the first of two. The version before has the same.
MIGRATION_LOCK = 464378
CONTENT_LOCK = 464379
NODE_LOCK = 464380

# Rows of node_locks at most: 36 MB. Two batches of a hundred nodes meet in one of them in one case of a hundred.
NODE_LOCKS = 1 << 20
POLL_S = 0.005
# Writers queue behind a collector that queues behind a writer: for so long at most.
QUEUE_MS = 50
WARN_S = 60.0

Cursor = psycopg.Cursor[tuple[Any, ...]]


class Holder(NamedTuple):
    """A session that holds an advisory lock."""

    key: int  # unsigned
    pid: int | None
    role: str
    application: str
    may_write: bool  # our tables: it may be a program of ours


def node_key(certname: str) -> int:
    """The second key of a node's advisory lock, a signed 32-bit number: the same in every instance."""
    unsigned = zlib.crc32(certname.encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


def node_row(certname: str) -> int:
    """The row of ``node_locks`` that stands for a node."""
    return zlib.crc32(certname.encode()) % NODE_LOCKS


class NodeLocks:
    """The locks of one connection's transactions: on content, shared, and on nodes."""

    def __init__(
        self,
        connection: Connection,
        *,
        patience_s: float = 30.0,
        known: Iterable[int] | None = None,
        pause: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``known`` are the rows that are there; None: the table tells, once."""
        self._connection = connection
        self._cursor: Any = connection.cursor()
        self._patience_s = patience_s
        self._pause = pause
        self._now = now
        self._log = structlog.get_logger()
        self._warn_at_s = 0.0
        self._rows = bytearray(NODE_LOCKS // 8)  # a bit for each row that is known to be there
        if known is None:
            known = (int(str(row)) for (row,) in connection.execute(query("find_lock_rows")))
        for row in known:
            self._remember(row)

    def prepare(self, certnames: Collection[str]) -> None:
        """Makes sure of the rows, outside the transaction that is to lock them: two that insert rows while they hold
        others could wait for each other."""
        rows = sorted(
            {
                row
                for certname in certnames
                if not self._rows[(row := node_row(certname)) >> 3] >> (row & 7) & 1
            }
        )
        if rows:
            self._connection.execute(query("insert_lock_rows"), [rows])
            for row in rows:
                self._remember(row)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One that begins with the lock on content, in one way to the server and back. COMMIT is what its end does."""
        try:
            self._cursor.execute(query("begin_with_content"), prepare=False)
            yield
        except BaseException:
            with suppress(psycopg.Error):  # what ended the transaction says more
                self._cursor.execute("ROLLBACK", prepare=False)
            raise
        self._cursor.execute("COMMIT", prepare=False)

    def take(self, certnames: Collection[str]) -> tuple[int, bool]:
        """Takes the locks inside that transaction, in the order that everybody keeps: content, nodes, what the version
        before knows. Returns the generation of content, and whether COMMIT waits for a standby."""
        connection = self._connection
        rows = sorted({node_row(certname) for certname in certnames})
        keys = sorted({node_key(certname) for certname in certnames})
        asked = [_array(rows), CONTENT_LOCK, _array(keys), NODE_LOCK]
        locked, is_shared, generation, is_guarded, missing = self._cursor.execute(
            query("lock_nodes"), asked
        ).fetchone()
        if locked != len(rows):
            self._rows = bytearray(NODE_LOCKS // 8)
            raise Unavailable("node_locks lost rows, as it does when PostgreSQL crashes: once more")
        if not is_shared:
            self._wait_for_others(lambda: _try_content(connection), CONTENT_LOCK)
            generation, missing = _row(connection, "generation_and_nodes", [_array(keys), NODE_LOCK])
        if missing:
            self._wait_for_others(lambda: _try_nodes(connection, keys), NODE_LOCK)
            # Whoever was waited for may have collected garbage.
            generation, _ = _row(connection, "generation_and_nodes", [_array([]), NODE_LOCK])
        return int(generation), bool(is_guarded)

    def _wait_for_others(self, missing: Callable[[], list[int]], lock: int) -> None:
        """Until no advisory lock is missing, or those that are have holders who cannot be a program of the version before."""
        deadline = self._now() + self._patience_s
        while keys := missing():
            holders = advisory_holders(self._connection, lock, keys if lock == NODE_LOCK else None)
            # What nobody has was given back just now, and has to be taken.
            is_held = {holder.key for holder in holders}.issuperset(keys)
            if is_held and not any(holder.may_write for holder in holders):
                self._warn(holders)
                return
            if self._now() > deadline:
                what = "nodes of this batch are" if lock == NODE_LOCK else "content is"
                raise Unavailable(f"{what} locked by {_name(holders)}")
            self._pause(POLL_S)

    def _warn(self, holders: Sequence[Holder]) -> None:
        if self._now() >= self._warn_at_s:
            self._warn_at_s = self._now() + WARN_S
            self._log.warning(
                "advisory_lock_ignored",
                held_by=_name(holders),
                note="by a role that may not write: it stops nobody",
            )

    def _remember(self, row: int) -> None:
        self._rows[row >> 3] |= 1 << (row & 7)


def lock_content_alone(connection: Connection, patience_s: float, pause: Callable[[float], None]) -> bool:
    """Takes the content lock, inside a transaction, in a moment in which no writer has it; False when there was none."""
    for _ in range(max(1, round(patience_s / POLL_S))):
        if not _is_busy(connection) and _content_is_ours(connection):
            return True
        pause(POLL_S)
    return False


def _content_is_ours(connection: Connection) -> bool:
    """Asks for it: those who come later wait meanwhile, so not for long."""
    try:
        with connection.transaction():
            connection.execute(query("set_lock_timeout"), [f"{QUEUE_MS}ms"])
            connection.execute(query("lock_content_alone"))
            if not _row(connection, "try_lock_content_alone", [CONTENT_LOCK])[0]:
                holders = advisory_holders(connection, CONTENT_LOCK)
                if not holders or any(holder.may_write for holder in holders):
                    raise psycopg.Rollback
            connection.execute(query("set_lock_timeout"), ["0"])
            return True
    except pg.LockNotAvailable:
        pass
    return False


def _is_busy(connection: Connection) -> bool:
    """Whether a writer is at work, of this version or of the one before."""
    if any(holder.may_write for holder in advisory_holders(connection, CONTENT_LOCK)):
        return True
    return not _row(connection, "is_content_free", {"home": connection.home})[0]


def lock_migrations(connection: Connection, patience_s: float, pause: Callable[[float], None]) -> bool:
    """Takes the advisory lock of migrations, which is a courtesy to programs of the version before: False after a
    while. What keeps two programs apart is the lock on the table ``schema_migrations``."""
    for _ in range(max(1, int(patience_s / POLL_S))):
        if _row(connection, "try_lock_migrations", [MIGRATION_LOCK])[0]:
            return True
        pause(POLL_S)
    return False


def advisory_holders(connection: Connection, lock: int, keys: list[int] | None = None) -> list[Holder]:
    """The other sessions that hold an advisory lock of ours; ``keys`` are those of nodes."""
    asked = {"key": lock, "keys": keys, "home": connection.home}
    return [Holder(*row) for row in connection.execute(query("advisory_holders"), asked).fetchall()]  # type: ignore[arg-type]


def holders_of_nodes(connection: Connection, certnames: Iterable[str]) -> str:
    """Who has the locks of these nodes, in words; empty when nobody has any more. Every writer has the advisory ones, too."""
    keys = [node_key(certname) & 0xFFFFFFFF for certname in certnames]
    return _name(advisory_holders(connection, NODE_LOCK, keys))


def _name(holders: Sequence[Holder]) -> str:
    return ", ".join(
        f"process {holder.pid} of the role {holder.role}"
        + (f" ({holder.application})" if holder.application else "")
        for holder in holders[:5]
    )


def _try_content(connection: Connection) -> list[int]:
    return [] if _row(connection, "try_lock_content", [CONTENT_LOCK])[0] else [CONTENT_LOCK]


def _try_nodes(connection: Connection, keys: list[int]) -> list[int]:
    missing: list[int] = _row(connection, "generation_and_nodes", [_array(keys), NODE_LOCK])[1]
    return [key & 0xFFFFFFFF for key in missing]  # as pg_locks has them


def _array(numbers: Collection[int]) -> Encoded:
    return Encoded(pgcopy.array_of(pgcopy.INT4_OID, [pgcopy.int4(number) for number in numbers]))


def _row(connection: Connection, name: str, parameters: Any = None) -> Any:
    return connection.execute(query(name), parameters).fetchone()
