"""Nodes' lives and the truth about them: who runs when by the load generator's schedule, stops, comes back, changes its interval,
and what its clock says meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from tools.loadgen.schedule import schedule

INTERVALS_S = (600.0, 1800.0, 1800.0, 3600.0, 7200.0, 86400.0)
RUNS = 20  # of the interval before
JITTER = 0.02  # of the interval: compiles take as long as they take
BAND = 0.15  # of the limit: nobody is that near to being overdue, whose interval is known but for a twentieth
LIVES = ("regular", "stopped", "back", "slower", "faster", "ahead", "set back", "far ahead", "new")
CLOCKS_S = {"ahead": 175 * 60.0, "set back": -400 * 60.0, "far ahead": 3 * 86400.0}


class Run(NamedTuple):
    ago_s: float  # before now
    ahead_s: float = 0.0  # its clock


class Life(NamedTuple):
    certname: str
    kind: str
    interval_s: float  # the present one
    runs: tuple[Run, ...]

    @property
    def silent_s(self) -> float:
        return self.runs[-1].ago_s

    @property
    def limit_s(self) -> float:
        """It may miss one run, and be late besides."""
        return 2 * self.interval_s + 600

    @property
    def is_overdue(self) -> bool:
        return self.silent_s > self.limit_s


def lives(nodes: int, seed: int) -> Iterator[Life]:
    """Each kind as often as the others; of those that could, a third is silent for long at the end."""
    for number in range(nodes):
        chance = random.Random(f"{seed} life {number}")
        kind = LIVES[number % len(LIVES)]
        interval_s = chance.choice(INTERVALS_S)
        name = f"{kind.replace(' ', '-')}-{number:05d}.example.com"
        if kind == "new":
            yield Life(name, kind, interval_s, (Run(chance.uniform(0, 600)),))
            continue
        times_s = _times(number, seed, interval_s, RUNS, chance)
        if kind == "back":
            away = chance.randrange(5, 12)
            times_s = [*times_s[: RUNS - away - 2], *times_s[RUNS - 2 :]]
        if kind in ("slower", "faster"):
            factor = chance.choice((2.0, 3.0, 4.0))
            now_s = interval_s * factor if kind == "slower" else interval_s / factor
            after = 5 if kind == "slower" else round(4 * factor)
            begins_s = times_s[-1] + interval_s
            times_s += [begins_s + each for each in _times(number, seed + 1, now_s, after, chance)]
            interval_s = now_s
        may_stop = kind != "regular"
        silent_s = _silence(
            interval_s, chance, is_long=kind == "stopped" or (may_stop and chance.random() < 1 / 3)
        )
        ends_s = times_s[-1] + silent_s
        yield Life(name, kind, interval_s, tuple(_clocked(kind, [ends_s - each for each in times_s], chance)))


def _times(number: int, seed: int, interval_s: float, runs: int, chance: random.Random) -> list[float]:
    dues = schedule("steady", 1, interval_s, runs * interval_s, seed * 100_000 + number)
    return [due.at_s + chance.uniform(-JITTER, JITTER) * interval_s for due in dues]


def _silence(interval_s: float, chance: random.Random, *, is_long: bool) -> float:
    """Within the interval, or anything up to a multiple of the limit, but not next to it."""
    if not is_long:
        return chance.uniform(0, interval_s)
    limit_s = 2 * interval_s + 600
    while abs((found := chance.uniform(0, 4) * limit_s) - limit_s) < BAND * limit_s:
        pass
    return found


def _clocked(kind: str, agos_s: list[float], chance: random.Random) -> Iterator[Run]:
    """A clock jumps at some run, and for half of those nodes back again before the end."""
    if kind not in CLOCKS_S:
        yield from map(Run, agos_s)
        return
    first = chance.randrange(5, len(agos_s) - 5)
    last = len(agos_s) if chance.random() < 0.5 else first + chance.randrange(2, 5)
    for place, ago_s in enumerate(agos_s):
        yield Run(ago_s, CLOCKS_S[kind] if first <= place < last else 0.0)
