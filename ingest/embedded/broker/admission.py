"""Which producer may send its next message: bodies in memory stay under a limit.

A producer asks before its message's body is read. When there is no room it waits in line, and so do those who
ask after it, until consumers have settled enough; nothing is dropped. A body whose length its sender does not
tell is counted when it has come, so each producer of such bodies may exceed the limit by one.
"""

from __future__ import annotations

from collections.abc import Callable

# Let go of the line at 7/8 of the limit, not with each message settled: fewer, longer turns.
LOW_WATER_SHARE = 0.875


class Admission:
    def __init__(self, memory_bytes_max: int, held_bytes: Callable[[], int]) -> None:
        self._memory_bytes_max = memory_bytes_max
        self._held_bytes = held_bytes
        self._coming: dict[object, int] = {}  # admitted and not yet whole
        self._coming_bytes = 0
        self._line: dict[object, int] = {}  # who waits and for how many bytes, first come first

    @property
    def used_bytes(self) -> int:
        return self._held_bytes() + self._coming_bytes

    def admit(self, producer: object, needed_bytes: int) -> bool:
        """Yes: the room is kept until ``arrived`` or ``forget``. No: the producer is in line."""
        is_its_turn = not self._line or next(iter(self._line)) is producer
        if not is_its_turn or not self._has_room(needed_bytes):
            self._line[producer] = needed_bytes
            return False
        self._line.pop(producer, None)
        self._coming[producer] = needed_bytes
        self._coming_bytes += needed_bytes
        return True

    def is_coming(self, producer: object) -> bool:
        """Room is kept for a message that is not whole yet."""
        return producer in self._coming

    def arrived(self, producer: object) -> None:
        """Its message is in a queue, and counted there."""
        self._coming_bytes -= self._coming.pop(producer, 0)

    def forget(self, producer: object) -> None:
        self.arrived(producer)
        self._line.pop(producer, None)

    def next_in_line(self) -> object | None:
        """Who may ask again now, if anybody."""
        if self._line and self.used_bytes <= LOW_WATER_SHARE * self._memory_bytes_max:
            producer, needed_bytes = next(iter(self._line.items()))
            return producer if self._has_room(needed_bytes) else None
        return None

    def _has_room(self, needed_bytes: int) -> bool:
        # An empty broker takes any message that is within the limit of a single one.
        used = self.used_bytes
        return not used or used + needed_bytes <= self._memory_bytes_max
