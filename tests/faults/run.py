"""One run: a world, a seeded schedule of faults in it, and the figures at the end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tests.faults.audit import Verdict
from tests.faults.injuries import FAULTS, Fault, KillSupervisor, hold
from tests.faults.world import World

# Far below what the engine can: a probe shall measure recovery, not a backlog. STOMP 1.0 hands out one message after
# the other, and each is a batch of its own that waits for more (batch_linger_ms).
MESSAGES_PER_S, ONE_BY_ONE_PER_S = 40.0, 5.0
SUPERVISOR_KILLS = 40  # one in so many of a long run's kills
PROBE_EVERY = 100  # kills of a long run
KILLS_PER_S = 7.0  # on average; of the long run's eleven children each lives about two seconds then
CALM_S = (0.0, 0.3)  # between two faults: some meet an engine that has just recovered


class Injury(NamedTuple):
    """One turn of the schedule: what happened, and how long recovery took."""

    faults: tuple[str, ...]
    recovery_s: float
    limit_s: float | None


class Run(NamedTuple):
    """What a run found."""

    faults: int  # injected
    injuries: list[Injury]
    skipped: dict[str, str]
    verdict: Verdict
    seconds: float

    def worst(self) -> dict[str, tuple[int, float, float | None]]:
        """By fault, or combination: how often, the longest recovery, its limit."""
        found: dict[str, tuple[int, float, float | None]] = {}
        for injury in self.injuries:
            name = injury.faults[0] if len(injury.faults) == 1 else f"{len(injury.faults)} at once"
            count, longest, _ = found.get(name, (0, 0.0, None))
            found[name] = (count + 1, max(longest, injury.recovery_s), injury.limit_s)
        return found


def schedule(names: Sequence[str], rounds: int, combined: int, seed: int) -> Iterator[tuple[str, ...]]:
    """Each fault ``rounds`` times in a random order, then as many combinations of one of each area."""
    rng = random.Random(seed)
    singles = [(name,) for name in names] * rounds
    rng.shuffle(singles)
    yield from singles
    by_area: dict[str, list[str]] = {}
    for name in names:
        by_area.setdefault(FAULTS[name].area, []).append(name)
    for _ in range(combined):
        areas = rng.sample(sorted(by_area), min(len(by_area), rng.choice((2, 3))))
        yield tuple(rng.choice(by_area[area]) for area in areas)


def run(
    world: World,
    *,
    names: Sequence[str] | None = None,
    rounds: int = 1,
    combined: int = 0,
    seed: int = 1,
    hold_share: float = 1.0,
    told: Callable[[tuple[str, ...], float], None] = lambda *_: None,
) -> Run:
    """Hurts the world according to the schedule, under traffic. Ends the world's engine."""
    started_s = time.monotonic()
    rng = random.Random(seed)
    wanted = list(FAULTS if names is None else names)
    reasons = {name: FAULTS[name].missing(world) for name in wanted}
    possible = [name for name in wanted if reasons[name] is None]
    injuries = []
    with world.flow(_pace(world)):
        world.probe()
        for turn in schedule(possible, rounds, combined, seed):
            injury = _hurt(world, [FAULTS[name](rng) for name in turn], hold_share)
            injuries.append(injury)
            told(turn, injury.recovery_s)
            time.sleep(rng.uniform(*CALM_S))
    verdict = world.finish()
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    injected = sum(len(injury.faults) for injury in injuries)
    return Run(injected, injuries, skipped, verdict, time.monotonic() - started_s)


def kill_many(
    world: World,
    kills: int,
    seed: int = 1,
    told: Callable[[tuple[str, ...], float], None] = lambda *_: None,
    seconds_max: float = float("inf"),
) -> Run:
    """``kill -9`` of whatever process of the tree, at random moments, without waiting for any recovery; fewer than
    wanted when the time is over."""
    started_s = time.monotonic()
    rng = random.Random(seed)
    injuries: list[Injury] = []
    done = 0
    with world.flow(_pace(world)):
        world.probe()
        while done < kills and time.monotonic() - started_s < seconds_max:
            assert world.engine is not None
            if rng.randrange(SUPERVISOR_KILLS) == 0:
                turn: tuple[str, ...] = (KillSupervisor.name,)
                supervisor = KillSupervisor(rng)
                supervisor.begin(world)
                supervisor.end(world)
            else:
                children = world.engine.children()
                if not children:
                    time.sleep(0.01)
                    continue
                victim = rng.choice(sorted(children))
                turn = (f"kill a {victim.partition('-')[0]}",)
                os.kill(children[victim], signal.SIGKILL)
            done += 1
            if done % PROBE_EVERY == 0:
                injuries.append(Injury(turn, world.probe(), None))
            else:
                time.sleep(rng.expovariate(KILLS_PER_S))
            told(turn, 0.0)
    return Run(done, injuries, {}, world.finish(), time.monotonic() - started_s)


def _pace(world: World) -> float:
    is_one_by_one = world.broker is not None and world.broker.versions == ("1.0",)
    return ONE_BY_ONE_PER_S if is_one_by_one else MESSAGES_PER_S


def _hurt(world: World, faults: list[Fault], hold_share: float) -> Injury:
    for each in faults:
        each.begin(world)
    hold(faults, hold_share)
    # An engine that is to start again needs its database, or says so and ends.
    for each in sorted(faults, key=lambda one: one.area == "process"):
        each.end(world)
    single = faults[0].limit_s if len(faults) == 1 else None
    return Injury(tuple(each.name for each in faults), world.probe(), single)
