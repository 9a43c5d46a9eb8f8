"""Discrete-event simulation of the engine: every message through every stage, with measured service times.

A stage is a process that serves one thing at a time and shares the machine's cores with all the others.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import simpy

from ingest.capacity.calibration import rank_of_kind
from ingest.capacity.cores import Cores
from ingest.capacity.costs import Costs
from ingest.capacity.instance import Instance, Stage
from ingest.capacity.world import Arrival, Message, Setup


class Outcome(NamedTuple):
    """What happened to a load."""

    freshness_s: list[float]  # due to committed, in the order of arrival
    ranks: list[int]  # catalog, facts or report, in the same order
    finished_s: list[float]  # when each was committed, ascending
    busy: dict[str, float]  # busy seconds over (end - start), by stage; cores count as one stage
    served_s: dict[str, float]  # CPU seconds of all messages, by stage
    window_bytes_max: int  # the most that lay in shared memory
    batches: int
    duration_s: float

    def freshness_of(self, rank: int) -> list[float]:
        return [one for one, its in zip(self.freshness_s, self.ranks, strict=True) if its == rank]


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
        self.instances = [Instance(self, machine) for machine in machines]
        self._queues: dict[int, deque[Message]] = {queue: deque() for queue in sorted(set(setup.queues))}
        self._next_instance = 0
        self.freshness_s: list[float] = []
        self.ranks: list[int] = []
        self.finished_s: list[float] = []
        self.batches = 0

    def run(self, arrivals: Sequence[Arrival]) -> Outcome:
        """Until every message is committed."""
        self.freshness_s = [0.0] * len(arrivals)
        self.ranks = [rank_of_kind(arrival.kind) for arrival in arrivals]
        messages = [
            Message(number, arrival, self._chance.choice(self.costs.noise[arrival.kind]))
            for number, arrival in enumerate(arrivals)
        ]
        self.env.process(self._arrive(messages))
        self.env.run()
        return self._outcome()

    def _arrive(self, messages: Iterable[Message]) -> simpy.events.ProcessGenerator:
        for message in messages:
            delay_s = message.arrival.due_s - self.env.now
            if delay_s > 0:
                yield self.env.timeout(delay_s)
            self._publish(message)

    def _publish(self, message: Message) -> None:
        """A body streams from a sender to the broker: both are at work until both are done."""
        message.found_rest = self.machines[0].are_at_rest  # the machines of several instances are alike
        line, size = self.setup.publisher, message.arrival.body_bytes
        parts = (line is not None) + self.setup.broker_here
        if not parts:
            self._queued(message)
            return
        done = after(parts, lambda: self._queued(message))
        factor = self.costs.rest_factor("broker", message.found_rest)
        if line is not None:
            self.publisher.serve(line.at(size) * factor, done)
        if self.setup.broker_here:
            demand_s = self.costs.broker_of(message.rank).at(size) * self.costs.broker_in
            self.broker.serve(demand_s * factor, done)

    def _queued(self, message: Message) -> None:
        self._queues[self.setup.queues[message.rank]].append(message)
        self.deliver()

    def deliver(self) -> None:
        """The broker gives messages out of its queues in turn, to whom has room for them."""
        while sum(bool(queue) and self._give_one(queue) for queue in self._queues.values()):
            pass

    def _give_one(self, queue: deque[Message]) -> bool:
        for step in range(len(self.instances)):
            instance = self.instances[(self._next_instance + step) % len(self.instances)]
            if instance.has_room(queue[0]):
                self._next_instance = (self._next_instance + step + 1) % len(self.instances)
                self._deliver_to(instance, queue.popleft())
                return True
        return False

    def _deliver_to(self, instance: Instance, message: Message) -> None:
        """It streams again, from the broker to the receiver."""
        done = after(1 + self.setup.broker_here, lambda: instance.received(message))
        factor = self.costs.rest_factor("broker", message.found_rest)
        instance.receive(message, done)
        if self.setup.broker_here:
            out = 1 - self.costs.broker_in
            demand_s = self.costs.broker_of(message.rank).at(message.arrival.body_bytes) * out
            self.broker.serve(demand_s * factor, done)

    def committed(self, messages: Sequence[Message]) -> None:
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
            ranks=self.ranks,
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


def after(count: int, then: Callable[[], None]) -> Callable[[], None]:
    """To be called so many times: the last of them does it."""
    left = count

    def one() -> None:
        nonlocal left
        left -= 1
        if not left:
            then()

    return one


def simulate(costs: Costs, setup: Setup, arrivals: Sequence[Arrival], seed: int = 1) -> Outcome:
    """Runs a load through the model."""
    return Simulation(costs, setup, seed).run(arrivals)
