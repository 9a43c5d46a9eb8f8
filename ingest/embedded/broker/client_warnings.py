"""Lines in the log about clients: anybody on this machine can cause as many as he likes, and gets no more than so many."""

from __future__ import annotations

import structlog

WARNINGS_MAX, WARNINGS_S = 20, 10.0  # lines, and in how many seconds


class ClientWarnings:
    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log
        self._count, self._from_s = 0, -WARNINGS_S

    def warn(self, now_s: float, event: str, **details: object) -> None:
        if now_s >= self._from_s + WARNINGS_S:
            self._from_s, self._count = now_s, 0
        self._count += 1
        if self._count < WARNINGS_MAX:
            self._log.warning(event, **details)
        elif self._count == WARNINGS_MAX:
            self._log.warning(event, **details, note=f"no more of these for {WARNINGS_S:.0f} s")
