"""When a message came to the queue, as far as that can be told: the order of catalogs that name no time of their own.

Brokers that stamp messages (ActiveMQ and Artemis do, RabbitMQ when it is told to, the embedded one) give one order to all
engines, whatever is redelivered. Without a stamp there is only the moment at which an engine read the message.
docs/decisions/0008-order.md says what can be promised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from ingest.core.delivery.work import UNPLACED, Descriptor
from ingest.core.times import EPOCH

# RabbitMQ's own interceptor writes both, and ``timestamp`` only to the second.
STAMP_HEADERS = ("timestamp_in_ms", "timestamp")
_SECONDS_MIN, _SECONDS_MAX = 10**8, 10**11  # 1973 to 5138; beyond that it is milliseconds
_SECOND, _MILLISECOND = 1_000_000, 1000  # in microseconds
_NUMBER_DIGITS_MAX = 18


class Timed(Protocol):
    """Work whose order is decided by a time."""

    @property
    def delivery(self) -> int: ...
    @property
    def received_at(self) -> datetime: ...
    @property
    def producer_timestamp(self) -> datetime: ...


K = TypeVar("K")  # work of any kind
W = TypeVar("W", bound=Timed)
_STEP = timedelta(microseconds=1)
# How long a broker takes to give out again what a lost connection held, once it knows of the loss.
COMES_AGAIN_WITHIN = timedelta(seconds=30)
_WITH_TIME_IN_A_ROW = 100
_NARROWED = 1024  # an hour of messages that come again takes four seconds: what came first meanwhile is newer than them
_CLOCK_STEP_MAX = timedelta(days=1)


class Arrivals:
    """Of the messages that one receiver reads."""

    def __init__(self) -> None:
        self._received_at = datetime.min.replace(tzinfo=UTC)
        self._stamp = 0
        self._place = 0

    def received_at(self, now: datetime) -> datetime:
        """Later than that of every message before, also when the clock stands still or is put back a little."""
        last = self._received_at
        if now <= last and last - now < _CLOCK_STEP_MAX:
            now = last + _STEP
        self._received_at = now
        return now

    def stamped_at(self, headers: Mapping[str, str]) -> datetime | None:
        """When the broker took the message; between two of the same stamp, by the number that it gave them, or else in the
        order in which they come. None: it does not say."""
        stamp, unit = _stamp_of(headers)
        if stamp is None:
            return None
        number = _number_of(headers.get("message-id", "")) if unit == _MILLISECOND else None
        if number is None:
            self._place = min(self._place + 1, unit - 1) if stamp == self._stamp else 0
            self._stamp = stamp
            number = self._place
        try:
            return EPOCH + timedelta(microseconds=stamp + number % unit)
        except OverflowError:
            return None


class Holding:
    """Since when a receiver holds the oldest message that it has not settled: what another engine gets of it again came
    first no earlier. While brokers give out again what a lost connection held, it stays as it was at the loss."""

    def __init__(self, told: int, new_since: int = 0) -> None:
        """Both are what this receiver's predecessor said last, or 0."""
        self.new_since = (
            new_since  # microseconds since the epoch: when the first message came that nobody had before
        )
        self._since = EPOCH + timedelta(microseconds=told >> 1)
        self._stays_until: datetime | None = None
        self._had_connection = bool(told)
        self._takes_new = bool(told & 1)
        self._with_time = 0

    def took(self, headers: Mapping[str, str], stamped_at: datetime | None, received_at: datetime) -> None:
        """A message came."""
        if headers.get("redelivered") != "true":
            self._takes_new = True
            self.new_since = self.new_since or (received_at - EPOCH) // _STEP
        if stamped_at is not None:
            self._with_time = _WITH_TIME_IN_A_ROW  # then the broker stamps all of them
        elif "producer_timestamp" in headers:
            self._with_time += 1
        else:
            self._with_time = 0

    @property
    def matters(self) -> bool:
        """Not where the broker stamps messages, or a hundred in a row had times of their own."""
        return self._with_time < _WITH_TIME_IN_A_ROW

    def told(self, oldest: datetime | None, now: datetime, *, connected: bool) -> int:
        """Microseconds since the epoch, times two, and one more if messages came that nobody had before; 0: it does not
        matter."""
        if not self.matters:
            return 0
        since = oldest or now
        if self._had_connection and (self._stays_until is None or not connected):
            self._stays_until = now + COMES_AGAIN_WITHIN
        self._had_connection = self._had_connection or connected
        self._stays_until = self._stays_until or now
        self._since = min(since, self._since) if now < self._stays_until else since
        return (self._since - EPOCH) // _STEP << 1 | self._takes_new


class Places:
    """Where messages that come again without any time belong, for one writer: behind all that was stored before they can have
    come first, and before all that was stored since; among each other in the order in which they come."""

    def __init__(self) -> None:
        self._after: datetime | None = None
        self._last = UNPLACED

    def place(self, received_at: datetime, came_first_after: datetime | None) -> datetime:
        if came_first_after is None or came_first_after >= received_at:
            return received_at
        if came_first_after != self._after:
            self._after, self._last = came_first_after, came_first_after
        found = came_first_after + (received_at - came_first_after) / _NARROWED
        self._last = max(found, self._last + _STEP)
        return self._last


def believable(work: K, descriptor: Descriptor, tolerance: timedelta) -> K:
    """The work as it came, unless its time lies further ahead of its receipt than that: such a time would shut its node out
    until then, and counts as that of arrival. Work of some kinds has no time."""
    timed: Any = work
    said: datetime | None = getattr(timed, "producer_timestamp", None)
    received_at: datetime = timed.received_at
    if said is None or said <= received_at or said <= (latest := received_at + tolerance):
        return work
    counts: K = placed(timed, descriptor.arrived_at if descriptor.arrived_at <= latest else received_at)
    return counts


def placed(work: W, at: datetime) -> W:
    """The work with that for its time. Where that is not a field of its own, the work has a method for it."""
    own: Callable[[W, datetime], W] | None = getattr(type(work), "placed", None)
    if own:
        return own(work, at)
    return replace(work, producer_timestamp=at)  # type: ignore[type-var]


def _stamp_of(headers: Mapping[str, str]) -> tuple[int | None, int]:
    """(microseconds since the epoch, how many of them one stamp stands for)."""
    for name in STAMP_HEADERS:
        text = headers.get(name)
        if text and text.isascii() and text.isdigit() and len(text) <= 16:
            number = int(text)
            if number >= _SECONDS_MAX:
                return number * _MILLISECOND, _MILLISECOND
            if number >= _SECONDS_MIN:
                return number * _SECOND, _SECOND
    return None, 0


def _number_of(message_id: str) -> int | None:
    """A message's number at the end of its id: of its producer (ActiveMQ), or of the broker. RabbitMQ's is of the delivery."""
    digits = message_id[max(message_id.rfind(":"), message_id.rfind("-")) + 1 :]
    if len(digits) > _NUMBER_DIGITS_MAX or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits)
