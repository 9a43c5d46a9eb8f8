"""One transaction of a writer: takes a batch of work, of any kinds, and settles it.

The order of locks is the same for everybody: content lock (shared), nodes by row, names, content by digest,
quarantine by digest. That is why several writers and several instances meet no deadlock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, runtime_checkable

import psycopg
from psycopg.errors import LockNotAvailable

from ingest.core.delivery.batching import FUTURE_TOLERANCE
from ingest.core.delivery.work import Outcome, Settled
from ingest.errors import Unavailable, Unsure
from ingest.store.asking import Asking
from ingest.store.connection import Connection, hang_up_after, translate_errors
from ingest.store.locks import NodeLocks, holders_of_nodes
from ingest.store.quarantine import Quarantine, QuarantineLimits, QuarantineRow
from ingest.store.queries import query
from ingest.store.session import Counts, Session, Staging, require_staging


class LaneSettings(NamedTuple):
    """What a lane and the writers of kinds in it need to know."""

    cache_entries_max: int
    quarantine_limits: QuarantineLimits = QuarantineLimits()
    future_tolerance: timedelta = FUTURE_TOLERANCE
    commit_timeout_s: float = 0.0  # 0: no bound; else only in the main thread
    asking: Callable[[], Asking] = Asking  # which engine this is
    report_ttl: timedelta | None = None  # what is older is not stored any more; None: everything is
    resource_events_ttl: timedelta | None = None  # older reports are stored without events; 0: all of them


class Commit(NamedTuple):
    """What is known of a COMMIT that came back."""

    seconds: float = 0.0
    is_guarded: bool = False  # it had to wait for a standby


class Works(Protocol):
    """What is asked of work of every kind. Its class says which kind it is."""

    @property
    def delivery(self) -> int: ...
    @property
    def certname(self) -> str: ...
    @property
    def is_early(self) -> bool: ...  # settles nothing: the rest of its message is still being decoded


class KindWriter(Protocol):
    """How the work of one kind is written. There is one for each lane; it may remember ids that it found."""

    def write(self, session: Session, works: Sequence[Any]) -> list[Settled]:
        """Settles these in the transaction that holds the locks of their nodes."""

    def committed(self) -> None:
        """What was found in the last transaction is so."""

    def rolled_back(self) -> None:
        """What was found in the last transaction never was."""

    def forget(self) -> None:
        """Content was collected: an id that is remembered may be gone."""


@runtime_checkable
class NamesFirst(Protocol):
    """A writer of a kind that comes behind others in a batch: they hold content by then, and a new name must come before any."""

    def make_names(self, connection: Connection, works: Sequence[Any]) -> None:
        """Inserts the names that its works need, outside of the transaction."""


class Lane:
    """The store as one writer uses it: a connection, what the kinds remember, one batch at a time."""

    def __init__(
        self,
        connection: Connection,
        writers: Mapping[type, KindWriter],
        quarantine_limits: QuarantineLimits | None = None,
        commit_timeout_s: float = 0.0,
    ) -> None:
        """``writers`` by the classes of work, in the order in which a batch is written."""
        self.connection = connection
        self.counts = Counts()  # of the last batch
        self.commit = Commit()  # of the last batch
        self._commit_timeout_s = commit_timeout_s
        self._is_guarded = False
        self._warning = ""  # that PostgreSQL gave in the last COMMIT
        self.quarantine = Quarantine(quarantine_limits or QuarantineLimits())
        self._writers = writers
        self._kinds = list({id(writer): writer for writer in writers.values()}.values())
        self._names_first = tuple(writer for writer in self._kinds if isinstance(writer, NamesFirst))
        self._generation: object = None
        self._staging = Staging()
        connection.add_notice_handler(self._notice)
        with translate_errors():
            require_staging(connection)
            self._locks = NodeLocks(connection, patience_s=connection.lock_timeout_s)

    def apply(self, batch: Sequence[Works | QuarantineRow]) -> list[Settled]:
        """Settles a batch in one transaction. Raises Unavailable, or Rejected (PostgreSQL refuses something in it);
        nothing happened then, and halves of the batch may fare better. Raises Unsure when COMMIT did not come back, or
        says that it waited for no standby: then it may have happened."""
        certnames = {
            item.certname for item in batch if not isinstance(item, QuarantineRow) and not item.is_early
        }
        try:
            with translate_errors():
                self._locks.prepare(certnames)
                self._make_names(batch)
            # COMMIT is what the transaction's end does: what is around it must end later, and begin as the last.
            with (
                translate_errors(),
                ExitStack() as committing,
                self._locks.transaction(),
                self.connection.cursor() as cursor,
            ):
                session = Session(cursor, self._staging)
                self.counts = session.counts
                settled = self._apply(session, batch, certnames)
                self._have_replicated(session, settled)
                committing.enter_context(self._committing())
        except BaseException as error:
            self._staging.rolled_back()
            for writer in self._kinds:
                writer.rolled_back()
            if isinstance(error.__cause__, LockNotAvailable) and (who := self._holders(certnames)):
                raise Unavailable(f"{error}: nodes of this batch are locked by {who}") from error
            raise
        self._staging.committed()
        for writer in self._kinds:
            writer.committed()
        return settled

    def _make_names(self, batch: Sequence[Works | QuarantineRow]) -> None:
        for writer in self._names_first:
            if works := [item for item in batch if self._writers.get(type(item)) is writer]:
                writer.make_names(self.connection, works)

    def _have_replicated(self, session: Session, settled: Sequence[Settled]) -> None:
        """What this batch found stored may be a commit whose standby never answered: written once more, COMMIT waits for
        the standby, and so for all that stands before it."""
        settles = any(one.outcome is not Outcome.REDO for one in settled)
        if self._is_guarded and not session.counts.rows_written and settles:
            session.cursor.execute(query("write_one_record"))

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """Around COMMIT: statement_timeout does not bound its wait for a standby, and a wait that somebody ended early is
        a success with a WARNING."""
        self._warning = ""
        started_s = time.monotonic()
        bound = (
            hang_up_after(self.connection, self._commit_timeout_s)
            if self._commit_timeout_s
            else nullcontext()
        )
        try:
            with bound:
                yield
        except psycopg.Error as error:
            if self.connection.broken:
                took_s = time.monotonic() - started_s
                raise Unsure(
                    f"COMMIT did not come back within {took_s:.1f} s: its outcome is unknown"
                ) from error
            raise
        if self._warning:
            raise Unsure(f"COMMIT did not wait for a standby: {self._warning}")
        self.commit = Commit(time.monotonic() - started_s, self._is_guarded)

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # A wait that was cut short has no context; one of a trigger at the transaction's end has.
        if diagnostic.severity_nonlocalized == "WARNING" and not diagnostic.context:
            self._warning = diagnostic.message_primary or "a WARNING without words"

    def _apply(
        self, session: Session, batch: Sequence[Works | QuarantineRow], certnames: set[str]
    ) -> list[Settled]:
        by_kind: dict[int, list[Works]] = {}
        rows: list[QuarantineRow] = []
        for item in batch:
            if isinstance(item, QuarantineRow):
                rows.append(item)
            else:
                by_kind.setdefault(id(self._writers[type(item)]), []).append(item)
        self._lock(certnames)
        settled = []
        for writer in self._kinds:
            if works := by_kind.get(id(writer)):
                settled += writer.write(session, works)
        settled += self.quarantine.put(session, rows)
        return settled

    def _holders(self, certnames: set[str]) -> str:
        with suppress(psycopg.Error):
            return holders_of_nodes(self.connection, certnames)
        return ""

    def _lock(self, certnames: set[str]) -> None:
        generation, self._is_guarded = self._locks.take(certnames)
        if generation != self._generation:
            for writer in self._kinds:
                writer.forget()
            self._generation = generation
