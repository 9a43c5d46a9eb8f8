"""Whether messages may be taken from the broker: never while it is known that they cannot be settled.

Each time that deliveries go back to the broker it counts one more of them, and drops a message (a quorum queue of
RabbitMQ 4: after twenty) or moves it away. So deliveries are let go of once, and a subscription is begun only when the
database is there and has settled what was let go of: that is the proof that it can settle again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum

LIMIT_NOTE = (
    "this queue may have a delivery-limit, and then the broker drops or moves away a message that was delivered more "
    "often (RabbitMQ 4: 20 times, unless a policy says otherwise): docs/brokers.md"
)


class Pause(IntEnum):
    """Why nothing is taken; the numbers are those of the metric."""

    NONE = 0
    DATABASE_AWAY = 1
    NOT_SETTLED = 2

    @property
    def reason(self) -> str:
        return {
            Pause.NONE: "",
            Pause.DATABASE_AWAY: "the database is away",
            Pause.NOT_SETTLED: "what was let go of is not settled yet: a writer waits for the database",
        }[self]


class Intake:
    """Asked before each subscription."""

    def __init__(self) -> None:
        self._owes = False

    def let_go(self) -> None:
        """The deliveries went back to the broker; what they hold is still being worked on."""
        self._owes = True

    def pause(self, writers_up: Iterable[bool], unsettled: int) -> Pause:
        """``unsettled`` are the deliveries in the book, all of connections that have ended."""
        if not all(writers_up):
            return Pause.DATABASE_AWAY
        self._owes = self._owes and unsettled > 0
        return Pause.NOT_SETTLED if self._owes else Pause.NONE


def delivery_count(headers: Mapping[str, str]) -> int:
    """How often the broker says that it had delivered the message before; only queues that count them say it."""
    count = headers.get("x-delivery-count", "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0
