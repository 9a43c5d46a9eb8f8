"""Something that may happen with every message is logged now and then, with how often it happened."""

from __future__ import annotations


class Seldom:
    """Lets one event through in ``every_s``; counts the others."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next_s = float("-inf")
        self._happened = 0

    def happened(self, now_s: float) -> int:
        """How often it happened since this was more than zero; zero: too early to speak of it again."""
        self._happened += 1
        if now_s < self._next_s:
            return 0
        happened, self._happened = self._happened, 0
        self._next_s = now_s + self._every_s
        return happened
