"""When a process that runs gets no further: somebody stopped it, or one message keeps it busy without end."""

from __future__ import annotations

STOPPED_LOOKS_MAX = 3  # one that somebody stopped (SIGSTOP) for so many looks in a row is stuck


class Stuck:
    """Of one process, which is looked at once a second."""

    def __init__(self) -> None:
        self._stopped_looks = 0
        self._held: int | None = None
        self._held_from_cpu_s = 0.0

    def is_stopped(self, is_stopped: bool) -> bool:
        """For too long by now; ``is_stopped``: it is at this moment."""
        self._stopped_looks = self._stopped_looks + 1 if is_stopped else 0
        return self._stopped_looks >= STOPPED_LOOKS_MAX

    def is_busy(self, held: int | None, cpu_s: float, cpu_max_s: float) -> bool:
        """For too long with the delivery that it holds, by its own clock: a machine that stood still or that others
        kept busy is no fault of a message."""
        if held != self._held:
            self._held, self._held_from_cpu_s = held, cpu_s
        return held is not None and cpu_s - self._held_from_cpu_s > cpu_max_s
