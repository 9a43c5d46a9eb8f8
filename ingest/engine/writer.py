"""A writer process: gathers work of many nodes into one transaction, and reports what it settled.

A node's catalogs always come to the same writer of an instance. When the database is away it keeps what it
has, reads nothing more, and tries again: the queue behind it fills, and the broker keeps the rest.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import time
import zlib
from collections.abc import Sequence
from multiprocessing.connection import Connection as ControlConnection

import structlog

from ingest.config.settings import Config
from ingest.core.delivery.work import (
    NO_FINGERPRINT,
    Ahead,
    Claim,
    Full,
    Outcome,
    Quarantine,
    SectionDigests,
    Settled,
    Work,
)
from ingest.core.metrics import Metric
from ingest.core.secrets import redact
from ingest.engine.process import Ended, process_names, reloaded, start_process
from ingest.errors import Misconfigured, Refused, Rejected, Unavailable
from ingest.ipc.control import ChildChannels, Order
from ingest.ipc.in_flight import InFlight
from ingest.ipc.process_metrics import ProcessMetrics
from ingest.ipc.stored_digests import StoredDigests
from ingest.store.connection import SESSION_TOKEN_BITS, connect, end_session, hang_up_after
from ingest.store.quarantine import QuarantineLimits, QuarantineRow
from ingest.store.writing import Lane

BACKOFF_START_S = 0.05
COMPLAIN_EVERY_S = 30.0  # about the same trouble
PAUSE = 2  # times the linger, without a batch


def run(config: Config, control: ControlConnection, name: str) -> None:
    """The body of the process: until the supervisor says "stop", or goes."""
    wires = ChildChannels(control, {"decoder": list[Work]})
    with start_process(config, name, wires) as row:
        Writer(config, wires, row, name).loop()


class Writer:
    def __init__(self, config: Config, wires: ChildChannels, row: ProcessMetrics, name: str) -> None:
        self.config = config
        self.wires = wires
        self.row = row
        self.name = name
        self.log = structlog.get_logger()
        self._known = StoredDigests(wires.memory["known"])
        self._hands = InFlight(wires.memory["hands"], process_names(config))
        self._lane: Lane | None = None
        self._is_stale = False  # the lane was opened under settings that have changed
        self._away_because: str | None = None  # why the last batch could not be settled
        self._complain_at_s = 0.0
        self._settled_s = 0.0  # the last batch
        self._batch: list[Work] = []
        self._batch_bytes = 0
        self._last_bytes = 0  # of what came together last

    def loop(self) -> None:
        if self._connected() and self.name == "writer-0":
            self._publish_hints()
        while True:
            self._gather()
            batch = self._taken()
            self._settle(batch)
            if not all(isinstance(work, Ahead) for work in batch):
                self._settled_s = time.monotonic()

    # Gathering

    def _gather(self) -> None:
        """Fills the batch: waits for the first item, then takes what comes until time, count or bytes are up. After a
        pause nobody is to be expected, and the first item is not kept waiting for company."""
        deadline: float | None = None
        while not self._is_full():
            if self._batch and deadline is None:
                deadline = time.monotonic() + self._linger_s()
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = self.wires.selector.select(timeout)
            for key, _ in ready:
                if key.data == "control":
                    self._obey()
                    break  # it may have replaced an inbox that is in this list: what is ready says so again
                self._receive(key.data)
            if self._batch and (timeout == 0.0 or not ready):
                return

    def _linger_s(self) -> float:
        linger_s = self.config.batch_linger_ms / 1000
        return linger_s if time.monotonic() - self._settled_s < PAUSE * linger_s else 0.0

    def _taken(self) -> list[Work]:
        """The batch. What came together with its last ones may be too many: that begins the next one, and counts there as
        all that came with it, because a whole catalog may stand behind the claims."""
        most = self.config.batch_messages_max
        batch, self._batch = self._batch[:most], self._batch[most:]
        self._batch_bytes = self._last_bytes if self._batch else 0
        return batch

    def _is_full(self) -> bool:
        return (
            len(self._batch) >= self.config.batch_messages_max
            or self._batch_bytes >= self.config.batch_bytes_max
        )

    def _obey(self) -> None:
        message = self.wires.control()
        if isinstance(message, Order) and message.word == "stop":
            raise Ended
        if isinstance(message, Order) and message.word == "reload":
            self.config = reloaded(message.detail)
            self._is_stale = True

    def _receive(self, peer: str) -> None:
        inbox = self.wires.inboxes.get(peer)
        if inbox is None:
            return
        try:
            while not self._is_full():
                works, self._last_bytes = inbox.receive_sized()
                self._batch += works
                self._batch_bytes += self._last_bytes
                if not inbox.poll():
                    return
        except EOFError:
            self.wires.drop_inbox(peer)

    # Settling

    def _settle(self, batch: Sequence[Work], *, asked_before: bool = False) -> None:
        """Brings the whole batch to an end, however often the database must be asked."""
        started_s = time.monotonic()
        if messages := sum(not isinstance(work, Ahead) for work in batch):
            self.row.observe(Metric.BATCH_MESSAGES, messages)
        try:
            self._apply_until_settled(batch)
        except (Rejected, Refused) as error:
            if len(batch) > 1:
                # Somewhere in it stands one that PostgreSQL or the quarantine refuses: its neighbours shall not
                # wait for it.
                middle = len(batch) // 2
                self._settle(batch[:middle])
                self._settle(batch[middle:])
            elif isinstance(error, Rejected) and not asked_before:
                # What somebody does to the tables at this very moment can look like a refusal; that passes.
                self._settle(batch, asked_before=True)
            elif isinstance(error, Rejected):
                self._refuse(batch[0], error)
            else:
                self._stop_engine(error)
            return
        self.row.observe(Metric.BATCH_SECONDS, time.monotonic() - started_s)

    def _apply_until_settled(self, batch: Sequence[Work]) -> None:
        rows = [self._row_of(work) if isinstance(work, Quarantine) else work for work in batch]
        present = [row for row in rows if row is not None]
        lone = batch[0].delivery if len(batch) == 1 else 0
        backoff_s = BACKOFF_START_S
        while True:
            if self._connected():
                assert self._lane is not None
                self._hands.hold(self.name, lone)
                try:
                    with hang_up_after(self._lane.connection, self.config.database_patience_s):
                        settled = self._lane.apply(present)
                except (Unavailable, Misconfigured) as error:
                    # A lost privilege or table is no fault of these messages: they wait until somebody mends it.
                    self._database_away(error)
                else:
                    self._database_back()
                    self._report(batch, settled)
                    return
                finally:
                    self._hands.empty(self.name)
            self._wait(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, self.config.backoff_max_s)

    def _report(self, batch: Sequence[Work], settled: list[Settled]) -> None:
        outcomes = {s.delivery: s.outcome for s in settled}
        for work in batch:
            if isinstance(work, Claim | Full) and outcomes.get(work.delivery) in (
                Outcome.STORED,
                Outcome.UNCHANGED,
            ):
                self._known.put(work.header.certname, work.sections)
        assert self._lane is not None
        counts = self._lane.counts
        self.row.add(Metric.ROWS_WRITTEN, counts.rows_written)
        self.row.add(Metric.BYTES_COPIED, counts.bytes_copied)
        self.row.add(Metric.RESOURCES_NEW, counts.resources_new)
        stored = sum(outcome is Outcome.STORED for outcome in outcomes.values())
        if stored:
            self.log.debug(
                "batch_stored", catalogs=stored, batch=len(batch), rows_written=counts.rows_written
            )
        for work in batch:
            if isinstance(work, Quarantine):
                self.log.warning(
                    "message_quarantined", reason=work.reason, detail=work.detail, certname=work.certname
                )
        self.wires.outboxes["receiver"].send(settled)

    def _refuse(self, work: Work, rejected: Rejected) -> None:
        """PostgreSQL will not have this one, alone as it is."""
        if isinstance(work, Ahead):
            return  # its catalog comes again, for what it finds missing, and is refused as a whole
        if not isinstance(work, Quarantine):
            # The quarantine keeps the body as it came, and only the receiver knows where that lies.
            verdict = (rejected.reason, rejected.text)
            self.wires.outboxes["receiver"].send([Settled(work.delivery, Outcome.REDO, verdict)])
            return
        # Its own row is refused: keep the fact, not the body.
        row = QuarantineRow(
            work.delivery, hashlib.sha256(str(work.delivery).encode()).digest(), work.reason,
            rejected.text.replace("\0", ""), None, {}, None, "refused by PostgreSQL: not kept", work.body_bytes,
        )  # fmt: skip
        self.log.warning("message_quarantined", reason=row.reason, detail=row.detail, certname=row.certname)
        self._apply_quarantine(row)

    def _apply_quarantine(self, row: QuarantineRow) -> None:
        backoff_s = BACKOFF_START_S
        while True:
            if self._connected():
                assert self._lane is not None
                try:
                    with hang_up_after(self._lane.connection, self.config.database_patience_s):
                        settled = self._lane.apply([row])
                    self.wires.outboxes["receiver"].send(settled)
                except (Unavailable, Misconfigured) as error:
                    self._database_away(error)
                except Refused as refused:
                    self._stop_engine(refused)
                else:
                    self._database_back()
                    return
            self._wait(backoff_s)
            backoff_s = min(backoff_s * 2, self.config.backoff_max_s)

    def _stop_engine(self, refused: Refused) -> None:
        """Asks for the end, and settles nothing more: the broker keeps what is not acknowledged."""
        self.wires.report("stop", str(refused))
        while True:
            self._wait(3600)

    def _row_of(self, work: Quarantine) -> QuarantineRow | None:
        """The row to write, its secrets redacted; None when the body's owner is gone, or has settled it otherwise."""
        while work.arena > max(self.wires.arenas, default=0):
            self._obey()  # a new receiver's: its arena was handed over before anybody could send this, and is on its way
        arena = self.wires.arenas.get(work.arena)
        if arena is None:
            return None
        body = bytes(arena.view(work.offset, work.length))
        if zlib.crc32(body) != work.body_crc32:
            return None
        kept, note = redact(body)
        if work.body_bytes > len(body):
            note = "too large: not kept"
        headers = {name: value.replace("\0", "") for name, value in work.headers.items()}
        digest = hashlib.sha256(work.reason.encode() + b"\0" + body)
        if not body:
            digest.update(f"{work.body_bytes} {work.headers.get('message-id')}".encode())
        return QuarantineRow(
            delivery=work.delivery,
            digest=digest.digest(),
            reason=work.reason,
            detail=work.detail.replace("\0", "")[:2000],
            certname=work.certname.replace("\0", "") if work.certname else None,
            headers=headers,
            body=kept if work.length else None,
            body_note=note,
            body_bytes=work.body_bytes,
        )

    # The database

    def _connected(self) -> bool:
        """Whether there is a connection now; tries to make one. A refused login is waited out like an outage:
        the engine was started with a working one."""
        if self._lane is not None and not self._is_stale:
            return True
        if self._lane is not None:
            self._lane.connection.close()
            self._lane = None
        self._is_stale = False
        left, token = self._hands.session(self.name), secrets.randbits(SESSION_TOKEN_BITS)
        try:
            connection = connect(
                self.config.database,
                application_name=f"ingest {self.name}",
                connect_timeout_s=self.config.connect_timeout_s,
                statement_timeout_s=self.config.statement_timeout_s,
                lock_timeout_s=self.config.lock_timeout_s,
                session_token=token,
            )
            limits = QuarantineLimits(
                self.config.quarantine_messages_max, self.config.quarantine_per_minute_max
            )
            with hang_up_after(connection, self.config.database_patience_s):
                if left and end_session(connection, left):
                    self.log.info("session_left_behind", note="ended it")
                self._hands.open_session(self.name, token)
                self._lane = Lane(connection, self.config.writer_cache_entries, limits)
        except (Unavailable, Misconfigured) as error:
            self._database_away(error)
            return False
        if self._away_because is None:
            self.row.set(Metric.DATABASE_UP, 1)
        self.row.add(Metric.DATABASE_CONNECTIONS)
        return True

    def _database_away(self, error: Exception) -> None:
        """Not ready until a batch is settled again: a connection alone is no sign that what failed is mended."""
        reason, now_s = str(error), time.monotonic()
        if reason != self._away_because or now_s >= self._complain_at_s:
            self.log.warning("database_unavailable", reason=reason)
            self._complain_at_s = now_s + COMPLAIN_EVERY_S
        self._away_because = reason
        self.row.set(Metric.DATABASE_UP, 0)
        if self._lane is not None:
            self._lane.connection.close()
            self._lane = None

    def _database_back(self) -> None:
        if self._away_because is not None:
            self._away_because = None
            self.row.set(Metric.DATABASE_UP, 1)

    def _wait(self, seconds: float) -> None:
        """Waits without reading work, but listening to the supervisor."""
        deadline = time.monotonic() + seconds
        with self.wires.only_control() as selector:
            while (left := deadline - time.monotonic()) > 0:
                if selector.select(left):
                    self._obey()

    def _publish_hints(self) -> None:
        assert self._lane is not None
        try:
            with hang_up_after(self._lane.connection, self.config.database_patience_s):
                for certname, raw_digest in self._lane.hints():
                    self._known.put(certname, SectionDigests(NO_FINGERPRINT, raw_digest))
        except (Unavailable, Misconfigured) as error:
            self._database_away(error)  # they are only hints
