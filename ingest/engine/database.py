"""A writer's line to PostgreSQL: opens it, applies batches within its time limits, gives it up when it fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import version

import structlog

from ingest.config.settings import Config
from ingest.core.delivery.work import Settled
from ingest.core.metrics import Metric
from ingest.core.times import EPOCH
from ingest.engine.kinds import open_lane
from ingest.engine.learning import Learning
from ingest.errors import Misconfigured, Rejected, Unavailable
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import RECEIVER, SUPERVISOR
from ingest.ipc.process_metrics import ProcessMetrics
from ingest.store.asking import Asking
from ingest.store.catalog.reading import StoredDigest
from ingest.store.connection import Connection, Name, connect, end_session, name_of
from ingest.store.failover import Cluster, is_hosts_fault
from ingest.store.lane import Lane, LaneSettings, Works
from ingest.store.quarantine import QuarantineLimits, QuarantineRow
from ingest.store.session import Counts

VERSION = version("puppet-ingest")  # a session's name tells it, for whoever looks at a rolling upgrade
COMPLAIN_EVERY_S = 30.0  # of the same trouble
TABLE_FAULT = (
    "look for a trigger, constraint or rule on it that is not ours: nothing is settled until it is mended"
)


class Database:
    """``DATABASE_UP`` is what others go by: a connection is not enough for it after a batch has failed; only the next
    commit is."""

    def __init__(self, config: Config, in_flight: InFlight, row: ProcessMetrics, name: str) -> None:
        self._config = config
        self._in_flight = in_flight
        self._row = row
        self._name = name
        self._log = structlog.get_logger()
        self._lane: Lane | None = None
        self._is_stale = False  # the lane was opened under settings that have changed
        self._failed = False  # the last batch
        self._complained: tuple[str, float] | None = None  # of what, and when, since a batch was settled
        self.counts = Counts()  # of the last batch
        self.thinned = 0  # bad messages of the last batch that were counted and not kept
        self._cluster = Cluster(config.database, self._connect)
        self._learning = Learning()
        row.set(Metric.DATABASE_UP, 0)  # a predecessor's word

    def reload(self, config: Config) -> None:
        """For the next connection."""
        if config.database != self._config.database:
            self._cluster = Cluster(config.database, self._connect)
        self._config = config
        self._is_stale = True

    def connected(self) -> bool:
        """Whether there is a connection now; tries to make one. A refused login is waited out like an outage:
        the engine was started with a working one."""
        if self._lane is not None and not self._is_stale:
            return True
        self._close()
        self._is_stale = False
        try:
            self._open()
        # Rejected: no message was sent yet that could be refused.
        except (Unavailable, Misconfigured, Rejected) as error:
            self._away(error)
            return False
        self._row.set(Metric.DATABASE_UP, not self._failed)
        self._row.add(Metric.DATABASE_CONNECTIONS)
        return True

    def apply(self, rows: Sequence[Works | QuarantineRow]) -> list[Settled] | None:
        """Settles them in one transaction; None when the database is away. Raises Rejected."""
        if not self.connected():
            return None
        assert self._lane is not None
        try:
            with self._cluster.watching(self._lane.connection, self._config.database_patience_s):
                settled = self._lane.apply(rows)
                self._cluster.confirm(self._lane.connection, self._lane.commit)
        except (Unavailable, Misconfigured) as error:
            # A lost privilege or table is no fault of these messages: they wait until somebody mends it.
            self._failed = True
            self._away(error)
            return None
        self._failed = False
        self._learning.worked()
        self._complained = None
        self._row.set(Metric.DATABASE_UP, 1)
        self.counts = self._lane.counts
        self.thinned = self._lane.quarantine.thinned
        return settled

    def apply_fact(self, row: QuarantineRow) -> list[Settled] | None:
        """The same for a row that holds nothing that a message said: if that is refused, it is the table's fault."""
        try:
            return self.apply([row])
        except Rejected as error:
            self._failed = True
            self._away(Unavailable(f"{error}: the table quarantine refuses every row, {TABLE_FAULT}"))
            return None

    def trim_quarantine(self) -> int:
        """How many rows and bodies were dropped because there are too many."""
        if self._lane is None or not self._lane.quarantine.may_be_full:
            return 0
        try:
            with self._cluster.watching(self._lane.connection, self._config.database_patience_s):
                return self._lane.quarantine.trim(self._lane.connection)
        except (Unavailable, Misconfigured, Rejected) as error:
            self._away(error)  # what was settled is settled; the next batch looks again
            return 0

    @property
    def learns_in_s(self) -> float | None:
        """When to look for what others have stored; None: not before the next batch."""
        return self._learning.due_in_s()

    def learn(self) -> list[StoredDigest]:
        """What is stored; nothing when the database is away, or it is too early: it only saves work."""
        if self._learning.due_in_s() != 0.0 or not self.connected():
            return []
        assert self._lane is not None
        try:
            with self._cluster.watching(self._lane.connection, self._config.database_patience_s):
                return self._learning.news(self._lane.connection)
        except (Unavailable, Misconfigured, Rejected) as error:
            self._away(error)
            return []

    def _asking(self) -> Asking:
        new_since = self._in_flight.new_since(RECEIVER)
        return Asking(
            self._in_flight.held_since(SUPERVISOR),
            EPOCH + timedelta(microseconds=new_since) if new_since else None,
        )

    def _open(self) -> None:
        connection = self._cluster.connect()
        limits = QuarantineLimits(
            self._config.quarantine_bytes_max,
            self._config.quarantine_rows_max,
            self._config.quarantine_unnamed_max,
        )
        tolerance = timedelta(seconds=self._config.future_tolerance_s)
        settings = LaneSettings(
            self._config.writer_cache_entries,
            limits,
            tolerance,
            self._config.commit_timeout_s,
            self._asking,
            timedelta(seconds=self._config.report_ttl_s) or None,
            timedelta(seconds=self._config.resource_events_ttl_s),
        )
        try:
            with self._cluster.watching(connection, self._config.database_patience_s):
                left = self._in_flight.session(self._name)
                if left and end_session(connection, Name(*left)):
                    self._log.info("session_left_behind", backend_pid=left[0], note="ended it")
                self._in_flight.open_session(self._name, *name_of(connection))
                self._lane = open_lane(connection, settings)
        except Unavailable:
            self._cluster.leave()
            connection.close()
            raise

    def _connect(self, conninfo: str, timeout_s: float | None) -> Connection:
        return connect(
            conninfo,
            application_name=f"ingest {self._name} {VERSION}",
            connect_timeout_s=timeout_s or self._config.connect_timeout_s,
            statement_timeout_s=timeout_s or self._config.statement_timeout_s,
            lock_timeout_s=self._config.lock_timeout_s,
        )

    def _away(self, error: Exception) -> None:
        self._row.set(
            Metric.DATABASE_UP, 0
        )  # first: what goes by it shall not be behind what a reader of the log knows
        reason, now_s = str(error), time.monotonic()
        if (
            self._complained is None
            or self._complained[0] != reason
            or now_s >= self._complained[1] + COMPLAIN_EVERY_S
        ):
            self._log.warning("database_unavailable", reason=reason)
            self._complained = reason, now_s
        if self._lane is not None and is_hosts_fault(error, self._lane.connection):
            self._cluster.leave()
        self._close()

    def _close(self) -> None:
        if self._lane is not None:
            self._lane.connection.close()
            self._lane = None
