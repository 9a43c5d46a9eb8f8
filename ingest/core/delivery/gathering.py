"""When a batch is closed: the rules of a writer, as values. Times are monotonic and in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

Work = TypeVar("Work")

# So many times the linger without a batch are a pause: nobody is to be expected, and the first item is not kept waiting
# for company.
PAUSE_LINGERS = 2


class BatchLimits(NamedTuple):
    messages_max: int
    bytes_max: int
    linger_s: float


def linger_s(limits: BatchLimits, since_last_batch_s: float) -> float:
    """How long the first item of a batch waits for company."""
    return limits.linger_s if since_last_batch_s < PAUSE_LINGERS * limits.linger_s else 0.0


class Gathering(Generic[Work]):
    """The work that came and is not in a batch yet. ``limits`` may change between two batches."""

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self._works: list[Work] = []
        self._bytes = 0
        self._last_bytes = 0  # of what came together last

    def __bool__(self) -> bool:
        return bool(self._works)

    @property
    def is_full(self) -> bool:
        return len(self._works) >= self.limits.messages_max or self._bytes >= self.limits.bytes_max

    def add(self, works: Sequence[Work], together_bytes: int) -> None:
        """What came together."""
        self._works += works
        self._bytes += together_bytes
        self._last_bytes = together_bytes

    def take(self) -> list[Work]:
        """The batch. What came together with its last ones may be too many: that begins the next one, and counts there as
        all that came with it, because a whole catalog may stand behind the claims."""
        most = self.limits.messages_max
        batch, self._works = self._works[:most], self._works[most:]
        self._bytes = self._last_bytes if self._works else 0
        return batch
