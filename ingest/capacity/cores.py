"""The cores of one machine as a simulated resource: everybody who wants to run gets an equal share."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import simpy


class Cores:
    """Processor sharing, as the kernel's fair scheduler comes to: with n jobs on N cores each runs at min(1, N/n).

    ``crowding`` is how many times longer the same work takes with all cores busy.
    """

    def __init__(self, env: simpy.Environment, count: int, crowding: float = 1.0) -> None:
        self.count = count
        self.busy_s = 0.0  # core-seconds used
        self._env = env
        self._crowding = crowding
        # Work that each job present has got so far, as one number for all of them: a job is done when this
        # has grown by its demand. No job's remaining work ever has to be touched.
        self._given_s = 0.0
        self._at_s = 0.0
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._timer = 0  # only the newest timer counts

    def run(self, demand_s: float, done: Callable[[], None]) -> None:
        """Calls ``done`` when the demand has been served."""
        self._advance()
        self._number += 1
        heapq.heappush(self._jobs, (self._given_s + demand_s, self._number, done))
        self._set_timer()

    def is_full(self) -> bool:
        """Whether one more job has to share."""
        return len(self._jobs) >= self.count

    def _rate(self) -> float:
        jobs = len(self._jobs)
        if self.count > 1:
            slower = 1 + (self._crowding - 1) * (min(jobs, self.count) - 1) / (self.count - 1)
        else:
            slower = 1.0
        return min(1.0, self.count / jobs) / slower

    def _advance(self) -> None:
        passed_s = self._env.now - self._at_s
        self._at_s = self._env.now
        if self._jobs and passed_s > 0:
            self._given_s += passed_s * self._rate()
            self.busy_s += passed_s * min(len(self._jobs), self.count)

    def _set_timer(self) -> None:
        self._timer += 1
        if self._jobs:
            delay_s = max(0.0, (self._jobs[0][0] - self._given_s) / self._rate())
            timeout = self._env.timeout(delay_s, self._timer)
            assert timeout.callbacks is not None
            timeout.callbacks.append(self._expired)

    def _expired(self, event: simpy.Event) -> None:
        if event.value != self._timer:
            return
        self._advance()
        finished: list[Callable[[], Any]] = []
        # A timer may come a rounding error early: what is that close to its end is at it.
        while self._jobs and self._jobs[0][0] <= self._given_s + 1e-9:
            finished.append(heapq.heappop(self._jobs)[2])
        self._set_timer()
        for done in finished:
            done()
