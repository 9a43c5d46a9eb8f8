"""What a broker remembers: queues, who listens, who has what unacknowledged. Pure: no socket, no clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Message:
    """One message in a queue or in a consumer's hands."""

    number: int
    headers: dict[str, str]
    body: bytes
    redelivered: bool = False


@dataclass(slots=True, eq=False)
class Subscription:
    """A consumer of one destination. ``client`` is its connection, whatever that is to the caller."""

    client: object
    id: str
    destination: str
    mode: str  # "auto" | "client" | "client-individual"
    prefetch: int
    unacked: dict[int, Message] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return self.mode == "auto" or len(self.unacked) < self.prefetch


@dataclass(slots=True)
class _Queue:
    messages: deque[Message] = field(default_factory=deque)
    subscriptions: deque[Subscription] = field(default_factory=deque)


Delivery = tuple[Subscription, Message]


class Queues:
    """All destinations of one broker. What changes returns the deliveries that are due now."""

    def __init__(self) -> None:
        self.bytes = 0  # of bodies, queued and unacknowledged
        self._queues: dict[str, _Queue] = {}
        self._number = 0

    def depth(self, destination: str) -> int:
        """Messages that nobody has acknowledged."""
        queue = self._queues.get(destination)
        if queue is None:
            return 0
        return len(queue.messages) + sum(len(s.unacked) for s in queue.subscriptions)

    def depths(self) -> dict[str, int]:
        return {destination: self.depth(destination) for destination in self._queues}

    def send(self, destination: str, headers: dict[str, str], body: bytes) -> list[Delivery]:
        self._number += 1
        queue = self._queues.setdefault(destination, _Queue())
        queue.messages.append(Message(self._number, headers, body))
        self.bytes += len(body)
        return self._deliver(queue)

    def subscribe(self, subscription: Subscription) -> list[Delivery]:
        queue = self._queues.setdefault(subscription.destination, _Queue())
        queue.subscriptions.append(subscription)
        return self._deliver(queue)

    def acknowledge(self, subscription: Subscription, number: int) -> list[Delivery] | None:
        """None: that message is not in the subscription's hands."""
        if number not in subscription.unacked:
            return None
        numbers = [number]
        if subscription.mode == "client":  # cumulative
            numbers = [n for n in subscription.unacked if n <= number]
        for n in numbers:
            self.bytes -= len(subscription.unacked.pop(n).body)
        return self._deliver(self._queues[subscription.destination])

    def refuse(self, subscription: Subscription, number: int) -> list[Delivery] | None:
        """NACK: back to the head of the queue."""
        message = subscription.unacked.pop(number, None)
        if message is None:
            return None
        message.redelivered = True
        queue = self._queues[subscription.destination]
        queue.messages.appendleft(message)
        return self._deliver(queue)

    def unsubscribe(self, subscription: Subscription) -> list[Delivery]:
        """The consumer is gone: what it had goes back to the head, in the old order."""
        queue = self._queues[subscription.destination]
        queue.subscriptions.remove(subscription)
        for number in sorted(subscription.unacked, reverse=True):
            message = subscription.unacked[number]
            message.redelivered = True
            queue.messages.appendleft(message)
        subscription.unacked.clear()
        return self._deliver(queue)

    def _deliver(self, queue: _Queue) -> list[Delivery]:
        """Hands out in turn to the consumers that have room."""
        due: list[Delivery] = []
        while queue.messages:
            for _ in range(len(queue.subscriptions)):
                subscription = queue.subscriptions[0]
                queue.subscriptions.rotate(-1)
                if subscription.has_room:
                    break
            else:
                break
            message = queue.messages.popleft()
            if subscription.mode == "auto":
                self.bytes -= len(message.body)
            else:
                subscription.unacked[message.number] = message
            due.append((subscription, message))
        return due
