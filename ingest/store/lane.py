"""One transaction of a writer: takes a batch of work, of any kinds, and settles it.

The order of locks is the same for everybody: content lock (shared), nodes by key, names, content by digest,
quarantine by digest. That is why several writers and several instances meet no deadlock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from ingest.core.delivery.batching import FUTURE_TOLERANCE
from ingest.core.delivery.work import Settled
from ingest.store.connection import Connection, translate_errors
from ingest.store.locks import CONTENT_LOCK, NODE_LOCK, node_key
from ingest.store.quarantine import Quarantine, QuarantineLimits, QuarantineRow
from ingest.store.queries import query
from ingest.store.session import Counts, Session


class LaneSettings(NamedTuple):
    """What a lane and the writers of kinds in it need to know."""

    cache_entries_max: int
    quarantine_limits: QuarantineLimits = QuarantineLimits()
    future_tolerance: timedelta = FUTURE_TOLERANCE


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

    def prepare(self, connection: Connection) -> None:
        """Once for each connection, outside of a transaction: staging tables."""

    def write(self, session: Session, works: Sequence[Any]) -> list[Settled]:
        """Settles these in the transaction that holds the locks of their nodes."""

    def committed(self) -> None:
        """What was found in the last transaction is so."""

    def rolled_back(self) -> None:
        """What was found in the last transaction never was."""

    def forget(self) -> None:
        """Content was collected: an id that is remembered may be gone."""


class Lane:
    """The store as one writer uses it: a connection, what the kinds remember, one batch at a time."""

    def __init__(
        self,
        connection: Connection,
        writers: Mapping[type, KindWriter],
        quarantine_limits: QuarantineLimits | None = None,
    ) -> None:
        """``writers`` by the classes of work, in the order in which a batch is written."""
        self.connection = connection
        self.counts = Counts()  # of the last batch
        self.quarantine = Quarantine(quarantine_limits or QuarantineLimits())
        self._writers = writers
        self._kinds = list({id(writer): writer for writer in writers.values()}.values())
        self._generation: object = None
        with translate_errors():
            for writer in self._kinds:
                writer.prepare(connection)

    def apply(self, batch: Sequence[Works | QuarantineRow]) -> list[Settled]:
        """Settles a batch in one transaction. Raises Unavailable, or Rejected (PostgreSQL refuses something in it);
        nothing happened then, and halves of the batch may fare better."""
        try:
            with translate_errors(), self.connection.transaction(), self.connection.cursor() as cursor:
                session = Session(cursor)
                self.counts = session.counts
                settled = self._apply(session, batch)
        except BaseException:
            for writer in self._kinds:
                writer.rolled_back()
            raise
        for writer in self._kinds:
            writer.committed()
        return settled

    def _apply(self, session: Session, batch: Sequence[Works | QuarantineRow]) -> list[Settled]:
        by_kind: dict[int, list[Works]] = {}
        rows: list[QuarantineRow] = []
        for item in batch:
            if isinstance(item, QuarantineRow):
                rows.append(item)
            else:
                by_kind.setdefault(id(self._writers[type(item)]), []).append(item)
        named = {work.certname for works in by_kind.values() for work in works if not work.is_early}
        self._lock(session, named)
        settled = []
        for writer in self._kinds:
            if works := by_kind.get(id(writer)):
                settled += writer.write(session, works)
        settled += self.quarantine.put(session, rows)
        return settled

    def _lock(self, session: Session, certnames: set[str]) -> None:
        session.cursor.execute(query("lock_content"), [CONTENT_LOCK])
        if certnames:
            keys = sorted({node_key(certname) for certname in certnames})
            session.cursor.execute(query("lock_nodes"), [NODE_LOCK, keys])
        session.cursor.execute(query("content_generation"))
        row = session.cursor.fetchone()
        generation = None if row is None else row[0]
        if generation != self._generation:
            for writer in self._kinds:
                writer.forget()
            self._generation = generation
