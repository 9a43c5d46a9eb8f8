"""Faults that go on beside each other, each mended after a while: generators that yield how long nothing is to be done.

One thread drives all of them: a server ends with the thread that started it. What one fault has its hands on is nobody else's
meanwhile.
"""

from __future__ import annotations

import heapq
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from lab.cluster import MEMBERS
from lab.engine import Engine
from lab.proxy import Mode, Proxy
from lab.stomp_client import Client
from tests.cluster.run import Run, has_run

Steps = Iterator[float]
PAUSE_S = (1.0, 12.0)  # of a lane between two faults
BACK_S = 90.0  # a server that is not back by then is left to the end of the run
PRIMARY = 0.6  # of the faults of a member hit the primary
LINKS = {"stalled": Mode.STALL, "slow": Mode.SLOW, "refused": Mode.REFUSE}


class Hit(NamedTuple):
    what: str
    began_s: float  # since the run's begin
    lasted_s: float


class World:
    """What the faults share."""

    def __init__(self, run: Run, databases: list[Proxy], brokers: list[Proxy]) -> None:
        self.run = run
        self.links = [(f"database {place + 1}", proxy) for place, proxy in enumerate(databases)]
        self.links += [(f"broker {place + 1}", proxy) for place, proxy in enumerate(brokers)]
        self.hits: list[Hit] = []
        self.stopped: list[tuple[Engine, bool]] = []  # whether in order
        self.starts_again = 0  # of engines that found no database
        self.began_s = time.monotonic()
        self._held: set[str] = set()

    @contextmanager
    def holding(self, name: str, what: str) -> Iterator[bool]:
        """False where another fault has its hands on it."""
        if name in self._held:
            yield False
            return
        self._held.add(name)
        began_s = time.monotonic()
        try:
            yield True
        finally:
            self._held.discard(name)
            lasted_s = time.monotonic() - began_s
            self.hits.append(Hit(f"{name} {what}", round(began_s - self.began_s, 1), round(lasted_s, 1)))


Fault = Callable[[World, random.Random], Steps]


def hurt(world: World, lanes: dict[str, tuple[Fault, ...]], seed: int, seconds: float) -> None:
    """Each lane has one fault after the other; after that time what goes on is brought to its end."""
    ends_s = time.monotonic() + seconds
    waiting: list[tuple[float, int, Steps]] = [(0.0, -1, service_manager(world, ends_s))]
    waiting += [
        (0.0, place, _lane(world, faults, random.Random(f"{seed} {name}"), ends_s))
        for place, (name, faults) in enumerate(lanes.items())
    ]
    while waiting:
        at_s, place, steps = heapq.heappop(waiting)
        time.sleep(max(0.0, at_s - time.monotonic()))
        with suppress(StopIteration):
            heapq.heappush(waiting, (time.monotonic() + next(steps), place, steps))


def service_manager(world: World, ends_s: float) -> Steps:
    """Starts an engine again that found no database at its start; one that ended otherwise is left, and counted."""
    while time.monotonic() < ends_s or not _are_up(world):
        for engine in list(world.run.engines):
            if engine.process.poll() is not None and not has_run(engine):
                world.run.engines.remove(engine)
                world.run.start_engine()
                world.starts_again += 1
        yield 1.0
        if time.monotonic() > ends_s + BACK_S:
            return


def _are_up(world: World) -> bool:
    return all(engine.process.poll() is None for engine in world.run.engines)


def _lane(world: World, faults: tuple[Fault, ...], chance: random.Random, ends_s: float) -> Steps:
    while True:
        yield chance.uniform(*PAUSE_S)
        if time.monotonic() > ends_s:
            return
        yield from chance.choice(faults)(world, chance)


def _until(condition: Callable[[], object]) -> Steps:
    deadline = time.monotonic() + BACK_S
    while not condition() and time.monotonic() < deadline:
        yield 1.0


