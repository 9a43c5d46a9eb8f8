"""A writer process: gathers work of many nodes into one transaction, and reports what it settled.

A node's catalogs always come to the same writer of an instance. When the database is away it keeps what it
has, reads nothing more, and tries again: the queue behind it fills, and the broker keeps the rest.
"""

from __future__ import annotations

import random
import select
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection as ControlConnection

import structlog

from ingest.config.kinds import importance
from ingest.config.settings import Config
from ingest.core.delivery.backoff import Backoff
from ingest.core.delivery.gathering import BatchLimits, Gathering, Waiting, linger_s
from ingest.core.delivery.importance import RANKS
from ingest.core.delivery.work import (
    NO_FINGERPRINT,
    Outcome,
    Quarantine,
    SectionDigests,
    Settled,
    Work,
)
from ingest.core.metrics import Metric
from ingest.engine.database import Database
from ingest.engine.kinds import ranks_of_works, works_type
from ingest.engine.measuring import Lags
from ingest.engine.process import Ended, process_names, reloaded, start_process
from ingest.engine.quarantining import Quarantining, fact_alone
from ingest.errors import Rejected
from ingest.ipc.control import ChildChannels, Order
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import DIGESTS, IN_FLIGHT, RECEIVER, writer_name
from ingest.ipc.process_metrics import ProcessMetrics
from ingest.ipc.stored_digests import StoredDigests
from ingest.store.lane import Works
from ingest.store.quarantine import QuarantineRow

BACKOFF_START_S = 0.05
FIRST = writer_name(0)  # which tells the decoders what is stored
# At what has come for a batch that waits for company; pipes hold as much as comes meanwhile.
LOOKS_EVERY_S = 0.005


def run(config: Config, control: ControlConnection, name: str) -> None:
    """The body of the process: until the supervisor says "stop", or goes."""
    channels = ChildChannels(control, {"decoder": works_type()})
    with start_process(config, name, channels) as row:
        Writer(config, channels, row, name).loop()


