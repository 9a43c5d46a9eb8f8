"""The receiver process: the only one that talks to the broker.

It reads bodies into shared memory, gives descriptors to decoders, and acknowledges what writers report as
settled: after their commit, one by one. It parses no JSON and never blocks on anything but its selector.
"""

from __future__ import annotations

import os
import random
import selectors
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection as ControlConnection

import structlog

from ingest.board import Row
from ingest.channels import Arena, Handover, Hands, Order, Wires
from ingest.config import Config
from ingest.connection import Connection, Endpoint, Message
from ingest.core.ledger import Delivery, Ledger
from ingest.core.routing import END_BYTES, START_BYTES, choose, decoders_at_work, routing_key
from ingest.core.work import Descriptor, Outcome, Passed, Settled
from ingest.errors import Misconfigured, Unavailable
from ingest.metrics import Metric
from ingest.processes import Ended, process_names, reloaded, start_process
from ingest.transports import endpoints

# What a descriptor carries of a message's headers: what producers may say of a catalog, and its origin.
KEPT_HEADERS = frozenset(
    ("certname", "producer", "producer_timestamp", "transaction_uuid", "environment", "job_id", "command",
     "version", "content-type", "message-id", "destination", "redelivered")
)  # fmt: skip
KEPT_HEADER_BYTES_MAX = 1024  # of one value; a descriptor stays far below the pipe's size
DECODER_DEPTH = 32  # descriptors at one decoder: enough that it never waits for the receiver
STUCK_S = 0.5  # ten times what the largest real catalog takes
BACKOFF_START_S = 0.1

_OUTCOME_METRICS = {
    Outcome.STORED: Metric.STORED,
    Outcome.UNCHANGED: Metric.UNCHANGED,
    Outcome.STALE: Metric.STALE,
    Outcome.SUPERSEDED: Metric.SUPERSEDED,
    Outcome.QUARANTINED: Metric.QUARANTINED,
}


def run(config: Config, control: ControlConnection, name: str) -> None:
    """The body of the process: until the supervisor says "stop", or goes."""
    wires = Wires(control, {"decoder": Passed, "writer": list[Settled]})
    with start_process(config, name, wires) as row:
        Receiver(config, wires, row).loop()


