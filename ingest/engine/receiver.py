"""The receiver process: the only one that talks to the broker.

It reads bodies into shared memory, gives descriptors to decoders, and acknowledges what writers report as
settled: after their commit, one by one. It parses no JSON, and waits for nothing but its selector; only while it connects
to a broker does it wait for that alone, for up to ``connect_timeout_s``.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import structlog

from ingest.config.kinds import importance
from ingest.config.machine import cores
from ingest.config.settings import Config
from ingest.core.delivery.arrival import Arrivals, Holding
from ingest.core.delivery.dispatching import Dispatcher
from ingest.core.delivery.headers import kept_headers, unacknowledgeable
from ingest.core.delivery.ledger import Delivery, Ledger
from ingest.core.delivery.routing import END_BYTES, START_BYTES, routing_key
from ingest.core.delivery.work import Descriptor, Forwarded, Outcome, Settled
from ingest.core.metrics import Metric
from ingest.engine.measuring import measure_ledger, measure_settled, measure_window
from ingest.engine.patience import Patience
from ingest.engine.process import Ended, process_names, reloaded, start_process
from ingest.engine.subscription import EVENT, Subscription
from ingest.ipc.control import ChildChannels, FdTransfer, Order
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import DECODER, IN_FLIGHT, METRICS_TABLE, RECEIVER, WRITER, kind_of
from ingest.ipc.process_metrics import MetricsTable, ProcessMetrics
from ingest.transport.message import Message

TOGETHER_BYTES = 2 * 1024 * 1024  # of messages that are given out at once
TRIM_EVERY_S = 60.0  # new pages cost a millisecond for each catalog
PAUSE_LOOK_S = 0.2  # how late the database's return may be noticed
LOOK_EVERY_S = 0.02  # at what others read of this process: a loaded one comes by a thousand times a second


def run(config: Config, control: Connection, name: str) -> None:
    """The body of the process: until the supervisor says "stop", or goes."""
    channels = ChildChannels(control, {"decoder": list[Forwarded], "writer": list[Settled]})
    with start_process(config, name, channels) as row:
        Receiver(config, channels, row).loop()


class Receiver:
    def __init__(self, config: Config, channels: ChildChannels, row: ProcessMetrics) -> None:
        self.config = config
        self.channels = channels
        self.row = row
        self.log = structlog.get_logger()
        self.ledger = Ledger(config.deaths_max, config.alone_after_s)
        decoders = [process for process in process_names(config) if kind_of(process) == DECODER]
        self._dispatcher = Dispatcher(self.ledger, decoders, cores(), config.writers)
        self._arrivals = Arrivals()
        self._rank_of = importance().of_message
        # The upper bits tell one receiver's deliveries from its predecessor's.
        self._arena_number, self._arena = next(iter(channels.arenas.items()))
        self._last_id = self._arena_number << 40
        self.subscription = Subscription(config, self._arena, self._arena_number, channels.selector, row)
        self._in_flight = InFlight(channels.memory[IN_FLIGHT], process_names(config))
        self._holding = Holding(self._in_flight.held_since(RECEIVER), self._in_flight.new_since(RECEIVER))
        self._patience = Patience(
            config, self.subscription, MetricsTable(channels.memory[METRICS_TABLE]), row
        )
        self._draining = False
        self._trimmed_s = time.monotonic()
        self._looked_s, self._looked_at = (
            0.0,
            (0, False),
        )  # when, and at which connection that was there or not
        self._has_looked = False  # since the last event

    # The loop

    def loop(self) -> None:
        self._patience.subscribe_if_allowed(self.ledger.messages)
        self._look_now_and_then(time.monotonic())  # ready now, not after the first event
        while not self._is_drained():
            for key, _ in self.channels.selector.select(self._timeout_s()):
                if key.data == "control":
                    self._obey(self.channels.control())
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
        if not self._draining:
            self._patience.subscribe_if_allowed(self.ledger.messages)
        self._look_now_and_then(time.monotonic())

    def _look_now_and_then(self, now_s: float) -> None:
        """At itself: what it holds for too long, what others are told of it. A connection that ends or begins is seen."""
        connection = (self.subscription.epoch, self.subscription.is_connected)
        self._has_looked = now_s - self._looked_s >= LOOK_EVERY_S or connection != self._looked_at
        if not self._has_looked:
            return
        self._looked_s, self._looked_at = now_s, connection
        self._patience.let_go_if_too_long(self.ledger, now_s)
        if now_s - self._trimmed_s > TRIM_EVERY_S:
            self._arena.trim()  # what an overload had filled is not kept for the next one
            self._trimmed_s = now_s
        self.subscription.measure_waste()
        connected = self.subscription.is_connected
        measure_window(self.row, self.config, self._arena.used_bytes, connected=connected)
        measure_ledger(self.row, self.ledger, now_s)
        oldest = self.ledger.oldest()
        since = oldest.received_at if oldest else None
        told = self._holding.told(since, datetime.now(UTC), connected=connected)
        self._in_flight.hold_since(RECEIVER, told)

    def _timeout_s(self) -> float:
        # How old the age metric may get, and what others are told of this engine.
        age_limit_s = 1.0 if self.ledger.messages or self._holding.matters else 5.0
        if not self._has_looked:
            age_limit_s = LOOK_EVERY_S
        if self._draining and not self.subscription.is_connected:
            return age_limit_s  # nobody connects again: what is due stays due
        if self._patience.is_paused:
            return PAUSE_LOOK_S
        return max(0.0, min(age_limit_s, self.subscription.wait_s()))

    def _obey(self, message: FdTransfer | Order) -> None:
        if isinstance(message, FdTransfer):
            self._rewire(message)
        elif message.word == "drain":
            self._draining = True
        elif message.word == "stop":
            raise Ended
        elif message.word == "reload":
            self.config = reloaded(message.detail)
            self.subscription.reload(self.config)
            self._patience.reload(self.config)

    def _rewire(self, transfer: FdTransfer) -> None:
        """A neighbour was replaced: what it had waits again."""
        is_decoder = transfer.role == "outbox"
        is_writer = transfer.role == "inbox" and kind_of(transfer.peer) == WRITER
        if is_decoder or is_writer:
            self._reassign(transfer.peer)

    def _reassign(self, peer: str) -> None:
        held = self._in_flight.held(peer)
        self._in_flight.empty(peer)
        count = self.ledger.count_at(peer)
        if (suspect := self.ledger.reassign(peer, held, time.monotonic())) is not None:
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
        inbox = self.channels.inboxes.get(peer)
        if inbox is None:
            return
        try:
            while True:
                for message in inbox.receive():
                    if isinstance(message, Forwarded):
                        self._forwarded(peer, message)
                    else:
                        self._settle(message)
                if not inbox.poll():
                    return
        except EOFError:
            self.channels.drop_inbox(peer)  # the supervisor brings the successor's

    def _forwarded(self, peer: str, message: Forwarded) -> None:
        self._dispatcher.moved(peer, time.monotonic())
        writer = message.writer
        is_current = writer is not None and message.incarnation == self.channels.incarnations.get(writer)
        self.ledger.forwarded(message.delivery, writer if is_current else None)

    def _settle(self, settled: Settled) -> None:
        delivery = self.ledger.settle(settled)
        if delivery is None:
            if settled.outcome is Outcome.REDO:
                self.row.add(Metric.REDONE)
            return
        if delivery.offset >= 0:
            self._arena.free(delivery.offset, delivery.length)
        measure_settled(self.row, settled.outcome, delivery.rank, time.monotonic() - delivery.received_s)
        self.subscription.acknowledge(delivery)

    # Towards the decoders

    def _dispatch(self) -> None:
        due = self._dispatcher.due(time.monotonic(), is_last_chance=self._draining)
        for decoder, deliveries in due.items():
            # False: it died. Its successor's outbox is on the way, and what is assigned is given out again.
            self.channels.outboxes[decoder].send([self._descriptor(delivery) for delivery in deliveries])

    def _descriptor(self, delivery: Delivery) -> Descriptor:
        return Descriptor(
            delivery.attempt,
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
        return not self._dispatcher.is_ahead(time.monotonic())

    def _take(self, message: Message) -> None:
        self._last_id += 1
        headers = message.headers
        verdict = message.verdict or unacknowledgeable(headers)
        if message.offset is None:
            limit = self.config.body_bytes_max
            verdict = ("too_large", f"a body of {message.body_bytes} bytes; body_bytes_max is {limit}")
        stamped_at = self._arrivals.stamped_at(headers)
        received_at = self._arrivals.received_at(datetime.now(UTC))
        self._holding.took(headers, stamped_at, received_at)
        self._in_flight.take_new_since(RECEIVER, self._holding.new_since)
        source = self.subscription.source(headers)
        key, rank = self._look(message, source.rank)
        delivery = Delivery(
            id=self._last_id,
            epoch=self.subscription.epoch,
            ack=headers.get("ack", headers.get("message-id", "")),
            message_id=headers.get("message-id", ""),
            offset=-1 if message.offset is None else message.offset,
            length=message.length,
            body_bytes=message.body_bytes,
            received_at=received_at,
            received_s=time.monotonic(),
            headers=kept_headers(headers, self.subscription.user_header),
            stamped_at=stamped_at,
            verdict=verdict,
            routing_key=key,
            subscription=source.subscription,
            rank=rank,
        )
        self.ledger.add(delivery)
        self.row.add(Metric.RECEIVED)
        self.row.add(Metric.RECEIVED_BYTES, message.body_bytes)
        if headers.get("redelivered") == "true":
            self.row.add(Metric.REDELIVERED)
            self._patience.look_at_delivery_count(headers)

    def _look(self, message: Message, rank: int) -> tuple[int, int]:
        """(routing key, rank), which are found at both ends of the body and in the headers."""
        if message.offset is None:
            return 0, self._rank_of(message.headers, b"", rank)
        start = bytes(self._arena.view(message.offset, min(START_BYTES, message.length)))
        at_end = min(END_BYTES, message.length)
        end = self._arena.view(message.offset + message.length - at_end, at_end)
        return routing_key(message.headers, start, bytes(end)), self._rank_of(message.headers, start, rank)

    # The end

    def _is_drained(self) -> bool:
        return self._draining and self.ledger.messages == 0 and self.subscription.has_acknowledged

    def _goodbye(self) -> None:
        for message in self.subscription.leave():
            if message.offset is not None:
                self._arena.free(message.offset, message.length)
        self.channels.report("drained")
