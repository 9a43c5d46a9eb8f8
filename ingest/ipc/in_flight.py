"""What each process has in its hands, in shared memory, for whoever must know when it dies."""

from __future__ import annotations

import mmap


class InFlight:
    """What each process has in its hands right now: a delivery, and a session at PostgreSQL. Of the receiver since when it has
    held the oldest of all that it has not settled, and taken what nobody had before; of the supervisor the engine's number.

    When a process dies, this tells what may have killed it, and which session it may have left behind; the supervisor
    reads from it who is stuck. It reads while the other writes, so a number is stored at once: ``struct`` would clear
    its place and fill it byte by byte.
    """

    _NUMBERS = 4  # of 64 bits for each process: the delivery; the process id of its backend and its token; the oldest's receipt

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

    def open_session(self, process: str, backend_pid: int, token: int) -> None:
        at = self._places[process]
        self._numbers[at + 1], self._numbers[at + 2] = backend_pid, token

    def session(self, process: str) -> tuple[int, int] | None:
        """Process id and token of the session that served the process last, maybe before it was replaced."""
        at = self._places[process]
        backend_pid, token = self._numbers[at + 1], self._numbers[at + 2]
        return (backend_pid, token) if backend_pid else None

    def hold_since(self, process: str, number: int) -> None:
        self._numbers[self._places[process] + 3] = number

    def take_new_since(self, process: str, number: int) -> None:
        """Of the receiver, which has no session."""
        self._numbers[self._places[process] + 1] = number

    def new_since(self, process: str) -> int:
        """What the process said last, maybe before it was replaced; 0: nothing."""
        return self._numbers[self._places[process] + 1]

    def held_since(self, process: str) -> int:
        """What the process said last, maybe before it was replaced; 0: nothing."""
        return self._numbers[self._places[process] + 3]
