"""One simulated ``ingest run``: receiver, decoders and writers, by the engine's own rules.

What decides who gets a message and when a batch closes is the engine's own: ``core.delivery``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import simpy

from ingest.capacity.cores import Cores
from ingest.capacity.world import Message, World
from ingest.capacity.writer import Writer
from ingest.core.delivery.bursts import DECODER_DEPTH, Bursts, Room
from ingest.core.delivery.importance import CATALOG, RANKS, Turns
from ingest.core.delivery.routing import choose, decoders_at_work
from ingest.core.delivery.windows import windows


class Instance:
    """One ``ingest run``."""

    def __init__(self, world: World, machine: Cores) -> None:
        env, setup = world.env, world.setup
        self._world = world
        self.receiver = Stage(env, machine)
        self.decoders = [Stage(env, machine) for _ in range(setup.workers)]
        self.writers = [Writer(world, machine, self.settled) for _ in range(setup.writers)]
        self.useful = range(min(setup.workers, decoders_at_work(setup.cores)))
        self._loads = [0] * setup.workers
        self._names = [str(n) for n in self.useful]
        self._waiting: list[deque[Message]] = [deque() for _ in RANKS]
        self._turns = Turns()
        self._lesser_given = 0  # to decoders, and not settled yet
        self._catalogs = 0  # that are here
        self._bursts = Bursts(decoders_at_work(setup.cores))
        queues = [str(queue) for queue in sorted(set(setup.queues))]
        self._messages_max = windows(queues, setup.window_messages_max)
        self._bytes_max = windows(queues, setup.window_bytes_max)
        self._messages = dict.fromkeys(queues, 0)
        self._bytes = dict.fromkeys(queues, 0)
        self.window_bytes_max = 0

    def has_room(self, message: Message) -> bool:
        """In the part of the window that the message's queue has."""
        queue = self._queue(message)
        return self._messages[queue] < self._messages_max[queue] and (
            not self._messages[queue]
            or self._bytes[queue] + message.arrival.body_bytes <= self._bytes_max[queue]
        )

    def receive(self, message: Message, done: Callable[[], None]) -> None:
        """Takes it from the broker; ``received`` comes next."""
        size = message.arrival.body_bytes
        queue = self._queue(message)
        self._messages[queue] += 1
        self._bytes[queue] += size
        self.window_bytes_max = max(self.window_bytes_max, sum(self._bytes.values()))
        costs = self._world.costs
        factor = costs.rest_factor("receiver", message.found_rest)
        self.receiver.serve(costs.receiver_of(message.rank).at(size) * factor, done)

    def received(self, message: Message) -> None:
        """All of its body is here."""
        self._waiting[message.rank].append(message)
        self._catalogs += message.rank == CATALOG
        self._dispatch()

    def settled(self, messages: Sequence[Message]) -> None:
        for message in messages:
            queue = self._queue(message)
            self._messages[queue] -= 1
            self._bytes[queue] -= message.arrival.body_bytes
            self._lesser_given -= message.rank != CATALOG
            self._catalogs -= message.rank == CATALOG
        self._world.committed(messages)
        self._world.deliver()
        self._dispatch()

    def _queue(self, message: Message) -> str:
        return str(self._world.setup.queues[message.rank])

    def _dispatch(self) -> None:
        while any(waits := [bool(waiting) for waiting in self._waiting]) and self._give_one(waits):
            pass

    def _give_one(self, waits: list[bool]) -> bool:
        """The first, in the order of their turns, for which there is room; as the engine's dispatcher does."""
        for rank in self._turns.order(waits):
            message = self._waiting[rank][0]
            if (chosen := self._decoder_for(message)) is not None:
                self._waiting[rank].popleft()
                self._turns.took(rank, waits)
                self._decode(message, chosen)
                return True
        return False

    def _decoder_for(self, message: Message) -> int | None:
        room = Room(DECODER_DEPTH)
        if message.rank != CATALOG:
            found = self._bursts.room(
                message.arrival.body_bytes,
                self._world.env.now,
                given=self._lesser_given,
                catalogs=self._catalogs,
                is_owed=self._turns.is_owed(message.rank),
                is_stuck=False,
            )
            if found is None:
                return None
            room = found
        names = [str(len(self._loads) - 1)] if room.is_apart else self._names
        chosen = int(choose(message.arrival.node, names, lambda name: self._loads[int(name)]))
        if message.rank != CATALOG and self._loads[chosen] >= room.depth:
            chosen = min(map(int, names), key=lambda number: self._loads[number])
        return chosen if self._loads[chosen] < room.depth else None

    def _decode(self, message: Message, chosen: int) -> None:
        costs, arrival = self._world.costs, message.arrival
        self._bursts.gave(message.rank, arrival.body_bytes, self._world.env.now, self._lesser_given)
        self._lesser_given += message.rank != CATALOG
        self._loads[chosen] += 1
        factor = costs.rest_factor("decoder", message.found_rest)
        demand_s = costs.decoder[arrival.kind].at(arrival.body_bytes) * message.noise * factor

        def done() -> None:
            self._loads[chosen] -= 1
            # Another hash than the decoders': crc32 serves both in the engine, with two different remainders.
            self.writers[(arrival.node * 2654435761 >> 16) % len(self.writers)].take(message)
            self._dispatch()

        self.decoders[chosen].serve(demand_s, done)


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