class Receiver:
    def __init__(self, config: Config, wires: Wires, row: Row) -> None:
        self.config = config
        self.wires = wires
        self.row = row
        self.log = structlog.get_logger()
        self.ledger = Ledger(config.deaths_max)
        self.connection: Connection | None = None
        self.epoch = 0
        self._endpoints: Sequence[Endpoint] = endpoints(config)
        self._next_endpoint = 0
        self._retry_at_s = 0.0
        self._backoff_s = BACKOFF_START_S
        self._connected_s = 0.0
        # The upper bits tell one receiver's deliveries from its predecessor's.
        self._arena_number, self._arena = next(iter(wires.arenas.items()))
        self._last_id = self._arena_number << 40
        self._hands = Hands(wires.memory["hands"], process_names(config))
        self._acks: list[tuple[str, str]] = []
        self._registered: int | None = None  # the events the socket is registered for
        self._draining = False
        self._decoders_at_work_max = decoders_at_work(len(os.sched_getaffinity(0)))
        self._moved_s: dict[str, float] = {}
        self._decoders = [p for p in process_names(config) if p.startswith("decoder")]

    # The loop

    def loop(self) -> None:
        self._connect()
        self._measure()  # ready now, not after the first event
        while not self._is_drained():
            for key, _ in self.wires.selector.select(self._timeout_s()):
                if key.data == "control":
                    self._obey(self.wires.control())
                    break  # it may have replaced an inbox that is in this list: what is ready says so again
                if key.data == "broker":
                    self._guarded(self._read)
                else:
                    self._receive_from(key.data)
            self._after_events()
        self._goodbye()

    def _after_events(self) -> None:
        if self.connection is not None and self.connection.unread and self._takes_messages():
            self._guarded(self._read)
        self._guarded(self._flush)
        self._dispatch()
        self._let_go_if_too_long()
        if self.connection is None and not self._draining and time.monotonic() >= self._retry_at_s:
            self._connect()
        self._measure()

    def _timeout_s(self) -> float:
        oldest = self.ledger.oldest()
        limits = [1.0 if oldest is not None else 5.0]  # how old the age metric may get
        if self.connection is None:
            limits.append(self._retry_at_s - time.monotonic())
        else:
            limits.append(self.connection.next_beat_s())
        return max(0.0, min(limits))

    def _obey(self, message: Handover | Order) -> None:
        if isinstance(message, Handover):
            self._rewired(message)
        elif message.word == "drain":
            self._draining = True
        elif message.word == "stop":
            raise Ended
        elif message.word == "reload":
            self.config = reloaded(message.detail)
            self._endpoints = endpoints(self.config)  # for the next connection

    def _rewired(self, handover: Handover) -> None:
        """A neighbour was replaced: what it had waits again."""
        is_decoder = handover.role == "outbox"
        is_writer = handover.role == "inbox" and handover.peer.startswith("writer")
        if is_decoder or is_writer:
            self._lost(handover.peer)

    def _lost(self, peer: str) -> None:
        held = self._hands.held(peer)
        self._hands.empty(peer)
        count = self.ledger.at(peer)
        for delivery in self.ledger.lost(peer, held[0] if held else None):
            self.log.warning("message_condemned", delivery=delivery.id, deaths=delivery.deaths)
        if count:
            self.log.info("deliveries_given_out_again", peer=peer, deliveries=count)

    def _receive_from(self, peer: str) -> None:
        inbox = self.wires.inboxes.get(peer)
        if inbox is None:
            return
        try:
            while True:
                message = inbox.receive()
                if isinstance(message, Passed):
                    self._passed(peer, message)
                else:
                    for settled in message:
                        self._settle(settled)
                if not inbox.poll():
                    return
        except EOFError:
            self.wires.drop_inbox(peer)  # the supervisor brings the successor's

    def _passed(self, peer: str, passed: Passed) -> None:
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
        if delivery.epoch == self.epoch and self.connection is not None:
            self._acks.append((delivery.ack, delivery.message_id))

    def _release(self, delivery: Delivery) -> None:
        if delivery.length:
            self._arena.free(delivery.offset, delivery.length)

    # Towards the decoders

    def _dispatch(self) -> None:
        decoders: list[str] = []
        while (delivery := self.ledger.next()) is not None:
            decoders = decoders or self._useful_decoders()
            decoder = choose(delivery.routing_key, decoders, self.ledger.at)
            if self.ledger.at(decoder) >= DECODER_DEPTH:
                return
            if not self.ledger.at(decoder):
                self._moved_s[decoder] = time.monotonic()
            # False: it died. Its successor's outbox is on the way, and what is assigned is given out again.
            self.wires.outboxes[decoder].send(self._descriptor(delivery))
            self.ledger.assign(delivery, decoder)

    def _useful_decoders(self) -> list[str]:
        """One less than there are cores: each keeps a cache of its own, and more of them would only share the cores
        and know less; the rest of the engine takes about one. One that does not get on (a hard message, a
        blocked writer) counts as none."""
        now = time.monotonic()
        found: list[str] = []
        working = 0
        for decoder in self._decoders:
            found.append(decoder)
            is_stuck = self.ledger.at(decoder) > 0 and now - self._moved_s.get(decoder, now) > STUCK_S
            working += not is_stuck
            if working >= self._decoders_at_work_max:
                break
        return found

    def _descriptor(self, delivery: Delivery) -> Descriptor:
        return Descriptor(
            delivery.copy,
            self._arena_number,
            delivery.offset,
            delivery.length,
            delivery.body_bytes,
            delivery.received_at,
            delivery.headers,
            delivery.complete,
            delivery.verdict,
        )

    # Towards the broker

    def _guarded(self, step: object) -> None:
        """Runs a step that may find the connection broken."""
        if self.connection is None:
            return
        try:
            step()  # type: ignore[operator]
        except Unavailable as error:
            self.log.warning("connection_lost", broker=str(self.connection.endpoint), reason=str(error))
            self._disconnected()

    def _read(self) -> None:
        connection = self.connection
        assert connection is not None
        if not self._takes_messages():
            connection.listen()
            return
        for message in connection.read():
            self._take(message)
            if not self._takes_messages():
                return

    def _takes_messages(self) -> bool:
        return not self._draining and self.ledger.messages < self._window_messages()

    def _window_messages(self) -> int:
        # STOMP 1.0 knows only cumulative acknowledgement: one message at a time, or one ack settles others.
        old = self.connection is not None and self.connection.version == "1.0"
        return 1 if old else self.config.window_messages_max

    def _take(self, message: Message) -> None:
        self._last_id += 1
        verdict = None
        if message.offset is None:
            limit = self.config.body_bytes_max
            verdict = ("too_large", f"a body of {message.body_bytes} bytes; body_bytes_max is {limit}")
        headers = message.headers
        if "ack" not in headers and "message-id" not in headers:
            verdict = verdict or (
                "unacknowledgeable",
                "the broker sent neither an ack nor a message-id header",
            )
        delivery = Delivery(
            id=self._last_id,
            epoch=self.epoch,
            ack=headers.get("ack", headers.get("message-id", "")),
            message_id=headers.get("message-id", ""),
            offset=message.offset or 0,
            length=message.length,
            body_bytes=message.body_bytes,
            received_at=datetime.now(UTC),
            received_s=time.monotonic(),
            headers={
                name: value[:KEPT_HEADER_BYTES_MAX] for name, value in headers.items() if name in KEPT_HEADERS
            },
            verdict=verdict,
            routing_key=self._routing_key(message),
        )
        self.ledger.add(delivery)
        self.row.add(Metric.RECEIVED)
        self.row.add(Metric.RECEIVED_BYTES, message.body_bytes)
        if headers.get("redelivered") == "true":
            self.row.add(Metric.REDELIVERED)

    def _routing_key(self, message: Message) -> int:
        if message.offset is None:
            return 0
        start = self._arena.view(message.offset, min(START_BYTES, message.length))
        at_end = min(END_BYTES, message.length)
        end = self._arena.view(message.offset + message.length - at_end, at_end)
        return routing_key(message.headers, bytes(start), bytes(end))

    def _flush(self) -> None:
        connection = self.connection
        assert connection is not None
        if self._acks:
            connection.acknowledge(self._acks, self._subscription())
            self.row.add(Metric.ACKNOWLEDGED, len(self._acks))
            self._acks.clear()
        connection.flush()
        connection.beat()
        self._register()

    def _register(self) -> None:
        """Listens to the socket for what can be done now. With a full window that is heart-beats."""
        connection = self.connection
        assert connection is not None
        events = 0
        if connection.listens:
            events |= selectors.EVENT_READ
        if connection.wants_write:
            events |= selectors.EVENT_WRITE
        if events == self._registered:
            return
        selector = self.wires.selector
        if self._registered:
            if events:
                selector.modify(connection, events, "broker")
            else:
                selector.unregister(connection)
        elif events:
            selector.register(connection, events, "broker")
        self._registered = events

    def _connect(self) -> None:
        endpoint = self._endpoints[self._next_endpoint % len(self._endpoints)]
        self._next_endpoint += 1
        try:
            connection = open_connection(self.config, endpoint, self._arena)
            self.epoch += 1
            self.connection = connection
            connection.subscribe(
                self.config.destination,
                self._subscription(),
                1 if connection.version == "1.0" else self.config.window_messages_max,
                self.config.window_bytes_max,
            )
        except (Unavailable, Misconfigured) as error:
            self.connection = None
            self.log.warning("broker_unavailable", broker=str(endpoint), reason=str(error))
            self._retry_later()
            return
        self._connected_s = time.monotonic()
        self._registered = None
        self._register()
        self.row.add(Metric.CONNECTIONS)
        self.log.info(
            "connected", broker=str(endpoint), server=connection.server or "unnamed", stomp=connection.version,
            epoch=self.epoch,
        )  # fmt: skip

    def _subscription(self) -> str:
        # Never the same twice: RabbitMQ takes an old connection's ack for another message.
        return f"ingest-{self._arena_number}-{self.epoch}"

    def _disconnected(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            if self._registered:
                self.wires.selector.unregister(connection)
            connection.close()
        self._registered = None
        self._acks.clear()  # they belonged to that epoch; the broker will deliver again
        if time.monotonic() - self._connected_s > self.config.backoff_max_s:
            # Not before: one that lets us in and throws us out again is no better than one that is away.
            self._backoff_s = BACKOFF_START_S
        self._retry_later()

    def _retry_later(self) -> None:
        self._retry_at_s = time.monotonic() + self._backoff_s * random.uniform(0.5, 1.0)
        if self._next_endpoint % len(self._endpoints) == 0:
            self._backoff_s = min(self._backoff_s * 2, self.config.backoff_max_s)

    def _let_go_if_too_long(self) -> None:
        """Brokers lose patience with unacknowledged messages (RabbitMQ: 30 minutes, and then the channel is
        closed). Before that the engine lets go by itself, and takes them again."""
        oldest = self.ledger.oldest()
        if oldest is None or time.monotonic() - oldest.received_s < self.config.hold_s:
            return
        self.log.warning("deliveries_let_go", deliveries=self.ledger.messages, held_s=self.config.hold_s)
        self._disconnected()
        for delivery in self.ledger.clear():
            self._release(delivery)
        self.wires.report("let_go")
        raise Ended  # a new receiver with a new arena: whoever still reads these bodies reads the old one

    # The end

    def _is_drained(self) -> bool:
        return self._draining and self.ledger.messages == 0 and not self._acks

    def _goodbye(self) -> None:
        """DISCONNECT with a receipt: the broker has seen every acknowledgement."""
        connection = self.connection
        if connection is not None:
            receipt = f"bye-{self.epoch}"
            deadline = time.monotonic() + self.config.connect_timeout_s
            try:
                connection.disconnect(receipt)
                while receipt not in connection.receipts and time.monotonic() < deadline:
                    for message in connection.read():
                        self._release_unread(message)  # not acknowledged: it stays at the broker
                    connection.flush()
                    time.sleep(0.002)
            except Unavailable:
                pass  # the broker closed first; what it had not seen acknowledged it delivers again
            connection.close()
        self.wires.report("drained")

    def _release_unread(self, message: Message) -> None:
        if message.offset is not None:
            self._arena.free(message.offset, message.length)

    def _measure(self) -> None:
        self.row.set(Metric.WINDOW_MESSAGES, self.ledger.messages)
        self.row.set(Metric.WINDOW_BYTES, self._arena.used_bytes)
        self.row.set(Metric.WAITING, self.ledger.waiting)
        self.row.set(Metric.CONNECTED, 0 if self.connection is None else 1)
        oldest = self.ledger.oldest()
        self.row.set(Metric.OLDEST_SECONDS, time.monotonic() - oldest.received_s if oldest else 0)


def open_connection(config: Config, endpoint: Endpoint, arena: Arena | None) -> Connection:
    return Connection(
        endpoint,
        connect_timeout_s=config.connect_timeout_s,
        heartbeat_s=config.heartbeat_s,
        body_bytes_max=config.body_bytes_max,
        space=arena,
    )


def check_broker(config: Config) -> None:
    """Connects once and leaves. Raises Unavailable or Misconfigured when no broker of the list lets us in."""
    failure: Unavailable | Misconfigured | None = None
    for endpoint in endpoints(config):
        try:
            open_connection(config, endpoint, None).close()
        except (Unavailable, Misconfigured) as error:
            failure = failure or error
        else:
            return
    raise failure or Misconfigured("--queue-source", "it names no broker")