class Writer:
    def __init__(self, config: Config, channels: ChildChannels, row: ProcessMetrics, name: str) -> None:
        self.config = config
        self.channels = channels
        self.row = row
        self.name = name
        self.log = structlog.get_logger()
        self._known = StoredDigests(channels.memory[DIGESTS])
        self._in_flight = InFlight(channels.memory[IN_FLIGHT], process_names(config))
        self._database = Database(config, self._in_flight, row, name)
        self._ranks = ranks_of_works()
        self._rank_of_command = importance().of_command
        # When the last batch ended that had something of that rank, or of a more important one.
        self._settled_s = [0.0] * len(RANKS)
        self._gathering: Gathering[Work] = Gathering(_limits(config), self._rank_of)
        self._pause = select.poll()  # for nothing
        self._quarantining = Quarantining(channels, row, name, self._in_flight, self._obey)

    def loop(self) -> None:
        self._until_connected()
        while True:
            # The receiver takes nothing until there is a connection: it must not wait for work to come.
            self._until_connected()
            if self.name == FIRST:
                self._learn()
            if not self._gather():
                continue
            batch = self._gathering.take()
            self._settle(batch)
            if ranks := [self._rank_of(work) for work in batch if not work.is_early]:
                self._settled_s[min(ranks) :] = [time.monotonic()] * (len(RANKS) - min(ranks))

    def _learn(self) -> None:
        for certname, raw_digest in self._database.learn():
            stored = self._known.get(certname)
            if stored is None or stored.raw_digest != raw_digest:
                self._known.put(certname, SectionDigests(NO_FINGERPRINT, raw_digest))

    # Gathering

    def _gather(self) -> bool:
        """Fills the batch: waits for the first item, then takes what comes until time, count or bytes are up. Something
        more important does not wait for as long as the rest would. Returns whether anything came before it was time to look
        for what others have stored."""
        waiting = Waiting()
        while not self._gathering.is_full:
            now_s = time.monotonic()
            if self._gathering.rank != waiting.rank and (rank := self._gathering.rank) is not None:
                since_s = now_s - self._settled_s[rank]
                waiting.begin(rank, linger_s(self._gathering.limits, since_s), now_s)
            if waiting.has_enough(len(self._gathering)):
                return True
            timeout_s = self._rest_s() if waiting.due_s is None else max(0.0, waiting.due_s - now_s)
            ready = self.channels.selector.select(timeout_s)
            for key, _ in ready:
                if key.data == "control":
                    self._obey()
                    break  # it may have replaced an inbox that is in this list: what is ready says so again
                self._receive(key.data)
                waiting.came(time.monotonic())
            if not ready or (self._gathering and timeout_s == 0.0):
                if not waiting.goes_on(self._gathering.limits, time.monotonic()):
                    return bool(self._gathering)
            elif waiting.due_s is not None and not self._gathering.is_full:
                # To wake up for each that comes costs this process a twelfth more, and whoever sends pays for waking it.
                left_s = min(LOOKS_EVERY_S, waiting.due_s - time.monotonic())
                # Not sleep(), which follows a clock that somebody sets.
                self._pause.poll(max(0.0, left_s * 1000))
        return True

    def _rest_s(self) -> float | None:
        return self._database.learns_in_s if self.name == FIRST else None

    def _rank_of(self, work: Work) -> int:
        return self._rank_of_command(work.kind) if isinstance(work, Quarantine) else self._ranks[type(work)]

    def _obey(self) -> None:
        message = self.channels.control()
        if isinstance(message, Order) and message.word == "stop":
            raise Ended
        if isinstance(message, Order) and message.word == "reload":
            self.config = reloaded(message.detail)
            self._gathering.limits = _limits(self.config)
            self._database.reload(self.config)

    def _receive(self, peer: str) -> None:
        inbox = self.channels.inboxes.get(peer)
        if inbox is None:
            return
        try:
            while not self._gathering.is_full:
                works, together_bytes = inbox.receive_sized()
                # Of what goes to quarantine the body comes along, from where it lies.
                together_bytes += sum(work.length for work in works if isinstance(work, Quarantine))
                self._gathering.add(works, together_bytes)
                if not inbox.poll():
                    return
        except EOFError:
            self.channels.drop_inbox(peer)

    # Settling

    def _settle(self, batch: Sequence[Work], *, asked_before: bool = False) -> None:
        """Brings the whole batch to an end, however often the database must be asked."""
        started_s = time.monotonic()
        if messages := sum(not work.is_early for work in batch):
            self.row.observe(Metric.BATCH_MESSAGES, messages)
        try:
            self._apply_until_settled(batch)
        except Rejected as error:
            if len(batch) > 1:
                # Somewhere in it stands one that PostgreSQL refuses: its neighbours shall not wait for it.
                middle = len(batch) // 2
                self._settle(batch[:middle])
                self._settle(batch[middle:])
            elif not asked_before:
                # What somebody does to the tables at this very moment can look like a refusal; that passes.
                self._settle(batch, asked_before=True)
            else:
                self._refuse(batch[0], error)
            return
        self.row.observe(Metric.BATCH_SECONDS, time.monotonic() - started_s)

    def _apply_until_settled(self, batch: Sequence[Work]) -> None:
        present: list[Works | QuarantineRow] = [
            *(work for work in batch if not isinstance(work, Quarantine)),
            *self._quarantining.rows(batch, self.config.quarantine_unnamed_max),
        ]
        lone = batch[0].delivery if len(batch) == 1 else 0
        settled = self._until_done(lambda: self._database.apply(present), lone)
        self._report(batch, settled)
        self._trim_quarantine()

    def _until_done(self, apply: Callable[[], list[Settled] | None], held: int = 0) -> list[Settled]:
        """However often the database must be asked."""
        backoff = Backoff(BACKOFF_START_S)
        while True:
            self._in_flight.hold(self.name, held)
            try:
                done = apply()
            finally:
                self._in_flight.empty(self.name)
            if done is not None:
                return done
            self._wait(backoff.pause_s(self.config.backoff_max_s, random.random()))

    def _report(self, batch: Sequence[Work], settled: list[Settled]) -> None:
        outcomes = {s.delivery: s.outcome for s in settled}
        lags = Lags(datetime.now(UTC))
        for work in batch:
            if outcomes.get(work.delivery) not in (Outcome.STORED, Outcome.UNCHANGED):
                continue
            # It says what is there now: with that the decoders compare what comes next of its node.
            sections = getattr(work, "sections", None)
            if sections is not None:
                self._known.put(work.certname or "", sections)
            lags.stored(work, self._rank_of(work), is_catalog=sections is not None)
        lags.tell(self.row)
        counts = self._database.counts
        self.row.add(Metric.ROWS_WRITTEN, counts.rows_written)
        self.row.add(Metric.BYTES_COPIED, counts.bytes_copied)
        self.row.add(Metric.RESOURCES_NEW, counts.resources_new)
        stored = sum(outcome is Outcome.STORED for outcome in outcomes.values())
        if stored:
            self.log.debug(
                "batch_stored", catalogs=stored, batch=len(batch), rows_written=counts.rows_written
            )
        self.row.add(Metric.QUARANTINE_THINNED, self._database.thinned)
        self._quarantining.tell(batch)
        self.channels.outboxes[RECEIVER].send(settled)

    def _refuse(self, work: Work, rejected: Rejected) -> None:
        """PostgreSQL will not have this one, alone as it is."""
        if work.is_early:
            return  # its catalog comes again, for what it finds missing, and is refused as a whole
        if not isinstance(work, Quarantine):
            # The quarantine keeps the body as it came, and only the receiver knows where that lies.
            verdict = (rejected.reason, rejected.text)
            self.channels.outboxes[RECEIVER].send([Settled(work.delivery, Outcome.REDO, verdict)])
            return
        # Its own row is refused: keep the fact, not the body.
        row = fact_alone(work, rejected)
        self._quarantining.tell([work])
        self.channels.outboxes[RECEIVER].send(self._until_done(lambda: self._database.apply_fact(row)))

    def _trim_quarantine(self) -> None:
        if dropped := self._database.trim_quarantine():
            self.row.add(Metric.QUARANTINE_THINNED, dropped)
            self.log.warning(
                "quarantine_trimmed", dropped=dropped, note="'ingest quarantine list' shows what is there"
            )

    # The database

    def _until_connected(self) -> None:
        backoff = Backoff(BACKOFF_START_S)
        while not self._database.connected():
            self._wait(backoff.pause_s(self.config.backoff_max_s, random.random()))

    def _wait(self, seconds: float) -> None:
        """Waits without reading work, but listening to the supervisor."""
        deadline = time.monotonic() + seconds
        with self.channels.only_control() as selector:
            while (left := deadline - time.monotonic()) > 0:
                if selector.select(left):
                    self._obey()


def _limits(config: Config) -> BatchLimits:
    return BatchLimits(config.batch_messages_max, config.batch_bytes_max, config.batch_linger_ms / 1000)
