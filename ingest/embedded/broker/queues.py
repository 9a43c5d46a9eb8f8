"""Which consumer gets which message, and what becomes of it: the broker's whole state, without a socket.

A message is *ready* in its queue, or *outstanding* at one consumer, or settled and forgotten. ``ready`` is
always sorted by message number, so that what comes back stands where it stood before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ingest.embedded.broker.parser import Body

# What a message's objects cost besides their text, rounded up: 1.7 KB in all were measured (tracemalloc) with
# the ten headers that a catalog has.
MESSAGE_BYTES = 512
HEADER_BYTES = 128


def held_bytes(headers: dict[str, str], body_bytes: int) -> int:
    """The memory that a message takes."""
    text_bytes = sum(len(name) + len(value) for name, value in headers.items())
    return MESSAGE_BYTES + HEADER_BYTES * len(headers) + text_bytes + body_bytes


class Depth(NamedTuple):
    """How much one destination holds; ``bytes`` are those of the bodies."""

    ready: int
    unacknowledged: int
    consumers: int
    bytes: int


class Message:
    __slots__ = ("attempts", "body", "destination", "headers", "held_bytes", "id", "number")

    def __init__(self, number: int, id: str, destination: str, headers: dict[str, str], body: Body) -> None:
        self.number = number
        self.id = id
        self.destination = destination
        self.headers = headers
        self.body = body
        self.held_bytes = held_bytes(headers, len(body))
        self.attempts = 0  # deliveries begun


class Consumer:
    """What one connection takes part in. ``owner`` is whatever delivers to it."""

    __slots__ = ("outstanding", "owner", "subscriptions")

    def __init__(self, owner: object = None) -> None:
        self.owner = owner
        self.subscriptions: dict[str, Subscription] = {}
        self.outstanding: dict[str, Delivery] = {}  # by message id, in the order of delivery


class Subscription:
    __slots__ = ("ack", "consumer", "destination", "id", "outstanding", "prefetch_messages")

    def __init__(
        self, consumer: Consumer, id: str, destination: str, ack: str, prefetch_messages: int
    ) -> None:
        self.consumer = consumer
        self.id = id
        self.destination = destination
        self.ack = ack  # auto, client (cumulative) or client-individual
        self.prefetch_messages = prefetch_messages
        self.outstanding = 0


class Delivery:
    """One message on its way to, or in the hands of, one subscription."""

    __slots__ = ("attempt", "message", "subscription")

    def __init__(self, subscription: Subscription, message: Message) -> None:
        self.subscription = subscription
        self.message = message
        self.attempt = message.attempts

    @property
    def ack_id(self) -> str:
        """Names this delivery, so that a late ACK of an earlier one cannot settle it."""
        return f"{self.message.id}.{self.attempt}"


class _Queue:
    __slots__ = ("bytes", "ready", "subscriptions", "unacknowledged")

    def __init__(self) -> None:
        self.ready: deque[Message] = deque()
        self.subscriptions: deque[Subscription] = deque()  # whose turn it is stands first
        self.unacknowledged = 0
        self.bytes = 0


class Queues:
    def __init__(self, instance: str, clock_ms: Callable[[], int] | None = None) -> None:
        """``instance`` makes message ids different from those of another run of the broker. By ``clock_ms`` messages are
        stamped with the time at which they came, in milliseconds since the epoch, as ActiveMQ does."""
        self.held_bytes = 0  # of all messages, ready or outstanding
        self._instance = instance
        self._number = 0
        self._clock_ms = clock_ms
        self._stamp_ms = 0
        self._queues: dict[str, _Queue] = {}
        self._active: dict[str, None] = {}  # destinations in which a message may have found a consumer

    def send(self, destination: str, headers: dict[str, str], body: Body) -> None:
        self._number += 1
        if self._clock_ms is not None:
            headers["timestamp"] = str(self._stamp(self._clock_ms()))
        message = Message(self._number, f"{self._instance}-{self._number}", destination, headers, body)
        queue = self._queue(destination)
        queue.ready.append(message)
        queue.bytes += len(body)
        self.held_bytes += message.held_bytes

    def subscribe(
        self, consumer: Consumer, id: str, destination: str, ack: str, prefetch_messages: int
    ) -> None:
        subscription = Subscription(consumer, id, destination, ack, prefetch_messages)
        consumer.subscriptions[id] = subscription
        self._queue(destination).subscriptions.append(subscription)

    def unsubscribe(self, consumer: Consumer, id: str) -> bool:
        """Ends new deliveries; what is outstanding stays so. False: there is no such subscription."""
        subscription = consumer.subscriptions.pop(id, None)
        if subscription is None:
            return False
        self._queues[subscription.destination].subscriptions.remove(subscription)
        self._forget_if_idle(subscription.destination)
        return True

    def leave(self, consumer: Consumer) -> None:
        """The connection has ended: what was outstanding goes back to where it stood."""
        for id in list(consumer.subscriptions):
            self.unsubscribe(consumer, id)
        deliveries = list(consumer.outstanding.values())
        consumer.outstanding.clear()
        for delivery in deliveries:
            self._queues[delivery.message.destination].unacknowledged -= 1
        self._put_back(deliveries)

    @property
    def is_active(self) -> bool:
        """Whether ``deliveries`` may have something."""
        return bool(self._active)

    def deliveries(self) -> Iterator[Delivery]:
        """Each message that has found a consumer with room; they count as outstanding from now on."""
        while self._active:
            destination = next(iter(self._active))
            queue = self._queues.get(destination)
            delivery = self._deliver_one(queue) if queue is not None else None
            if delivery is None:
                del self._active[destination]
            else:
                yield delivery

    def outstanding(self, consumer: Consumer, message_id: str) -> Delivery | None:
        return consumer.outstanding.get(message_id)

    def outstanding_by_ack(self, consumer: Consumer, ack_id: str) -> Delivery | None:
        delivery = consumer.outstanding.get(ack_id.rpartition(".")[0])
        return delivery if delivery is not None and delivery.ack_id == ack_id else None

    def acknowledge(self, delivery: Delivery) -> None:
        """Settled: the message is gone, with all before it if the subscription acknowledges cumulatively."""
        destination = delivery.message.destination  # that of all: they are one subscription's
        queue = self._queues[destination]
        for settled in self._take_out(delivery):
            queue.bytes -= len(settled.message.body)
            self.held_bytes -= settled.message.held_bytes
        self._forget_if_idle(destination)

    def reject(self, delivery: Delivery) -> None:
        """NACK: back to where it stood, at once; whoever is next in turn gets it."""
        self._put_back(self._take_out(delivery))

    def ready_messages(self, destination: str) -> int:
        queue = self._queues.get(destination)
        return len(queue.ready) if queue is not None else 0

    def depths(self) -> dict[str, Depth]:
        return {
            name: Depth(len(queue.ready), queue.unacknowledged, len(queue.subscriptions), queue.bytes)
            for name, queue in self._queues.items()
        }

    def _stamp(self, now_ms: int) -> int:
        """Never earlier than the one before. Within a millisecond the last three digits of the number tell the order,
        and they begin again with a new one."""
        least = self._stamp_ms + (self._number % 1000 == 0)
        self._stamp_ms = max(now_ms, least)
        return self._stamp_ms

    def _queue(self, destination: str) -> _Queue:
        self._active[destination] = None
        return self._queues.setdefault(destination, _Queue())

    def _deliver_one(self, queue: _Queue) -> Delivery | None:
        if not queue.ready:
            return None
        for _ in range(len(queue.subscriptions)):
            subscription = queue.subscriptions[0]
            queue.subscriptions.rotate(-1)
            if subscription.outstanding < subscription.prefetch_messages:
                message = queue.ready.popleft()
                message.attempts += 1
                delivery = Delivery(subscription, message)
                subscription.outstanding += 1
                subscription.consumer.outstanding[message.id] = delivery
                queue.unacknowledged += 1
                return delivery
        return None

    def _take_out(self, delivery: Delivery) -> list[Delivery]:
        """No longer outstanding: this one, and those before it where ACK and NACK are cumulative."""
        subscription, outstanding = delivery.subscription, delivery.subscription.consumer.outstanding
        taken = [delivery]
        if subscription.ack == "client":
            taken = []
            for other in outstanding.values():
                if other.subscription is subscription:
                    taken.append(other)
                if other is delivery:
                    break
        for one in taken:
            del outstanding[one.message.id]
            subscription.outstanding -= 1
            self._queues[one.message.destination].unacknowledged -= 1
        self._active[subscription.destination] = None
        return taken

    def _put_back(self, deliveries: list[Delivery]) -> None:
        """Into the ready messages by number. ``deliveries`` are no longer in their consumer's hands."""
        by_destination: dict[str, list[Message]] = {}
        for delivery in deliveries:
            by_destination.setdefault(delivery.message.destination, []).append(delivery.message)
        for destination, messages in by_destination.items():
            queue = self._queue(destination)
            last = max(message.number for message in messages)
            # Only the few that stand before the last one returned have to make room.
            while queue.ready and queue.ready[0].number < last:
                messages.append(queue.ready.popleft())
            messages.sort(key=lambda message: message.number, reverse=True)
            queue.ready.extendleft(messages)

    def _forget_if_idle(self, destination: str) -> None:
        queue = self._queues.get(destination)
        if queue is not None and not (queue.ready or queue.unacknowledged or queue.subscriptions):
            del self._queues[destination]
