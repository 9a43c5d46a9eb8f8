"""A message, who wants it, and who has it."""

from __future__ import annotations

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
    __slots__ = ("attempts", "body", "body_bytes", "destination", "headers", "held_bytes", "id", "number")

    def __init__(
        self,
        number: int,
        id: str,
        destination: str,
        headers: dict[str, str],
        body: Body | None,
        body_bytes: int,
    ) -> None:
        """``body`` is None while it lies in the journal only."""
        self.number = number
        self.id = id
        self.destination = destination
        self.headers = headers
        self.body = body
        self.body_bytes = body_bytes
        self.held_bytes = held_bytes(headers, 0 if body is None else body_bytes)
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
