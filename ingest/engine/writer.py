"""A writer process: gathers work of many nodes into one transaction, and reports what it settled.

A node's catalogs always come to the same writer of an instance. When the database is away it keeps what it
has, reads nothing more, and tries again: the queue behind it fills, and the broker keeps the rest.
"""

from __future__ import annotations

import hashlib
import random
import time
import zlib
from collections.abc import Sequence
from multiprocessing.connection import Connection as ControlConnection
from typing import NoReturn

import structlog

from ingest.config.settings import Config
from ingest.core.delivery.backoff import Backoff
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
from ingest.engine.database import Database
from ingest.engine.process import Ended, process_names, reloaded, start_process
from ingest.errors import Refused, Rejected
from ingest.ipc.control import ChildChannels, Order
from ingest.ipc.in_flight import InFlight
from ingest.ipc.process_metrics import ProcessMetrics
from ingest.ipc.stored_digests import StoredDigests
from ingest.store.quarantine import QuarantineRow
from ingest.store.session import Counts

BACKOFF_START_S = 0.05
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
        self._database = Database(config, self._hands, row, name)
        self._settled_s = 0.0  # the last batch
        self._batch: list[Work] = []
        self._batch_bytes = 0
        self._last_bytes = 0  # of what came together last

    def loop(self) -> None:
        self._until_connected()
        if self.name == "writer-0":
            for certname, raw_digest in self._database.hints():
                self._known.put(certname, SectionDigests(NO_FINGERPRINT, raw_digest))
        while True:
            # The receiver takes nothing until there is a connection: it must not wait for work to come.
            self._until_connected()
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
            self._database.reload(self.config)

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
        self._report(batch, *self._apply(present, lone))

    def _apply(self, rows: Sequence[Work | QuarantineRow], held: int = 0) -> tuple[list[Settled], Counts]:
        """However often the database must be asked."""
        backoff = Backoff(BACKOFF_START_S)
        while True:
            self._hands.hold(self.name, held)
            try:
                done = self._database.apply(rows)
            finally:
                self._hands.empty(self.name)
            if done is not None:
                return done
            self._wait(backoff.pause_s(self.config.backoff_max_s, random.random()))

    def _report(self, batch: Sequence[Work], settled: list[Settled], counts: Counts) -> None:
        outcomes = {s.delivery: s.outcome for s in settled}
        for work in batch:
            if isinstance(work, Claim | Full) and outcomes.get(work.delivery) in (
                Outcome.STORED,
                Outcome.UNCHANGED,
            ):
                self._known.put(work.header.certname, work.sections)
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
        try:
            settled, _ = self._apply([row])
        except Refused as refused:
            self._stop_engine(refused)
        self.wires.outboxes["receiver"].send(settled)

    def _stop_engine(self, refused: Refused) -> NoReturn:
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

    def _until_connected(self) -> None:
        backoff = Backoff(BACKOFF_START_S)
        while not self._database.connected():
            self._wait(backoff.pause_s(self.config.backoff_max_s, random.random()))

    def _wait(self, seconds: float) -> None:
        """Waits without reading work, but listening to the supervisor."""
        deadline = time.monotonic() + seconds
        with self.wires.only_control() as selector:
            while (left := deadline - time.monotonic()) > 0:
                if selector.select(left):
                    self._obey()
