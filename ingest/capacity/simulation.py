"""Discrete-event simulation of the engine: every message through every stage, with measured service times.

A stage is a process that serves one thing at a time and shares the machine's cores with all the others. What
decides who gets a message and when a batch closes is the engine's own rule (``core/routing.py``, ``writer.py``).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import simpy

from ingest.capacity.cores import Cores
from ingest.capacity.costs import BatchCosts, Costs, Line
from ingest.core.routing import choose, decoders_at_work

DECODER_DEPTH = 32  # as in receiver.py
OTHERS_S = (
    0.2  # how long something else computes at a time: a test, a backup, a compilation have many of those
)


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


class Outcome(NamedTuple):
    """What happened to a load."""

    freshness_s: list[float]  # due to committed, in the order of arrival
    finished_s: list[float]  # when each was committed, ascending
    busy: dict[str, float]  # busy seconds over (end - start), by stage; cores count as one stage
    served_s: dict[str, float]  # CPU seconds of all messages, by stage
    window_bytes_max: int  # the most that lay in shared memory
    batches: int
    duration_s: float


class Stage:
    """A process: one thing at a time, in order of arrival."""

    def __init__(self, env: simpy.Environment, cores: Cores) -> None:
        self.served_s = 0.0
        self._env = env
        self._cores = cores
        self._waiting: deque[tuple[Callable[[bool], float], Callable[[], None]]] = deque()
        self._is_busy = False

    def serve(self, demand_s: Callable[[bool], float], done: Callable[[], None]) -> None:
        """``demand_s`` is asked when it starts, and told whether the process had been idle."""
        self._waiting.append((demand_s, done))
        if not self._is_busy:
            self._start(was_idle=True)

    def _start(self, *, was_idle: bool) -> None:
        self._is_busy = True
        demand, done = self._waiting.popleft()
        demand_s = demand(was_idle)
        self.served_s += demand_s

        def finished() -> None:
            self._is_busy = False
            done()
            if self._waiting and not self._is_busy:
                self._start(was_idle=False)

        self._cores.run(demand_s, finished)


class _Message:
    """A catalog under way."""

    __slots__ = ("arrival", "instance", "noise", "number")

    def __init__(self, number: int, arrival: Arrival, noise: float) -> None:
        self.number = number
        self.arrival = arrival
        self.noise = noise
        self.instance: _Instance | None = None


class Simulation:
    """The whole of it: machines, instances, one database."""

    def __init__(self, costs: Costs, setup: Setup, seed: int = 1) -> None:
        self.env = simpy.Environment()
        self.costs = costs
        self.setup = setup
        self._chance = random.Random(seed)
        machines = [Cores(self.env, setup.cores, costs.crowding) for _ in range(setup.instances)]
        self.machines = machines
        self.database = Cores(self.env, setup.cores, costs.crowding) if setup.database_apart else machines[0]
        self.broker = Stage(self.env, machines[0])
        self.publisher = Stage(self.env, machines[0])
        self.instances = [_Instance(self, machine) for machine in machines]
        self._queue: deque[_Message] = deque()
        self._next_instance = 0
        self.freshness_s: list[float] = []
        self.finished_s: list[float] = []
        self.batches = 0

    def run(self, arrivals: Sequence[Arrival]) -> Outcome:
        """Until every message is committed."""
        self.freshness_s = [0.0] * len(arrivals)
        messages = [
            _Message(number, arrival, self._chance.choice(self.costs.noise[arrival.kind]))
            for number, arrival in enumerate(arrivals)
        ]
        self.env.process(self._arrive(messages))
        self.env.run()
        return self._outcome()

    def _arrive(self, messages: Iterable[_Message]) -> simpy.events.ProcessGenerator:
        for message in messages:
            delay_s = message.arrival.due_s - self.env.now
            if delay_s > 0:
                yield self.env.timeout(delay_s)
            self._publish(message)

    def _publish(self, message: _Message) -> None:
        size = message.arrival.body_bytes

        def published() -> None:
            if self.setup.broker_here:
                self.broker.serve(lambda _: self.costs.broker.at(size), lambda: self._queued(message))
            else:
                self._queued(message)

        line = self.setup.publisher
        if line is None:
            published()
        else:
            self.publisher.serve(lambda _: line.at(size), published)

    def _queued(self, message: _Message) -> None:
        self._queue.append(message)
        self.deliver()

    def deliver(self) -> None:
        """The broker gives messages out in turn, to whom has room for them."""
        while self._queue:
            for step in range(len(self.instances)):
                instance = self.instances[(self._next_instance + step) % len(self.instances)]
                if instance.has_room(self._queue[0].arrival.body_bytes):
                    self._next_instance = (self._next_instance + step + 1) % len(self.instances)
                    instance.receive(self._queue.popleft())
                    break
            else:
                return

    def committed(self, messages: Sequence[_Message]) -> None:
        self.batches += 1
        now = self.env.now
        for message in messages:
            self.freshness_s[message.number] = now - message.arrival.due_s
            self.finished_s.append(now)

    def _outcome(self) -> Outcome:
        end_s = self.finished_s[-1] if self.finished_s else 0.0
        instances, setup = self.instances, self.setup

        def share(seconds: float, servers: int) -> float:
            return seconds / (end_s * servers) if end_s else 0.0

        decoders = sum(len(i.useful) for i in instances)
        busy = {
            "receiver": share(sum(i.receiver.served_s for i in instances), len(instances)),
            "decoders": share(sum(d.served_s for i in instances for d in i.decoders), decoders),
            "writers": share(
                sum(w.applied_s for i in instances for w in i.writers), len(instances) * setup.writers
            ),
            "PostgreSQL": share(
                sum(w.database_cpu_s for i in instances for w in i.writers), self.database.count
            ),
            "cores": share(sum(m.busy_s for m in self.machines), len(self.machines) * setup.cores),
        }
        if setup.broker_here:
            busy["broker"] = share(self.broker.served_s, 1)
        if setup.database_apart:
            busy["database machine"] = share(self.database.busy_s, self.database.count)
        return Outcome(
            freshness_s=self.freshness_s,
            finished_s=self.finished_s,
            busy=busy,
            served_s={
                "receiver": sum(i.receiver.served_s for i in instances),
                "decoder": sum(d.served_s for i in instances for d in i.decoders),
                "writer": sum(w.cpu_s for i in instances for w in i.writers),
                "PostgreSQL": sum(w.database_cpu_s for i in instances for w in i.writers),
                "broker": self.broker.served_s,
                "publisher": self.publisher.served_s,
            },
            window_bytes_max=max(i.window_bytes_max for i in instances),
            batches=self.batches,
            duration_s=end_s,
        )


class _Instance:
    """One ``ingest run``."""

    def __init__(self, simulation: Simulation, machine: Cores) -> None:
        env, setup = simulation.env, simulation.setup
        self._simulation = simulation
        self._machine = machine
        self.receiver = Stage(env, machine)
        self.decoders = [Stage(env, machine) for _ in range(setup.workers)]
        self.writers = [_Writer(simulation, machine, self) for _ in range(setup.writers)]
        self.useful = range(min(setup.workers, decoders_at_work(setup.cores)))
        self._loads = [0] * setup.workers
        self._names = [str(n) for n in self.useful]
        self._waiting: deque[_Message] = deque()
        self._messages = 0
        self._bytes = 0
        self.window_bytes_max = 0

    def has_room(self, body_bytes: int) -> bool:
        setup = self._simulation.setup
        return self._messages < setup.window_messages_max and (
            not self._messages or self._bytes + body_bytes <= setup.window_bytes_max
        )

    def receive(self, message: _Message) -> None:
        message.instance = self
        size = message.arrival.body_bytes
        self._messages += 1
        self._bytes += size
        self.window_bytes_max = max(self.window_bytes_max, self._bytes)
        costs = self._simulation.costs

        def demand_s(was_idle: bool) -> float:
            # Where a core is free it is woken for every piece of a body; else the pieces add up meanwhile.
            wakes = was_idle and not self._machine.is_full()
            return costs.receiver.at(size) * (costs.cold["receiver"] if wakes else 1.0)

        self.receiver.serve(demand_s, lambda: self._received(message))

    def settled(self, messages: Sequence[_Message]) -> None:
        self._messages -= len(messages)
        self._bytes -= sum(message.arrival.body_bytes for message in messages)
        self._simulation.committed(messages)
        self._simulation.deliver()

    def _received(self, message: _Message) -> None:
        self._waiting.append(message)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._waiting:
            message = self._waiting[0]
            chosen = int(choose(message.arrival.node, self._names, lambda name: self._loads[int(name)]))
            if self._loads[chosen] >= DECODER_DEPTH:
                return
            self._waiting.popleft()
            self._loads[chosen] += 1
            self._decode(message, chosen)

    def _decode(self, message: _Message, chosen: int) -> None:
        costs, arrival = self._simulation.costs, message.arrival

        def demand_s(was_idle: bool) -> float:
            warm_s = costs.decoder[arrival.kind].at(arrival.body_bytes) * message.noise
            return warm_s * (costs.cold[arrival.kind] if was_idle else 1.0)

        def done() -> None:
            self._loads[chosen] -= 1
            # Another hash than the decoders': crc32 serves both in the engine, with two different remainders.
            self.writers[(arrival.node * 2654435761 >> 16) % len(self.writers)].take(message)
            self._dispatch()

        self.decoders[chosen].serve(demand_s, done)


class _Writer:
    """Gathers a batch for ``linger_s`` from its first message, then applies it; meanwhile the next ones wait."""

    def __init__(self, simulation: Simulation, machine: Cores, instance: _Instance) -> None:
        self.applied_s = 0.0
        self.cpu_s = 0.0
        self.database_cpu_s = 0.0
        self._simulation = simulation
        self._machine = machine
        self._instance = instance
        self._waiting: deque[_Message] = deque()
        self._is_applying = False
        self._gathering = 0  # which gathering the running timer belongs to
        self._is_gathering = False

    def take(self, message: _Message) -> None:
        self._waiting.append(message)
        if not self._is_applying:
            self._gather()

    def _gather(self) -> None:
        setup, env = self._simulation.setup, self._simulation.env
        if len(self._waiting) >= setup.batch_messages_max:
            self._apply()
        elif not self._is_gathering:
            self._is_gathering = True
            self._gathering += 1
            timeout = env.timeout(setup.linger_s, self._gathering)
            assert timeout.callbacks is not None
            timeout.callbacks.append(self._lingered)

    def _lingered(self, event: simpy.Event) -> None:
        if self._is_gathering and event.value == self._gathering:
            self._apply()

    def _apply(self) -> None:
        self._is_gathering = False
        self._is_applying = True
        simulation = self._simulation
        count = min(len(self._waiting), simulation.setup.batch_messages_max)
        batch = [self._waiting.popleft() for _ in range(count)]
        writer_s = _batch_s(simulation.costs.writer, batch)
        database_s = _batch_s(simulation.costs.postgresql, batch)
        self.cpu_s += writer_s
        self.database_cpu_s += database_s
        started_s = simulation.env.now

        def computed() -> None:
            simulation.database.run(database_s, commit)

        def commit() -> None:
            timeout = simulation.env.timeout(simulation.costs.commit_s)
            assert timeout.callbacks is not None
            timeout.callbacks.append(committed)

        def committed(_: simpy.Event) -> None:
            self.applied_s += simulation.env.now - started_s
            self._is_applying = False
            self._instance.settled(batch)
            if self._waiting and not self._is_applying:
                self._gather()

        self._machine.run(writer_s, computed)


def _batch_s(costs: BatchCosts, batch: Sequence[_Message]) -> float:
    total = costs.batch_s
    if any(message.arrival.kind != "unchanged" for message in batch):
        total += costs.content_s
    return total + sum(costs.message[m.arrival.kind].at(m.arrival.body_bytes) for m in batch)


def simulate(costs: Costs, setup: Setup, arrivals: Sequence[Arrival], seed: int = 1) -> Outcome:
    """Runs a load through the model."""
    return Simulation(costs, setup, seed).run(arrivals)
