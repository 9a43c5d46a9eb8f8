"""A decoder process: pure CPU. Takes descriptors from the receiver, gives work to the writers."""

from __future__ import annotations

import resource as limits
import time
import zlib
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection as ControlConnection
from pathlib import Path

import structlog

from ingest.config.producers import load_producer_rules
from ingest.config.settings import Config
from ingest.core.catalog.decoding import Decoding, lane_of
from ingest.core.catalog.formats import Other, skim
from ingest.core.delivery.arrival import believable, time_of
from ingest.core.delivery.naming import END_BYTES, START_BYTES, look
from ingest.core.delivery.producers import PUBLISHER
from ingest.core.delivery.work import Ahead, Claim, Deactivate, Descriptor, Forwarded, Full, Quarantine, Work
from ingest.core.metrics import Metric
from ingest.core.printable import escape_unprintable
from ingest.engine.process import Ended, process_names, reloaded, start_process
from ingest.errors import Misconfigured, Rejected
from ingest.ipc.arena import Arena
from ingest.ipc.control import ChildChannels, Order
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import RECEIVER, writer_name
from ingest.ipc.process_metrics import ProcessMetrics
from ingest.ipc.stored_digests import StoredDigests
from ingest.observe.seldom import Seldom

FUTURE_LOGGED_EVERY_S = 60.0  # by each decoder; the metric counts every one
CLAIMS_TOGETHER_BYTES = 2 * 1024 * 1024  # of bodies; less than half a millisecond of work


def run(config: Config, control: ControlConnection, name: str) -> None:
    """The body of the process: until the supervisor says "stop", or goes."""
    wires = ChildChannels(control, {RECEIVER: list[Descriptor]})
    with start_process(config, name, wires) as row:
        # A successor of the receiver brings another arena before the old one is gone.
        _limit_memory(config.decode_memory_bytes_max + config.window_bytes_max)
        Decoder(config, wires, row, name).loop()


