"""When a message came to the queue, as far as that can be told: the order of catalogs that name no time of their own.

Brokers that stamp messages (ActiveMQ and Artemis do, RabbitMQ when it is told to, the embedded one) give one order to all
engines, whatever is redelivered. Without a stamp there is only the moment at which an engine read the message.
docs/decisions/0008-order.md says what can be promised.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from msgspec.structs import replace

from ingest.core.delivery.work import Claim, Deactivate, Descriptor, Full
from ingest.core.times import EPOCH

# RabbitMQ's own interceptor writes both, and ``timestamp`` only to the second.
STAMP_HEADERS = ("timestamp_in_ms", "timestamp")
_SECONDS_MIN, _SECONDS_MAX = 10**8, 10**11  # 1973 to 5138; beyond that it is milliseconds
_SECOND, _MILLISECOND = 1_000_000, 1000  # in microseconds
# A message's number at the end of its id: for each producer (ActiveMQ), or of the broker. RabbitMQ's is of the delivery.
_NUMBER = re.compile(r"(?:^|[:-])([0-9]+)$")
W = TypeVar("W", bound=Claim | Full | Deactivate)
_STEP = timedelta(microseconds=1)
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


def believable(work: W, descriptor: Descriptor, tolerance: timedelta) -> W:
    """The work as it came, unless its time lies further ahead of its receipt than that: such a time would shut its node out
    until then, and counts as that of arrival."""
    said = time_of(work)
    if said <= work.received_at or said <= (latest := work.received_at + tolerance):
        return work
    counts = descriptor.arrived_at if descriptor.arrived_at <= latest else work.received_at
    if isinstance(work, Deactivate):
        return replace(work, producer_timestamp=counts)
    return replace(work, header=replace(work.header, producer_timestamp=counts))


def time_of(work: Claim | Full | Deactivate) -> datetime:
    """By which its order is decided."""
    return work.producer_timestamp if isinstance(work, Deactivate) else work.header.producer_timestamp


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
    match = None if "@@" in message_id else _NUMBER.search(message_id)
    return int(match[1]) if match else None
