"""When a process that ended is started again. Times are monotonic and in seconds."""

from __future__ import annotations

RESTART_DELAY_MAX_S = 5.0
SHORT_LIFE_S = 2.0  # who lives no longer waits before its successor starts, from the second time on


class Restarts:
    """Of one process and its successors."""

    def __init__(self) -> None:
        self._started_s = 0.0
        self._short_lives = 0
        self._due_s: float | None = None

    def started(self, now_s: float) -> None:
        self._started_s = now_s
        self._due_s = None

    def ended(self, now_s: float) -> None:
        is_short = now_s - self._started_s < SHORT_LIFE_S
        self._short_lives = self._short_lives + 1 if is_short else 0
        delay_s = min(RESTART_DELAY_MAX_S, 0.1 * 2**self._short_lives) if self._short_lives > 1 else 0.0
        self._due_s = now_s + delay_s

    def is_due(self, now_s: float) -> bool:
        """It has ended, and its successor may start."""
        return self._due_s is not None and now_s >= self._due_s
