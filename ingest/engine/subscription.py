"""The receiver's subscriptions, one for each destination, on one connection kept alive: over reconnects, over a list of
brokers.

Each connection is an epoch of its own: what was acknowledged too late for it is forgotten, because the broker
delivers it again, and a later connection may not speak of an earlier one's deliveries.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import structlog

from ingest.config.settings import Config
from ingest.core.delivery.backoff import Backoff, is_waste, pause_after_waste_s
from ingest.core.delivery.importance import CATALOG
from ingest.core.delivery.ledger import Delivery
from ingest.core.delivery.producers import user_header
from ingest.core.delivery.windows import windows
from ingest.core.metrics import Metric
from ingest.errors import Misconfigured, Unavailable
from ingest.ipc.process_metrics import ProcessMetrics
from ingest.transport.message import Message, Space
from ingest.transport.protocol import Broker, Link, brokers

BACKOFF_START_S = 0.1
EVENT = "broker"  # how the selector calls the socket


class Source(NamedTuple):
    """Where a message came from."""

    subscription: str  # "": on that connection there is none
    rank: int  # of the destination


class Subscription:
    """Nothing in it raises Unavailable: a connection that ends is logged, and the next one tried when it is time."""

    def __init__(
        self, config: Config, space: Space, number: int, selector: selectors.BaseSelector, row: ProcessMetrics
    ) -> None:
        """``number`` tells this receiver from its predecessors."""
        self.config = config
        self.epoch = 0
        self._link: Link | None = None
        self._space = space
        self._number = number
        self._selector = selector
        self._row = row
        self._log = structlog.get_logger()
        self._brokers = brokers(config)
        self._next_broker = 0
        self._name = ""  # of the broker that we are connected to
        self._backoff = Backoff(BACKOFF_START_S)
        self._connected_s = 0.0
        self._wasted_before = 0  # subscriptions in a row; our predecessor's count too
        self._received_before = self._acknowledged_before = 0.0  # this epoch
        self._retry_at_s = self._not_before_s()
        self._first = Source("", CATALOG)
        self._sources: dict[str, Source] = {}  # of this epoch, by id and by destination
        self._acks: dict[str, list[tuple[str, str]]] = {}  # by subscription
        self._registered = 0  # the events that the socket is registered for

    def reload(self, config: Config) -> None:
        """For the next connection."""
        self.config = config
        self._brokers = brokers(config)

    @property
    def is_connected(self) -> bool:
        return self._link is not None

    @property
    def user_header(self) -> str | None:
        """The header in which this broker tells who published a message; None: nobody asks."""
        if not self.config.producers_file:
            return None
        return self.config.producer_header or user_header(self._link.server if self._link else "")

    @property
    def unread(self) -> bool:
        """Whether messages may be here that no event of the socket will tell of."""
        return self._link is not None and self._link.unread

    @property
    def has_acknowledged(self) -> bool:
        return not self._acks

    @property
    def window_messages(self) -> int:
        # Cumulative acknowledgement: one message at a time, or one ack settles others.
        one_by_one = self._link is not None and self._link.acknowledges_cumulatively
        return 1 if one_by_one else self.config.window_messages_max

    def wait_s(self) -> float:
        """Seconds until ``keep`` has something to do, if no event comes."""
        return self._retry_at_s - time.monotonic() if self._link is None else self._link.next_beat_s()

    def read(self) -> Iterator[Message]:
        """The messages that are here now; the caller may stop earlier."""
        if self._link is not None:
            with self._dropping_if_lost():
                yield from self._link.read()

    def listen(self) -> None:
        """Instead of ``read``, when no message is wanted now."""
        if self._link is not None:
            with self._dropping_if_lost():
                self._link.listen()

    def source(self, headers: Mapping[str, str]) -> Source:
        """Of a message with these headers. STOMP 1.0 and other protocols need not name the subscription."""
        found = self._sources.get(headers.get("subscription", ""))
        return found or self._sources.get(headers.get("destination", ""), self._first)

    def acknowledge(self, delivery: Delivery) -> None:
        """With the next ``keep``."""
        if delivery.epoch == self.epoch and self._link is not None:
            acks = self._acks.setdefault(delivery.subscription, [])
            acks.append((delivery.ack, delivery.message_id))

    def keep(self) -> None:
        """Sends what is due: acknowledgements, heart-beats."""
        link = self._link
        if link is None:
            return
        with self._dropping_if_lost():
            for subscription, acks in self._acks.items():
                link.acknowledge(acks, subscription)
                self._row.add(Metric.ACKNOWLEDGED, len(acks))
            self._acks.clear()
            link.flush()
            link.beat()
            self._register(link)

    def measure_waste(self) -> None:
        """As if the connection ended now: whoever is killed has no time to say so."""
        received = self._row.value(Metric.RECEIVED) - self._received_before
        acknowledged = self._row.value(Metric.ACKNOWLEDGED) - self._acknowledged_before
        if received:
            self._row.set(Metric.WASTED, self._wasted_before + 1 if is_waste(received, acknowledged) else 0)

    def connect_if_due(self) -> None:
        """Tries the next broker of the list, when it is time."""
        if self._link is None and time.monotonic() >= self._retry_at_s:
            self._connect()

    def let_go(self) -> None:
        """Ends the connection: the broker gives its messages to whoever asks next."""
        link, self._link = self._link, None
        if link is not None:
            if self._registered:
                self._selector.unregister(link)
            link.close()
        self._registered = 0
        self._acks.clear()  # they belonged to that epoch; the broker will deliver again

    def leave(self) -> Iterator[Message]:
        """DISCONNECT with a receipt: when this ends, the broker has seen every acknowledgement. Gives messages that
        still come; they stay at the broker."""
        link = self._link
        if link is None:
            return
        receipt = f"bye-{self.epoch}"
        deadline = time.monotonic() + self.config.connect_timeout_s
        # The broker may close first; what it had not seen acknowledged it delivers again.
        with contextlib.suppress(Unavailable):
            link.disconnect(receipt)
            while receipt not in link.receipts and time.monotonic() < deadline:
                yield from link.read()
                link.flush()
                time.sleep(0.002)
        self.let_go()

    @contextlib.contextmanager
    def _dropping_if_lost(self) -> Iterator[None]:
        """For steps that may find the connection broken."""
        try:
            yield
        except Unavailable as error:
            self._log.warning("connection_lost", broker=self._name, reason=str(error))
            self.measure_waste()
            self.let_go()
            if time.monotonic() - self._connected_s > self.config.backoff_max_s:
                # Not before: one that lets us in and throws us out again is no better than one that is away.
                self._backoff.reset()
            self._retry_later(self._not_before_s())

    def _connect(self) -> None:
        broker = self._brokers[self._next_broker % len(self._brokers)]
        self._next_broker += 1
        try:
            self._subscribe(broker)
        except (Unavailable, Misconfigured) as error:
            self._log.warning("broker_unavailable", broker=str(broker), reason=str(error))
            self.let_go()
            self._retry_later()

    def _subscribe(self, broker: Broker) -> None:
        link = self._link = broker.connect(self._space)
        self._name = str(broker)
        self.epoch += 1
        self._subscribe_all(link)
        self._connected_s = time.monotonic()
        self._wasted_before = int(self._row.value(Metric.WASTED))
        self._received_before = self._row.value(Metric.RECEIVED)
        self._acknowledged_before = self._row.value(Metric.ACKNOWLEDGED)
        self._register(link)
        self._row.add(Metric.CONNECTIONS)
        self._log.info(
            "connected", broker=self._name, server=link.server or "unnamed", protocol=link.protocol, epoch=self.epoch,
            destinations=[name for name in self._sources if name in self.config.taken],
        )  # fmt: skip

    def _subscribe_all(self, link: Link) -> None:
        """To each destination, for its part of the window: what waits in one of them leaves the others theirs."""
        taken = self._choose_destinations(link)
        messages, bytes_ = windows(taken, self.window_messages), windows(taken, self.config.window_bytes_max)
        self._sources = {}
        for place, destination in enumerate(taken):
            # Never the same twice: RabbitMQ takes an old connection's ack for another message.
            source = Source(f"ingest-{self._number}-{self.epoch}-{place}", self.config.taken[destination])
            self._first = source if place == 0 else self._first
            self._sources |= {source.subscription: source, destination: source}
            link.subscribe(destination, source.subscription, messages[destination], bytes_[destination])

    def _choose_destinations(self, link: Link) -> list[str]:
        """Where one acknowledgement settles the earlier messages too, it does not say of which subscription, and StompServer
        loses count of two: there it is the first destination alone."""
        taken = list(self.config.taken)
        if link.acknowledges_cumulatively and len(taken) > 1:
            self._log.warning(
                "queues_not_taken", broker=self._name, protocol=link.protocol, destinations=taken[1:],
                note="over STOMP 1.0 an engine takes from one queue: let all kinds go to that, or run one with --kinds for each",
            )  # fmt: skip
            return taken[:1]
        return taken

    def _not_before_s(self) -> float:
        """A broker that takes its deliveries back again and again is left alone for longer."""
        return time.monotonic() + pause_after_waste_s(int(self._row.value(Metric.WASTED)), random.random())

    def _retry_later(self, not_before_s: float = 0.0) -> None:
        round_is_over = self._next_broker % len(self._brokers) == 0
        pause_s = self._backoff.pause_s(self.config.backoff_max_s, random.random(), grows=round_is_over)
        self._retry_at_s = max(time.monotonic() + pause_s, not_before_s)

    def _register(self, link: Link) -> None:
        """Listens to the socket for what can be done now. With a full window that is heart-beats."""
        events = 0
        if link.listens:
            events |= selectors.EVENT_READ
        if link.wants_write:
            events |= selectors.EVENT_WRITE
        if events == self._registered:
            return
        if not self._registered:
            self._selector.register(link, events, EVENT)
        elif events:
            self._selector.modify(link, events, EVENT)
        else:
            self._selector.unregister(link)
        self._registered = events
