"""One simulated ``ingest run``: receiver, decoders and writers, by the engine's own rules.

What decides who gets a message and when a batch closes is the engine's own: ``core.delivery``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import simpy

from ingest.capacity.cores import Cores
from ingest.capacity.costs import BatchCosts, Costs, Line
from ingest.core.delivery.dispatching import DECODER_DEPTH
from ingest.core.delivery.gathering import PAUSE_LINGERS
from ingest.core.delivery.routing import choose, decoders_at_work


class Arrival(NamedTuple):
    """One catalog: when it was due, and what it will cost."""

    due_s: float
    kind: str
    body_bytes: int
    node: int


class Setup(NamedTuple):
    """The engine and the machines, as far as they decide about time."""

    cores: int
    workers: int
    writers: int
    instances: int = 1  # each on a machine of its own with so many cores; PostgreSQL is on the first
    database_apart: bool = False  # PostgreSQL has a machine of its own with so many cores
    broker_here: bool = False  # the embedded broker shares the first machine's cores
    publisher: Line | None = None  # a load generator that does so too
    linger_s: float = 0.02
    batch_messages_max: int = 100
    window_messages_max: int = 1000
    window_bytes_max: int = 256 * 1024 * 1024


class Message:
    """A catalog under way."""

    __slots__ = ("arrival", "found_rest", "instance", "noise", "number")

    def __init__(self, number: int, arrival: Arrival, noise: float) -> None:
        self.number = number
        self.arrival = arrival
        self.noise = noise
        self.instance: Instance | None = None
        self.found_rest = False  # when it came


class World(Protocol):
    """What an instance stands in."""

    env: simpy.Environment
    costs: Costs
    setup: Setup
    database: Cores

    def deliver(self) -> None:
        """The instance has room again."""

    def committed(self, messages: Sequence[Message]) -> None:
        """They are in the database."""


class Instance:
    """One ``ingest run``."""

    def __init__(self, world: World, machine: Cores) -> None:
        env, setup = world.env, world.setup
        self._world = world
        self._machine = machine
        self.receiver = Stage(env, machine)
        self.decoders = [Stage(env, machine) for _ in range(setup.workers)]
        self.writers = [Writer(world, machine, self) for _ in range(setup.writers)]
        self.useful = range(min(setup.workers, decoders_at_work(setup.cores)))
        self._loads = [0] * setup.workers
        self._names = [str(n) for n in self.useful]
        self._waiting: deque[Message] = deque()
        self._messages = 0
        self._bytes = 0
        self.window_bytes_max = 0

    def has_room(self, body_bytes: int) -> bool:
        setup = self._world.setup
        return self._messages < setup.window_messages_max and (
            not self._messages or self._bytes + body_bytes <= setup.window_bytes_max
        )

    def receive(self, message: Message, done: Callable[[], None]) -> None:
        """Takes it from the broker; ``received`` comes next."""
        message.instance = self
        size = message.arrival.body_bytes
        self._messages += 1
        self._bytes += size
        self.window_bytes_max = max(self.window_bytes_max, self._bytes)
        costs = self._world.costs
        factor = costs.rest_factor("receiver", message.found_rest)
        self.receiver.serve(costs.receiver.at(size) * factor, done)

    def received(self, message: Message) -> None:
        """All of its body is here."""
        self._waiting.append(message)
        self._dispatch()

    def settled(self, messages: Sequence[Message]) -> None:
        self._messages -= len(messages)
        self._bytes -= sum(message.arrival.body_bytes for message in messages)
        self._world.committed(messages)
        self._world.deliver()

    def _dispatch(self) -> None:
        while self._waiting:
            message = self._waiting[0]
            chosen = int(choose(message.arrival.node, self._names, lambda name: self._loads[int(name)]))
            if self._loads[chosen] >= DECODER_DEPTH:
                return
            self._waiting.popleft()
            self._loads[chosen] += 1
            self._decode(message, chosen)

    def _decode(self, message: Message, chosen: int) -> None:
        costs, arrival = self._world.costs, message.arrival
        factor = costs.rest_factor("decoder", message.found_rest)
        demand_s = costs.decoder[arrival.kind].at(arrival.body_bytes) * message.noise * factor

        def done() -> None:
            self._loads[chosen] -= 1
            # Another hash than the decoders': crc32 serves both in the engine, with two different remainders.
            self.writers[(arrival.node * 2654435761 >> 16) % len(self.writers)].take(message)
            self._dispatch()

        self.decoders[chosen].serve(demand_s, done)


class Writer:
    """Gathers a batch for ``linger_s`` from its first message, or not at all after a pause, then applies it; meanwhile
    the next ones wait."""

    def __init__(self, world: World, machine: Cores, instance: Instance) -> None:
        self.applied_s = 0.0
        self.cpu_s = 0.0
        self.database_cpu_s = 0.0
        self._world = world
        self._machine = machine
        self._instance = instance
        self._waiting: deque[Message] = deque()
        self._is_applying = False
        self._gathering = 0  # which gathering the running timer belongs to
        self._is_gathering = False
        self._was_idle = True
        self._settled_s = -1.0  # the last batch

    def take(self, message: Message) -> None:
        self._waiting.append(message)
        if not self._is_applying:
            self._gather(was_idle=True)

    def _gather(self, *, was_idle: bool) -> None:
        setup, env = self._world.setup, self._world.env
        if not self._is_gathering:
            self._was_idle = was_idle
        if len(self._waiting) >= setup.batch_messages_max:
            self._apply()
        elif not self._is_gathering:
            self._is_gathering = True
            self._gathering += 1
            is_busy = env.now - self._settled_s < PAUSE_LINGERS * setup.linger_s
            timeout = env.timeout(setup.linger_s if is_busy else 0.0, self._gathering)
            assert timeout.callbacks is not None
            timeout.callbacks.append(self._lingered)

    def _lingered(self, event: simpy.Event) -> None:
        if self._is_gathering and event.value == self._gathering:
            self._apply()

    def _apply(self) -> None:
        self._is_gathering = False
        self._is_applying = True
        world = self._world
        count = min(len(self._waiting), world.setup.batch_messages_max)
        batch = [self._waiting.popleft() for _ in range(count)]
        writer_s = _batch_s(world.costs.writer, batch, was_idle=self._was_idle)
        database_s = _batch_s(world.costs.postgresql, batch, was_idle=self._was_idle)
        self.cpu_s += writer_s
        self.database_cpu_s += database_s
        started_s = world.env.now

        def computed() -> None:
            world.database.run(database_s, commit)

        def commit() -> None:
            timeout = world.env.timeout(world.costs.commit_s)
            assert timeout.callbacks is not None
            timeout.callbacks.append(committed)

        def committed(_: simpy.Event) -> None:
            self.applied_s += world.env.now - started_s
            self._is_applying = False
            self._settled_s = world.env.now
            self._instance.settled(batch)
            if self._waiting and not self._is_applying:
                self._gather(was_idle=False)

        self._machine.run(writer_s, computed)


class Stage:
    """A process: one thing at a time, in order of arrival."""

    def __init__(self, env: simpy.Environment, cores: Cores) -> None:
        self.served_s = 0.0
        self._env = env
        self._cores = cores
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._is_busy = False

    def serve(self, demand_s: float, done: Callable[[], None]) -> None:
        """Calls ``done`` when that is done, after all that came before."""
        self._waiting.append((demand_s, done))
        if not self._is_busy:
            self._start()

    def _start(self) -> None:
        self._is_busy = True
        demand_s, done = self._waiting.popleft()
        self.served_s += demand_s

        def finished() -> None:
            self._is_busy = False
            done()
            if self._waiting and not self._is_busy:
                self._start()

        self._cores.run(demand_s, finished)


def _batch_s(costs: BatchCosts, batch: Sequence[Message], *, was_idle: bool) -> float:
    total = costs.batch_s + (costs.idle_s if was_idle else 0.0)
    if any(message.arrival.kind != "unchanged" for message in batch):
        total += costs.content_s
    # What a decoder had not met is written as if it were new: the same messages are dear in both places.
    return total + sum(costs.message[m.arrival.kind].at(m.arrival.body_bytes) * m.noise for m in batch)
