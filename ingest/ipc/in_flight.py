"""What each process has in its hands, in shared memory, for whoever must know when it dies."""

from __future__ import annotations

import mmap


class InFlight:
    """What each process has in its hands right now: a delivery, and a session at PostgreSQL.

    When a process dies, this tells what may have killed it, and which session it may have left behind; the supervisor
    reads from it who is stuck. It reads while the other writes, so a number is stored at once: ``struct`` would clear
    its place and fill it byte by byte.
    """

    _NUMBERS = 2  # of 64 bits for each process: the delivery, the token of its session

    def __init__(self, memory_: mmap.mmap, processes: list[str]) -> None:
        self._numbers: memoryview[int] = memoryview(memory_).cast("Q")
        self._places = {name: self._NUMBERS * at for at, name in enumerate(processes)}

    @classmethod
    def size_bytes(cls, processes: int) -> int:
        return max(1, processes) * cls._NUMBERS * 8

    def hold(self, process: str, delivery: int) -> None:
        self._numbers[self._places[process]] = delivery

    def empty(self, process: str) -> None:
        self._numbers[self._places[process]] = 0

    def held(self, process: str) -> int | None:
        """The delivery's number, or None for empty hands."""
        return self._numbers[self._places[process]] or None

    def open_session(self, process: str, token: int) -> None:
        self._numbers[self._places[process] + 1] = token

    def session(self, process: str) -> int | None:
        """The token of the session that served the process last, maybe before it was replaced."""
        return self._numbers[self._places[process] + 1] or None
