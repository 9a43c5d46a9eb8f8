"""The receiver process: the only one that talks to the broker.

It reads bodies into shared memory, gives descriptors to decoders, and acknowledges what writers report as
settled: after their commit, one by one. It parses no JSON and never blocks on anything but its selector.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import structlog

from ingest.config.settings import Config
from ingest.core.delivery.arrival import STAMP_HEADERS, Arrivals, Holding
from ingest.core.delivery.intake import LIMIT_NOTE, Intake, Pause, delivery_count
from ingest.core.delivery.ledger import Delivery, Ledger
from ingest.core.delivery.producers import PUBLISHER
from ingest.core.delivery.routing import END_BYTES, START_BYTES, choose, decoders_at_work, routing_key
from ingest.core.delivery.work import Descriptor, Forwarded, Outcome, Settled
from ingest.core.metrics import Metric
from ingest.engine.process import Ended, process_names, reloaded, start_process
from ingest.engine.subscription import EVENT, Subscription
from ingest.ipc.control import ChildChannels, FdTransfer, Order
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import DECODER, WRITER, kind_of
from ingest.ipc.process_metrics import MetricsTable, ProcessMetrics
from ingest.transport.message import Message

# What a descriptor carries of a message's headers: what producers may say of a catalog, and its origin.
KEPT_HEADERS = frozenset(
    ("certname", "producer", "producer_timestamp", "transaction_uuid", "environment", "job_id", "command",
     "version", "content-type", "message-id", "destination", "redelivered", *STAMP_HEADERS)
)  # fmt: skip
KEPT_HEADER_BYTES_MAX = 1024  # of one value; a descriptor stays far below the pipe's size
DECODER_DEPTH = 32  # descriptors at one decoder: enough that it never waits for the receiver
TOGETHER_BYTES = 2 * 1024 * 1024  # of messages that are given out at once
READ_AHEAD_BYTES = (
    8 * 1024 * 1024
)  # that no decoder has done yet, for each of them: what the cores' caches hold
TRIM_EVERY_S = 60.0  # new pages cost a millisecond for each catalog
PAUSE_LOOK_S = 0.2  # how late the database's return may be noticed
STUCK_S = 0.5  # ten times what the largest real catalog takes

_OUTCOME_METRICS = {
    Outcome.STORED: Metric.STORED,
    Outcome.UNCHANGED: Metric.UNCHANGED,
    Outcome.STALE: Metric.STALE,
    Outcome.SUPERSEDED: Metric.SUPERSEDED,
    Outcome.QUARANTINED: Metric.QUARANTINED,
}


def run(config: Config, control: Connection, name: str) -> None:
    """The body of the process: until the supervisor says "stop", or goes."""
    wires = ChildChannels(control, {"decoder": list[Forwarded], "writer": list[Settled]})
    with start_process(config, name, wires) as row:
        Receiver(config, wires, row).loop()


class Receiver:
    def __init__(self, config: Config, wires: ChildChannels, row: ProcessMetrics) -> None:
        self.config = config
        self.wires = wires
        self.row = row
        self.log = structlog.get_logger()
        self.ledger = Ledger(config.deaths_max, config.alone_after_s)
        self._reserved: str | None = None  # the decoder in which a suspect is tried alone
        self._arrivals = Arrivals()
        # The upper bits tell one receiver's deliveries from its predecessor's.
        self._arena_number, self._arena = next(iter(wires.arenas.items()))
        self._last_id = self._arena_number << 40
        self.subscription = Subscription(config, self._arena, self._arena_number, wires.selector, row)
        self._hands = InFlight(wires.memory["hands"], process_names(config))
        self._holding = Holding(self._hands.held_since("receiver"))
        self._board = MetricsTable(wires.memory["board"])
        self._writers = [at for at, p in enumerate(process_names(config)) if kind_of(p) == WRITER]
        self._intake = Intake()
        self._pause: Pause | None = None  # not looked yet
        self._draining = False
        self._trimmed_s = time.monotonic()
        self._decoders_at_work_max = decoders_at_work(len(os.sched_getaffinity(0)))
        self._moved_s: dict[str, float] = {}
        self._decoders = [p for p in process_names(config) if kind_of(p) == DECODER]

    # The loop

    def loop(self) -> None:
        self._subscribe_if_allowed()
        self._measure()  # ready now, not after the first event
        while not self._is_drained():
            for key, _ in self.wires.selector.select(self._timeout_s()):
                if key.data == "control":
                    self._obey(self.wires.control())
                    break  # it may have replaced an inbox that is in this list: what is ready says so again
                if key.data == EVENT:
                    self._read()
                else:
                    self._receive_from(key.data)
            self._after_events()
        self._goodbye()

    def _after_events(self) -> None:
        if self.subscription.unread and self._takes_messages():
            self._read()
        self.subscription.keep()
        self._dispatch()
        self._let_go_if_too_long()
        if not self._draining:
            self._subscribe_if_allowed()
        self._trim_now_and_then()
        self._measure()

    def _trim_now_and_then(self) -> None:
        """What an overload had filled is not kept for the next one."""
        now = time.monotonic()
        if now - self._trimmed_s > TRIM_EVERY_S:
            self._arena.trim()
            self._trimmed_s = now

    def _timeout_s(self) -> float:
        # How old the age metric may get, and what others are told of this engine.
        age_limit_s = 1.0 if self.ledger.messages or self._holding.matters else 5.0
        if self._draining and not self.subscription.is_connected:
            return age_limit_s  # nobody connects again: what is due stays due
        if self._pause:
            return PAUSE_LOOK_S
        return max(0.0, min(age_limit_s, self.subscription.wait_s()))

    def _obey(self, message: FdTransfer | Order) -> None:
        if isinstance(message, FdTransfer):
            self._rewired(message)
        elif message.word == "drain":
            self._draining = True
        elif message.word == "stop":
            raise Ended
        elif message.word == "reload":
            self.config = reloaded(message.detail)
            self.subscription.reload(self.config)

    def _rewired(self, handover: FdTransfer) -> None:
        """A neighbour was replaced: what it had waits again."""
        is_decoder = handover.role == "outbox"
        is_writer = handover.role == "inbox" and kind_of(handover.peer) == WRITER
        if is_decoder or is_writer:
            self._lost(handover.peer)

    def _lost(self, peer: str) -> None:
        held = self._hands.held(peer)
        self._hands.empty(peer)
        count = self.ledger.at(peer)
        if (suspect := self.ledger.lost(peer, held, time.monotonic())) is not None:
            self._tell_of(suspect, peer)
        if count:
            self.log.info("deliveries_given_out_again", peer=peer, deliveries=count)

    def _tell_of(self, delivery: Delivery, peer: str) -> None:
        told = {"delivery": delivery.id, "deaths": delivery.deaths, "peer": peer}
        if delivery.verdict is not None:
            self.log.warning("message_condemned", **told)
        elif delivery.alone_at_s is not None:
            self.log.warning("message_set_aside", **told, tried_alone_after_s=self.config.alone_after_s)

    def _receive_from(self, peer: str) -> None:
        inbox = self.wires.inboxes.get(peer)
        if inbox is None:
            return
        try:
            while True:
                for message in inbox.receive():
                    if isinstance(message, Forwarded):
                        self._passed(peer, message)
                    else:
                        self._settle(message)
                if not inbox.poll():
                    return
        except EOFError:
            self.wires.drop_inbox(peer)  # the supervisor brings the successor's

    def _passed(self, peer: str, passed: Forwarded) -> None:
        self._moved_s[peer] = time.monotonic()
        current = passed.writer is not None and passed.incarnation == self.wires.incarnations.get(
            passed.writer
        )
        self.ledger.passed(passed.delivery, passed.writer if current else None)

    def _settle(self, settled: Settled) -> None:
        delivery = self.ledger.settle(settled)
        if delivery is None:
            if settled.outcome is Outcome.REDO:
                self.row.add(Metric.REDONE)
            return
        self._release(delivery)
        self.row.add(_OUTCOME_METRICS[settled.outcome])
        self.row.observe(Metric.SETTLE_SECONDS, time.monotonic() - delivery.received_s)
        self.subscription.acknowledge(delivery.epoch, delivery.ack, delivery.message_id)

    def _release(self, delivery: Delivery) -> None:
        if delivery.offset >= 0:
            self._arena.free(delivery.offset, delivery.length)

    # Towards the decoders

    def _dispatch(self) -> None:
        due: dict[str, list[Descriptor]] = {}
        decoders: list[str] = []
        self._try_alone()
        while (delivery := self.ledger.next()) is not None:
            decoders = decoders or self._useful_decoders()
            if not decoders:
                break
            decoder = choose(delivery.routing_key, decoders, self.ledger.at)
            if self.ledger.at(decoder) >= DECODER_DEPTH:
                break
            if not self.ledger.at(decoder):
                self._moved_s[decoder] = time.monotonic()
            due.setdefault(decoder, []).append(self._descriptor(delivery))
            self.ledger.assign(delivery, decoder)
        for decoder, descriptors in due.items():
            # False: it died. Its successor's outbox is on the way, and what is assigned is given out again.
            self.wires.outboxes[decoder].send(descriptors)

    def _try_alone(self) -> None:
        """Gives a suspect that is due to a decoder that has nothing else, and gets nothing else meanwhile."""
        if self._reserved is not None and self.ledger.has_suspect(self._reserved):
            return
        suspect = self.ledger.next_suspect(math.inf if self._draining else time.monotonic())
        if suspect is None:
            self._reserved = None
            return
        if self._reserved is None:
            self._reserved = min(self._decoders, key=self.ledger.at)
        if not self.ledger.at(self._reserved):
            self._moved_s[self._reserved] = time.monotonic()
            self.ledger.assign(suspect, self._reserved)
            self.wires.outboxes[self._reserved].send([self._descriptor(suspect)])

    def _useful_decoders(self) -> list[str]:
        """One less than there are cores: each keeps a cache of its own, and more of them would only share the cores
        and know less; the rest of the engine takes about one. One that does not get on (a hard message, a
        blocked writer) counts as none."""
        now = time.monotonic()
        found: list[str] = []
        working = 0
        for decoder in self._decoders:
            if decoder == self._reserved:
                continue
            found.append(decoder)
            working += not self._is_stuck(decoder, now)
            if working >= self._decoders_at_work_max:
                break
        return found

    def _is_stuck(self, decoder: str, now: float) -> bool:
        return self.ledger.at(decoder) > 0 and now - self._moved_s.get(decoder, now) > STUCK_S

    def _descriptor(self, delivery: Delivery) -> Descriptor:
        return Descriptor(
            delivery.copy,
            self._arena_number,
            max(0, delivery.offset),
            0 if delivery.is_bare else delivery.length,
            delivery.body_bytes,
            delivery.received_at,
            delivery.headers,
            delivery.complete,
            delivery.verdict,
            delivery.stamped_at,
        )

    # From the broker

    def _read(self) -> None:
        if not self._takes_messages():
            self.subscription.listen()
            return
        untold_bytes = 0
        for message in self.subscription.read():
            self._take(message)
            untold_bytes += message.length
            if untold_bytes >= TOGETHER_BYTES:
                self._dispatch()  # decoders work while the rest is read
                untold_bytes = 0
            if not self._takes_messages():
                return

    def _takes_messages(self) -> bool:
        if self._draining or self.ledger.messages >= self.subscription.window_messages:
            return False
        return not self._is_ahead()

    def _is_ahead(self) -> bool:
        """What nobody can decode yet stays with the broker: read now, it would be out of the cores' caches by then.
        What lies at a stuck decoder is not read ahead for the others: one hard message would stop them all."""
        most = READ_AHEAD_BYTES * self._decoders_at_work_max
        if self.ledger.undecoded_bytes < most:
            return False
        now = time.monotonic()
        stuck = [decoder for decoder in self._decoders if self._is_stuck(decoder, now)]
        return self.ledger.undecoded_bytes - sum(map(self.ledger.bytes_at, stuck)) >= most

    def _take(self, message: Message) -> None:
        self._last_id += 1
        verdict = message.verdict
        if message.offset is None:
            limit = self.config.body_bytes_max
            verdict = ("too_large", f"a body of {message.body_bytes} bytes; body_bytes_max is {limit}")
        headers = message.headers
        if "ack" not in headers and "message-id" not in headers:
            verdict = verdict or (
                "unacknowledgeable",
                "the broker sent neither an ack nor a message-id header",
            )
        stamped_at = self._arrivals.stamped_at(headers)
        self._holding.took(headers, stamped_at)
        delivery = Delivery(
            id=self._last_id,
            epoch=self.subscription.epoch,
            ack=headers.get("ack", headers.get("message-id", "")),
            message_id=headers.get("message-id", ""),
            offset=-1 if message.offset is None else message.offset,
            length=message.length,
            body_bytes=message.body_bytes,
            received_at=self._arrivals.received_at(datetime.now(UTC)),
            received_s=time.monotonic(),
            headers=self._kept(headers),
            stamped_at=stamped_at,
            verdict=verdict,
            routing_key=self._routing_key(message),
        )
        self.ledger.add(delivery)
        self.row.add(Metric.RECEIVED)
        self.row.add(Metric.RECEIVED_BYTES, message.body_bytes)
        if headers.get("redelivered") == "true":
            self.row.add(Metric.REDELIVERED)
            self._look_at_delivery_count(headers)

    def _look_at_delivery_count(self, headers: Mapping[str, str]) -> None:
        count, largest = delivery_count(headers), self.row.value(Metric.DELIVERY_COUNT)
        if count > largest:
            self.row.set(Metric.DELIVERY_COUNT, count)
            if not largest:
                self.log.warning("broker_counts_deliveries", delivery_count=count, note=LIMIT_NOTE)

    def _kept(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers that the decoder and the quarantine need, and who published, if the broker tells."""
        kept = {name: _cut(value) for name, value in headers.items() if name in KEPT_HEADERS}
        if self.config.producers_file:
            publisher = headers.get(self.subscription.user_header)
            if publisher is not None:
                kept[PUBLISHER] = _cut(publisher)
        return kept

    def _routing_key(self, message: Message) -> int:
        if message.offset is None:
            return 0
        start = self._arena.view(message.offset, min(START_BYTES, message.length))
        at_end = min(END_BYTES, message.length)
        end = self._arena.view(message.offset + message.length - at_end, at_end)
        return routing_key(message.headers, bytes(start), bytes(end))

    def _subscribe_if_allowed(self) -> None:
        """Not while it is known that nothing can be settled: each subscription costs a delivery of what it brings."""
        if self.subscription.is_connected:
            return
        up = (bool(self._board.value(writer, Metric.DATABASE_UP)) for writer in self._writers)
        pause = self._intake.pause(up, self.ledger.messages)
        if pause is not self._pause:
            self._pause = pause
            self.row.set(Metric.PAUSED, pause)
            if self.subscription.epoch:  # at the start it only means that the writers are not there yet
                self.log.info("paused", reason=pause.reason) if pause else self.log.info("resumed")
        if not pause:
            self.subscription.connect_if_due()

    def _let_go_if_too_long(self) -> None:
        """Brokers lose patience with unacknowledged messages (RabbitMQ: 30 minutes, and then the channel is
        closed). Before that the engine lets go by itself, once. What it has is settled all the same, as after any lost
        connection, and only then it takes them again."""
        oldest = self.ledger.oldest_of(self.subscription.epoch) if self.subscription.is_connected else None
        if oldest is None or time.monotonic() - oldest.received_s < self.config.hold_s:
            return
        self.log.warning("deliveries_let_go", deliveries=self.ledger.messages, held_s=self.config.hold_s)
        self._intake.let_go()
        self.subscription.let_go()

    # The end

    def _is_drained(self) -> bool:
        return self._draining and self.ledger.messages == 0 and self.subscription.has_acknowledged

    def _goodbye(self) -> None:
        for message in self.subscription.leave():
            if message.offset is not None:
                self._arena.free(message.offset, message.length)
        self.wires.report("drained")

    def _measure(self) -> None:
        self.row.set(Metric.WINDOW_MESSAGES, self.ledger.messages)
        self.row.set(Metric.WINDOW_BYTES, self._arena.used_bytes)
        self.row.set(Metric.WAITING, self.ledger.waiting)
        self.row.set(Metric.CONNECTED, int(self.subscription.is_connected))
        oldest = self.ledger.oldest()
        self.row.set(Metric.OLDEST_SECONDS, time.monotonic() - oldest.received_s if oldest else 0)
        since = self._holding.told(
            oldest.received_at if oldest else None,
            datetime.now(UTC),
            connected=self.subscription.is_connected,
        )
        self._hands.hold_since("receiver", since)


def _cut(value: str) -> str:
    """In bytes, not in characters: thirty-two descriptors of a hostile producer must fit into a decoder's pipe, or the
    receiver waits for the decoder that waits for the database, and sends no heart-beats. What was not UTF-8 is U+FFFD."""
    if len(value) <= KEPT_HEADER_BYTES_MAX and value.isascii():  # most of them
        return value
    plain = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return plain.encode()[:KEPT_HEADER_BYTES_MAX].decode(errors="ignore")
