"""Which consumer gets which message, and what becomes of it: the broker's whole state, without a socket.

With a journal, which is told of each step, it may let bodies go and read them again.

A message is *ready* in its queue, or *outstanding* at one consumer, or settled and forgotten. ``ready`` is
always sorted by message number, so that what comes back stands where it stood before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from ingest.embedded.broker.journal import Journal
from ingest.embedded.broker.messages import Consumer, Delivery, Depth, Message, Subscription
from ingest.embedded.broker.parser import Body


class _Queue:
    __slots__ = ("bytes", "ready", "subscriptions", "unacknowledged")

    def __init__(self) -> None:
        self.ready: deque[Message] = deque()
        self.subscriptions: deque[Subscription] = deque()  # whose turn it is stands first
        self.unacknowledged = 0
        self.bytes = 0


class Queues:
    def __init__(
        self, instance: str, clock_ms: Callable[[], int] | None = None, journal: Journal | None = None
    ) -> None:
        """With what the journal still has. ``instance`` makes message ids different from those of another run of the
        broker. By ``clock_ms`` messages are stamped with the time at which they came, in milliseconds since the epoch, as
        ActiveMQ does."""
        self.held_bytes = 0  # of all messages, ready or outstanding
        self._instance = instance
        self._number = 0
        self._clock_ms = clock_ms
        self._stamp_ms = 0
        self._queues: dict[str, _Queue] = {}
        self._active: dict[str, None] = {}  # destinations in which a message may have found a consumer
        self._journal = journal
        self._with_body: dict[int, Message] = {}  # ready ones that the journal may have to keep alone
        if journal is not None:
            for kept in journal.recover():
                self._put(
                    kept.number, kept.destination, kept.headers, None, kept.body_bytes
                ).attempts = kept.delivered
                self._stamp_ms = max(self._stamp_ms, int(kept.headers.get("timestamp", "0")))
            self._number = journal.last_number

    def send(self, destination: str, headers: dict[str, str], body: Body, *, is_kept: bool = True) -> None:
        """``is_kept``: by the journal, where there is one."""
        self._number += 1
        if self._clock_ms is not None:
            headers["timestamp"] = str(self._stamp(self._clock_ms()))
        message = self._put(self._number, destination, headers, body, len(body))
        if self._journal is not None and is_kept:
            self._journal.message(message.number, destination, headers, body)
            self._with_body[message.number] = message

    @property
    def position(self) -> int:
        """Of all that has happened so far: what is durable has a lower one, or this."""
        return 0 if self._journal is None else self._journal.position

    @property
    def durable(self) -> int:
        return 0 if self._journal is None else self._journal.durable

    def refusal(self, needed_bytes: int) -> str:
        """Why no message of that size can be taken; empty: there is room."""
        return "" if self._journal is None else self._journal.refusal(needed_bytes)

    def let_bodies_go(self, held_bytes_max: int) -> None:
        """Out of memory, where the journal has them: those first that will be asked for last."""
        not_yet = []
        while self._journal is not None and self.held_bytes > held_bytes_max and self._with_body:
            number, message = self._with_body.popitem()
            if self._journal.is_durable(number):
                self._change_body(message, None)
            else:
                not_yet.append(message)
        for message in reversed(not_yet):
            self._with_body[message.number] = message

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
            queue.bytes -= settled.message.body_bytes
            self.held_bytes -= settled.message.held_bytes
            if self._journal is not None:
                self._journal.gone(settled.message.number)
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
                self._begin(message)
                delivery = Delivery(subscription, message)
                subscription.outstanding += 1
                subscription.consumer.outstanding[message.id] = delivery
                queue.unacknowledged += 1
                return delivery
        return None

    def _put(
        self, number: int, destination: str, headers: dict[str, str], body: Body | None, body_bytes: int
    ) -> Message:
        message = Message(number, f"{self._instance}-{number}", destination, headers, body, body_bytes)
        queue = self._queue(destination)
        queue.ready.append(message)
        queue.bytes += body_bytes
        self.held_bytes += message.held_bytes
        return message

    def _begin(self, message: Message) -> None:
        """A delivery of it."""
        message.attempts += 1
        if self._journal is None:
            return
        self._with_body.pop(message.number, None)
        if message.attempts == 1:
            self._journal.delivered(message.number)
        if message.body is None:
            self._change_body(message, self._journal.body(message.number))

    def _change_body(self, message: Message, body: Body | None) -> None:
        self.held_bytes += -message.body_bytes if body is None else message.body_bytes
        message.held_bytes += -message.body_bytes if body is None else message.body_bytes
        message.body = body

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
            message = delivery.message
            by_destination.setdefault(message.destination, []).append(message)
            if self._journal is not None:
                self._with_body[message.number] = message
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
