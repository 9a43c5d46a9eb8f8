"""The cores of one machine as a simulated resource."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import simpy


class Core:
    """Processor sharing, as a kernel's fair scheduler comes to: each of n jobs gets an nth of the core."""

    def __init__(self, env: simpy.Environment) -> None:
        self.busy_s = 0.0
        self._env = env
        # Work that each job present has got so far, as one number for all of them: a job is done when this
        # has grown by its demand. No job's remaining work ever has to be touched.
        self._given_s = 0.0
        self._at_s = 0.0
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._timer = 0  # only the newest timer counts

    def __len__(self) -> int:
        return len(self._jobs)

    def run(self, demand_s: float, done: Callable[[], None]) -> None:
        self._advance()
        self._number += 1
        heapq.heappush(self._jobs, (self._given_s + demand_s, self._number, done))
        self._set_timer()

    def _advance(self) -> None:
        passed_s = self._env.now - self._at_s
        self._at_s = self._env.now
        if self._jobs:
            self._given_s += passed_s / len(self._jobs)
            self.busy_s += passed_s

    def _set_timer(self) -> None:
        self._timer += 1
        if self._jobs:
            delay_s = max(0.0, (self._jobs[0][0] - self._given_s) * len(self._jobs))
            timeout = self._env.timeout(delay_s, self._timer)
            assert timeout.callbacks is not None
            timeout.callbacks.append(self._expired)

    def _expired(self, event: simpy.Event) -> None:
        if event.value != self._timer:
            return
        self._advance()
        finished: list[Callable[[], None]] = []
        # A timer may come a rounding error early: what is that close to its end is at it.
        while self._jobs and self._jobs[0][0] <= self._given_s + 1e-9:
            finished.append(heapq.heappop(self._jobs)[2])
        self._set_timer()
        for done in finished:
            done()


class Cores:
    """A job runs on the core that had least to do when it came, and stays there: kernels even out what lasts for long, not
    what is over in milliseconds, so that a core may be idle while another one has several jobs.

    ``crowding`` is how many times longer the same work takes with all cores busy.
    """

    def __init__(self, env: simpy.Environment, count: int, crowding: float = 1.0) -> None:
        self.count = count
        self._cores = [Core(env) for _ in range(count)]
        self._crowding = crowding
        self._jobs = 0

    @property
    def busy_s(self) -> float:
        """Core-seconds used by jobs that have ended, and some of the others'."""
        return sum(core.busy_s for core in self._cores)

    @property
    def are_at_rest(self) -> bool:
        return not any(map(len, self._cores))

    def run(self, demand_s: float, done: Callable[[], None]) -> None:
        """Calls ``done`` when the demand has been served."""
        self._jobs += 1
        # Equally idle cores in turn.
        turn = self._jobs % self.count
        core = min(self._cores[turn:] + self._cores[:turn], key=len)
        if self.count > 1:
            others = sum(1 for other in self._cores if other is not core and len(other))
            demand_s *= 1 + (self._crowding - 1) * others / (self.count - 1)
        core.run(demand_s, done)