# Brokers


def broker_killed(world: World, chance: random.Random) -> Steps:
    place = chance.randrange(MEMBERS)
    with world.holding(f"r{place + 1}", "killed") as is_ours:
        if is_ours:
            node = world.run.cluster.brokers.nodes[place]
            node.kill()
            yield chance.uniform(0, 15)
            node.start()
            yield from _until(lambda: _lets_in(world, place))


def broker_restarted(world: World, chance: random.Random) -> Steps:
    place = chance.randrange(MEMBERS)
    with world.holding(f"r{place + 1}", "restarted") as is_ours:
        process = world.run.cluster.brokers.nodes[place].process
        if is_ours and process is not None:
            process.terminate()
            yield from _until(lambda: process.poll() is not None)
            world.run.cluster.brokers.nodes[place].kill()
            world.run.cluster.brokers.nodes[place].start()
            yield from _until(lambda: _lets_in(world, place))


def broker_frozen(world: World, chance: random.Random) -> Steps:
    place = chance.randrange(MEMBERS)
    with world.holding(f"r{place + 1}", "frozen") as is_ours:
        if is_ours:
            node = world.run.cluster.brokers.nodes[place]
            node.signal(signal.SIGSTOP)
            yield chance.uniform(2, 25)
            node.signal(signal.SIGCONT)
            yield 2.0


def two_brokers_killed(world: World, chance: random.Random) -> Steps:
    places = chance.sample(range(MEMBERS), 2)
    with (
        world.holding(f"r{places[0] + 1}", "killed with another") as first,
        world.holding(f"r{places[1] + 1}", "killed with another") as second,
    ):
        if first and second:
            nodes = [world.run.cluster.brokers.nodes[place] for place in places]
            for node in nodes:
                node.kill()
            yield chance.uniform(0, 8)
            for node in nodes:
                node.start()
            for place in places:
                yield from _until(lambda place=place: _lets_in(world, place))  # type: ignore[misc]


def _lets_in(world: World, place: int) -> bool:
    try:
        host, port = world.run.cluster.brokers.addresses[place]
        Client(port, "guest", "guest", answer_timeout_s=1.0, host=host).close()
    except (AssertionError, OSError):
        return False
    return True


# Databases


def _member(world: World, chance: random.Random) -> int:
    databases = world.run.cluster.databases
    place = chance.randrange(MEMBERS)
    if chance.random() < PRIMARY:
        return next((each for each in range(MEMBERS) if databases.is_("primary", each)), place)
    return place


def postmaster_killed(world: World, chance: random.Random) -> Steps:
    """Its Patroni starts it again, or promotes another."""
    place = _member(world, chance)
    with world.holding(f"m{place + 1}", "postmaster killed") as is_ours:
        if is_ours:
            world.run.cluster.databases.kill_postgres(place)
            yield chance.uniform(5, 15)


def member_killed(world: World, chance: random.Random) -> Steps:
    place = _member(world, chance)
    with world.holding(f"m{place + 1}", "killed") as is_ours:
        if is_ours:
            databases = world.run.cluster.databases
            databases.patronis[place].kill()
            databases.kill_postgres(place)
            yield chance.uniform(2, 40)
            databases.patronis[place].start()
            yield from _until(lambda: _serves(world, place))


def patroni_killed(world: World, chance: random.Random) -> Steps:
    """The server goes on: where it was primary, an orphan beside the promoted one. Every other time it is Patroni that finds it
    so when it comes back."""
    place = _member(world, chance)
    with world.holding(f"m{place + 1}", "without Patroni") as is_ours:
        if is_ours:
            databases = world.run.cluster.databases
            databases.patronis[place].kill()
            yield chance.uniform(5, 45)
            if chance.random() < 0.5:
                databases.kill_postgres(place)
            databases.patronis[place].start()
            yield from _until(lambda: _serves(world, place))


