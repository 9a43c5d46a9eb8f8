"""Says of things that may happen a thousand times a minute when to speak of one of them."""

from __future__ import annotations

from collections.abc import Hashable

KEYS_MAX = 1000


class Occasional:
    """A few of each key in every period; the next one that is let through says how many were not."""

    def __init__(self, most: int, period_s: float) -> None:
        self._most, self._period_s = most, period_s
        self._seen: dict[Hashable, tuple[float, int]] = {}  # when the period began, how many since

    def speak(self, key: Hashable, now_s: float) -> int | None:
        """None: not this one. Else how many of that key were passed over before it."""
        began_s, count = self._seen.pop(key, (now_s, 0))
        passed_over = 0
        if now_s - began_s >= self._period_s:
            passed_over = max(0, count - self._most)
            began_s, count = now_s, 0
        self._seen[key] = began_s, count + 1
        if len(self._seen) > KEYS_MAX:
            del self._seen[next(iter(self._seen))]
        return passed_over if count < self._most else None