class Decoder:
    def __init__(self, config: Config, wires: ChildChannels, row: ProcessMetrics, name: str) -> None:
        self.config = config
        self.wires = wires
        self.row = row
        self.name = name
        self.log = structlog.get_logger()
        self._known = StoredDigests(wires.memory["known"])
        self.decoding = Decoding(
            config.decoder_cache_bytes_max,
            seed=self._known.seed,
            lanes=config.writers,
            thin=config.thin_storeconfigs,
            send_ahead=self._send_ahead,
        )
        self._rules = load_producer_rules(config.producers_file)
        self._future = Seldom(FUTURE_LOGGED_EVERY_S)
        self._hands = InFlight(wires.memory["hands"], process_names(config))

    def loop(self) -> None:
        while True:
            for key, _ in self.wires.selector.select():
                if key.data == "control":
                    message = self.wires.control()
                    if isinstance(message, Order) and message.word == "stop":
                        raise Ended
                    if isinstance(message, Order) and message.word == "reload":
                        self._reload(reloaded(message.detail))
                    break  # it may have replaced an inbox that is in this list: what is ready says so again
                self._receive(key.data)

    def _reload(self, config: Config) -> None:
        self.config = config
        try:
            self._rules = load_producer_rules(config.producers_file)
        except Misconfigured as error:  # it was right a moment ago, when the supervisor read it
            self.log.warning("producers_not_reloaded", reason=str(error))

    def _receive(self, peer: str) -> None:
        inbox = self.wires.inboxes.get(peer)
        if inbox is None:
            return
        try:
            descriptors = inbox.receive()
        except EOFError:
            self.wires.drop_inbox(peer)
            return
        done: list[Work] = []
        done_bytes = 0
        for descriptor in descriptors:
            arena = self.wires.arenas.get(descriptor.arena)
            if arena is None:
                continue  # of a receiver that is gone: the broker delivers it again
            done.append(self._timed(descriptor, arena))
            done_bytes += descriptor.length
            # Claims are small and quickly made: they go together. Who waits for more does not wait for long.
            if done_bytes >= CLAIMS_TOGETHER_BYTES or not isinstance(done[-1], Claim):
                self._pass(done)
                done, done_bytes = [], 0
        self._pass(done)

    def _timed(self, descriptor: Descriptor, arena: Arena) -> Work:
        self._hands.hold(self.name, descriptor.delivery)
        started_s = time.process_time()
        work = self._decode(descriptor, arena.view(descriptor.offset, descriptor.length))
        self.row.add(Metric.DECODED)
        self.row.add(Metric.DECODE_CPU_SECONDS, time.process_time() - started_s)
        self.row.set(Metric.CACHE_HITS, self.decoding.hits)
        self.row.set(Metric.CACHE_MISSES, self.decoding.misses)
        self._hands.empty(self.name)
        return work

    def _decode(self, descriptor: Descriptor, body: memoryview) -> Work:
        if descriptor.verdict is not None:
            return _quarantine(descriptor, body, *descriptor.verdict)
        try:
            work = self.decoding.decode(descriptor, body, self._known)
            if self._rules is not None:
                self._rules.require(descriptor.headers.get(PUBLISHER), _certname_of(work) or "")
            return self._believed(work, descriptor)
        except Rejected as rejected:
            return _quarantine(descriptor, body, rejected.reason, rejected.text, is_readable=True)
        except MemoryError:
            return _quarantine(
                descriptor,
                body,
                "too_much_memory",
                f"decoding needs more than decode_memory_bytes_max={self.config.decode_memory_bytes_max}",
            )
        except RecursionError:
            return _quarantine(descriptor, body, "too_deep", "the JSON is nested too deeply")

    def _believed(self, work: Claim | Full | Deactivate, descriptor: Descriptor) -> Work:
        counts = believable(work, descriptor, timedelta(seconds=self.config.future_tolerance_s))
        if counts is not work:
            self.row.add(Metric.FUTURE_TIMESTAMPS)
            if times := self._future.happened(time.monotonic()):
                self.log.warning(
                    "timestamp_in_the_future",
                    certname=work.certname if isinstance(work, Deactivate) else work.header.certname,
                    timestamp=time_of(work).isoformat(),
                    messages=times,
                    note="more than future_tolerance_s ahead: counts as received now",
                )
        return counts

    def _send_ahead(self, ahead: Ahead) -> None:
        # The message stays in this process's hands meanwhile: its CPU time is counted on, and a wait takes none.
        self.wires.outboxes[self._writer_of(ahead)].send([ahead])

    def _pass(self, done: Sequence[Work]) -> None:
        """Gives each writer its work, and tells the receiver who has it now."""
        works: dict[str, list[Work]] = {}
        for work in done:
            works.setdefault(self._writer_of(work), []).append(work)
        passed: list[Forwarded] = []
        for writer, its in works.items():
            outbox = self.wires.outboxes[writer]
            # Where memory ends msgspec's encoder gets no MemoryError, but a SIGSEGV: the large one, which stands at the
            # end, is the suspect. Not while it is sent: waiting for a writer is no fault of it.
            self._hands.hold(self.name, its[-1].delivery)
            encoded = outbox.encode(its)
            self._hands.empty(self.name)
            taker = writer if outbox.send_encoded(encoded) else None
            passed += [Forwarded(work.delivery, taker, outbox.incarnation) for work in its]
        if passed:
            self.wires.outboxes[RECEIVER].send(passed)

    def _writer_of(self, work: Work) -> str:
        certname = _certname_of(work)
        if certname is None:
            return writer_name(work.delivery % self.config.writers)
        return writer_name(lane_of(certname, self.config.writers))


def _certname_of(work: Work) -> str | None:
    return work.header.certname if isinstance(work, Claim | Full) else work.certname


def _quarantine(
    descriptor: Descriptor, body: memoryview, reason: str, detail: str, *, is_readable: bool = False
) -> Quarantine:
    named = look(descriptor.headers, bytes(body[:START_BYTES]), bytes(body[-END_BYTES:]))
    certname = named.certname
    if certname is None and is_readable:
        certname = _certname_within(descriptor, body)
    return Quarantine(
        delivery=descriptor.delivery,
        reason=reason,
        # It may quote what cannot be encoded, on the way to the writer or by PostgreSQL.
        detail=escape_unprintable(detail),
        certname=certname,
        headers=descriptor.headers,
        received_at=descriptor.received_at,
        arena=descriptor.arena,
        offset=descriptor.offset,
        length=descriptor.length,
        body_bytes=descriptor.body_bytes,
        body_crc32=zlib.crc32(body),
        producer=named.producer,
        kind=(named.command or "").replace("_", " "),
    )


def _certname_within(descriptor: Descriptor, body: memoryview) -> str | None:
    """Where a look at both ends does not tell: the header of a whole that can be read."""
    try:
        found = skim(body, descriptor.headers, descriptor.received_at)
    except (Rejected, MemoryError, RecursionError):
        return None
    certname = found.certname if isinstance(found, Other) else found.header.certname
    # As a member of a command, which is where a look finds what can stand in a column.
    return look({"certname": certname or ""}, b"", b"").certname


def _limit_memory(bytes_max: int) -> None:
    """A body that needs more gets a MemoryError, and the quarantine; the others of this process go on."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * limits.getpagesize()
    _, hard = limits.getrlimit(limits.RLIMIT_AS)
    limits.setrlimit(limits.RLIMIT_AS, (now + bytes_max, hard))
