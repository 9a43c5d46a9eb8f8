"""A decoder process: pure CPU. Takes descriptors from the receiver, gives work to the writers."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection as ControlConnection
from typing import Any

import structlog

from ingest.config.kinds import importance
from ingest.config.producers import load_producer_rules
from ingest.config.settings import Config
from ingest.core.catalog.formats import skim
from ingest.core.delivery.arrival import believable
from ingest.core.delivery.commands import plain_name
from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.naming import look
from ingest.core.delivery.producers import PUBLISHER
from ingest.core.delivery.routing import END_BYTES, START_BYTES, lane_of
from ingest.core.delivery.work import Descriptor, Forwarded, Quarantine, Work
from ingest.core.facts.selection import patterns_of
from ingest.core.metrics import METRICS, Metric
from ingest.core.printable import escape_unprintable
from ingest.engine.decoders import Decoders
from ingest.engine.memory import Memory
from ingest.engine.process import Ended, process_names, reloaded, start_process
from ingest.errors import Misconfigured, Rejected
from ingest.ipc.arena import Arena
from ingest.ipc.control import ChildChannels, FdTransfer, Order
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import DIGESTS, IN_FLIGHT, RECEIVER, writer_name
from ingest.ipc.process_metrics import ProcessMetrics
from ingest.ipc.stored_digests import StoredDigests
from ingest.observe.seldom import Seldom

EARLY_BYTES = 128 * 1024  # of one message's new content, as JSON
FUTURE_LOGGED_EVERY_S = 60.0  # by each decoder; the metric counts every one
# What is small is passed on together, up to so much: of bodies, less than half a millisecond for claims, and of CPU time: that
# of a dozen reports. Each time wakes a writer and the receiver.
TOGETHER_BYTES, TOGETHER_CPU_S = 2 * 1024 * 1024, 0.002
MEMORY_LOOKED_AT_BYTES = 16 * 1024 * 1024  # of bodies; what they leave is small beside a message's share
# What is kept beside messages: caches, half as much again for what the allocator cannot give back, tables of names.
KEPT_SHARE, KEPT_BESIDE_BYTES = 1.5, 96 * 1024 * 1024


def run(config: Config, control: ControlConnection, name: str) -> None:
    """The body of the process: until the supervisor says "stop", or goes."""
    channels = ChildChannels(control, {RECEIVER: list[Descriptor]})
    with start_process(config, name, channels) as row:
        memory = Memory(
            # A successor of the receiver brings another arena before the old one is gone.
            config.decode_memory_bytes_max + config.window_bytes_max,
            int(config.decoder_cache_bytes_max * KEPT_SHARE) + KEPT_BESIDE_BYTES,
        )
        Decoder(config, channels, row, name, memory).loop()


class Decoder:
    def __init__(
        self,
        config: Config,
        channels: ChildChannels,
        row: ProcessMetrics,
        name: str,
        memory: Memory | None = None,
    ) -> None:
        """``memory``: what it may take; None: whatever there is."""
        self.config = config
        self.channels = channels
        self.row = row
        self.name = name
        self.log = structlog.get_logger()
        self._memory = memory
        self._unseen_bytes = 0  # of bodies since memory was looked at
        self._unpassed_cpu_s = 0.0
        self._known = StoredDigests(channels.memory[DIGESTS])
        self.decoding = Decoders(
            DecoderSettings(
                cache_bytes_max=config.decoder_cache_bytes_max,
                seed=self._known.seed,
                lanes=config.writers,
                thin=config.thin_storeconfigs,
                early_bytes=EARLY_BYTES,
                facts_blocklist=patterns_of(config.facts_blocklist),
                facts_volatile=patterns_of(config.facts_volatile),
            )
        )
        self._numbers = {metric.name: number for number, metric in enumerate(METRICS)}
        self._rules = load_producer_rules(config.producers_file)
        self._future = Seldom(FUTURE_LOGGED_EVERY_S)
        self._in_flight = InFlight(channels.memory[IN_FLIGHT], process_names(config))

    def loop(self) -> None:
        while True:
            for key, _ in self.channels.selector.select():
                if key.data == "control":
                    message = self.channels.control()
                    if isinstance(message, FdTransfer) and self._memory is not None:
                        # A receiver's successor has brought memory of its own: so may the next one's, at once.
                        self._memory.renew()
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
        inbox = self.channels.inboxes.get(peer)
        if inbox is None:
            return
        try:
            descriptors = inbox.receive()
        except EOFError:
            self.channels.drop_inbox(peer)
            return
        done: list[Work] = []
        done_bytes = 0
        for descriptor in descriptors:
            arena = self.channels.arenas.get(descriptor.arena)
            if arena is None:
                continue  # of a receiver that is gone: the broker delivers it again
            done.append(self._timed(descriptor, arena))
            done_bytes += descriptor.length
            # Who waits for more does not wait for long.
            if (
                done_bytes >= TOGETHER_BYTES
                or self._unpassed_cpu_s >= TOGETHER_CPU_S
                or not getattr(done[-1], "goes_with_others", False)
            ):
                self._pass(done)
                done, done_bytes, self._unpassed_cpu_s = [], 0, 0.0
                self._look_at_memory()
        self._pass(done)
        for name, total in self.decoding.totals.items():
            self.row.set(self._numbers[name], total)
        self._look_at_memory()

    def _look_at_memory(self) -> None:
        """Between two messages that are passed on: a process that has outgrown its bound ends, and its successor gets what is
        waiting. Nothing is in its hands, so no message is blamed."""
        if self._memory is None or self._unseen_bytes < MEMORY_LOOKED_AT_BYTES:
            return
        self._unseen_bytes = 0
        if self._memory.is_outgrown():
            self.channels.report("retiring", f"it keeps {self._memory.kept_bytes} bytes")
            raise Ended
        self._memory.renew()

    def _timed(self, descriptor: Descriptor, arena: Arena) -> Work:
        self._in_flight.hold(self.name, descriptor.delivery)
        started_s = time.process_time()
        work = self._decode(descriptor, arena.view(descriptor.offset, descriptor.length))
        spent_s = time.process_time() - started_s
        self._unpassed_cpu_s += spent_s
        self.row.add(Metric.DECODED)
        self.row.add(Metric.DECODE_CPU_SECONDS, spent_s)
        self._in_flight.empty(self.name)
        self._unseen_bytes += descriptor.length
        return work

    def _decode(self, descriptor: Descriptor, body: memoryview) -> Work:
        if descriptor.verdict is not None:
            return _quarantine(descriptor, body, *descriptor.verdict)
        work = self._try(descriptor, body)
        if work is None and self._memory and self._memory.gives_more():
            work = self._try(descriptor, body)
        if work is not None:
            return work
        self._unseen_bytes = MEMORY_LOOKED_AT_BYTES
        limit = self.config.decode_memory_bytes_max
        detail = f"decoding needs more than decode_memory_bytes_max={limit}"
        return _quarantine(descriptor, body, "too_much_memory", detail)

    def _try(self, descriptor: Descriptor, body: memoryview) -> Work | None:
        """None: there was not memory enough. It is not caught further out, where all that was made so far would still be
        there with its traceback."""
        try:
            found: Any = None
            # To its end: to leave a generator that waits costs more than to let it finish.
            for found in self.decoding.decode(descriptor, body, self._known):
                if self._rules is not None:
                    self._rules.require(descriptor.headers.get(PUBLISHER), found.certname)
                if found.is_early:
                    self._send_early(found)
            return self._believed(found, descriptor)
        except Rejected as rejected:
            return _quarantine(descriptor, body, rejected.reason, rejected.text, is_readable=True)
        except RecursionError:
            return _quarantine(descriptor, body, "too_deep", "the JSON is nested too deeply")
        except MemoryError:
            pass
        return None

    def _believed(self, work: Any, descriptor: Descriptor) -> Work:
        """The work as it came, unless its time lies too far in the future."""
        counts: Work = believable(work, descriptor, timedelta(seconds=self.config.future_tolerance_s))
        if counts is not work:
            self.row.add(Metric.FUTURE_TIMESTAMPS)
            if times := self._future.happened(time.monotonic()):
                self.log.warning(
                    "timestamp_in_the_future",
                    certname=work.certname,
                    timestamp=work.producer_timestamp.isoformat(),
                    messages=times,
                    note="more than future_tolerance_s ahead: counts as received now",
                )
        return counts

    def _send_early(self, early: Work) -> None:
        # The message stays in this process's hands meanwhile: its CPU time is counted on, and a wait takes none.
        self.channels.outboxes[self._writer_of(early)].send([early])

    def _pass(self, done: Sequence[Work]) -> None:
        """Gives each writer its work, and tells the receiver who has it now."""
        works: dict[str, list[Work]] = {}
        for work in done:
            works.setdefault(self._writer_of(work), []).append(work)
        passed: list[Forwarded] = []
        for writer, its in works.items():
            outbox = self.channels.outboxes[writer]
            # Where memory ends msgspec's encoder gets no MemoryError, but a SIGSEGV: the large one, which stands at the
            # end, is the suspect. Not while it is sent: waiting for a writer is no fault of it.
            self._in_flight.hold(self.name, its[-1].delivery)
            encoded = outbox.encode(its)
            self._in_flight.empty(self.name)
            taker = writer if outbox.send_encoded(encoded) else None
            passed += [Forwarded(work.delivery, taker, outbox.incarnation) for work in its]
        if passed:
            self.channels.outboxes[RECEIVER].send(passed)

    def _writer_of(self, work: Work) -> str:
        if work.certname is None:
            return writer_name(work.delivery % self.config.writers)
        return writer_name(lane_of(work.certname, self.config.writers))


def _quarantine(
    descriptor: Descriptor, body: memoryview, reason: str, detail: str, *, is_readable: bool = False
) -> Quarantine:
    named = look(descriptor.headers, bytes(body[:START_BYTES]), bytes(body[-END_BYTES:]))
    certname, kind = named.certname, plain_name(named.command or "")
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
        # Made-up commands are one: else a node had as many rows as somebody can think of names.
        kind=kind if importance().is_known(kind) else "",
    )


def _certname_within(descriptor: Descriptor, body: memoryview) -> str | None:
    """Where a look at both ends does not tell: the header of a whole that can be read."""
    try:
        found = skim(body, descriptor.headers, descriptor.received_at)
    except (Rejected, MemoryError, RecursionError):
        return None
    # As a member of a command, which is where a look finds what can stand in a column.
    return look({"certname": found.certname or ""}, b"", b"").certname