def member_frozen(world: World, chance: random.Random) -> Steps:
    """And wakes up after another one was promoted, where it was primary for long enough."""
    place = _member(world, chance)
    with world.holding(f"m{place + 1}", "frozen") as is_ours:
        if is_ours:
            databases = world.run.cluster.databases
            databases.signal_postgres(place, signal.SIGSTOP)
            databases.patronis[place].signal(signal.SIGSTOP)
            yield chance.uniform(3, 40)
            databases.signal_postgres(place, signal.SIGCONT)
            databases.patronis[place].signal(signal.SIGCONT)
            yield from _until(lambda: _serves(world, place))


def switchover(world: World, chance: random.Random) -> Steps:
    """As far as the cluster can just now: what Patroni refuses is no fault of ours."""
    with world.holding("switchover", "asked for") as is_ours:
        if is_ours:
            asked = threading.Thread(target=_switch_over, args=(world,), daemon=True)
            asked.start()
            yield from _until(lambda: not asked.is_alive())


def _switch_over(world: World) -> None:
    with suppress(OSError, AssertionError, StopIteration):
        world.run.cluster.databases.switchover()


def etcd_away(world: World, chance: random.Random) -> Steps:
    with world.holding("etcd", "away") as is_ours:
        if is_ours:
            world.run.cluster.databases.etcd.kill()
            yield chance.uniform(2, 25)
            world.run.cluster.databases.etcd.start()
            yield 5.0


def _serves(world: World, place: int) -> bool:
    databases = world.run.cluster.databases
    return databases.is_("primary", place) or databases.is_("replica", place)


# Between the engines and all of them


def link_hurt(world: World, chance: random.Random) -> Steps:
    name, proxy = chance.choice(world.links)
    how = chance.choice([*LINKS, "reset"])
    with world.holding(f"link to {name}", how) as is_ours:
        if is_ours and how == "reset":
            proxy.reset()
        elif is_ours:
            proxy.mode = LINKS[how]
            yield chance.uniform(3, 35)
            proxy.mode = Mode.PASS


def links_of_all_slow(world: World, chance: random.Random) -> Steps:
    with world.holding("links", "all slow") as is_ours:
        if is_ours:
            idle = [proxy for _, proxy in world.links if proxy.mode is Mode.PASS]
            for proxy in idle:
                proxy.mode = Mode.SLOW
            yield chance.uniform(5, 20)
            for proxy in idle:
                proxy.mode = Mode.PASS


# Engines


def engine_restarted(world: World, chance: random.Random) -> Steps:
    """Another one comes while the first gives back or settles what it holds."""
    engine = chance.choice(world.run.engines)
    with world.holding("engine", "restarted") as is_ours:
        if is_ours:
            _retire(world, engine, in_order=True)
            engine.process.terminate()
            world.run.start_engine()
            yield from _until(lambda: engine.process.poll() is not None)
            engine.kill()


def engine_killed(world: World, chance: random.Random) -> Steps:
    engine = chance.choice(world.run.engines)
    with world.holding("engine", "killed") as is_ours:
        if is_ours:
            _retire(world, engine, in_order=False)
            engine.kill()
            yield chance.uniform(0, 10)
            world.run.start_engine()
            yield 5.0


def _retire(world: World, engine: Engine, *, in_order: bool) -> None:
    if engine in world.run.engines:
        world.run.engines.remove(engine)
    world.stopped.append((engine, in_order))


LANES: dict[str, tuple[Fault, ...]] = {
    "brokers": (broker_killed, broker_restarted, broker_frozen, two_brokers_killed),
    "databases": (postmaster_killed, member_killed, patroni_killed, member_frozen, switchover, etcd_away),
    "databases, too": (postmaster_killed, member_killed, patroni_killed, member_frozen),
    "links": (link_hurt, link_hurt, link_hurt, links_of_all_slow),
    "engines": (engine_restarted, engine_killed),
}
