"""One simulated writer: which messages make a transaction is the engine's own rule, ``core.delivery.gathering``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import simpy

from ingest.capacity.cores import Cores
from ingest.capacity.costs import Costs
from ingest.capacity.world import Message, World
from ingest.core.delivery.gathering import BatchLimits, Gathering, Waiting, linger_s
from ingest.core.delivery.importance import CATALOG, RANKS


class Writer:
    """Gathers a batch for ``linger_s`` from its first message, or longer, or not at all, then applies it; meanwhile
    the next ones wait."""

    def __init__(self, world: World, machine: Cores, settled: Callable[[Sequence[Message]], None]) -> None:
        self.applied_s = 0.0
        self.cpu_s = 0.0
        self.database_cpu_s = 0.0
        self._world = world
        self._machine = machine
        self._settled = settled
        setup = world.setup
        # Bytes of work are not modelled: a batch is full by its messages.
        self._limits = BatchLimits(setup.batch_messages_max, sys.maxsize, setup.linger_s)
        self._gathering: Gathering[Message] = Gathering(self._limits, lambda message: message.rank)
        self._is_applying = False
        self._waiting = Waiting()
        self._timer = 0  # only the newest timer counts
        self._was_idle = True
        self._settled_s = [-1.0] * len(RANKS)  # the last batch with something of that rank, or more important

    def take(self, message: Message) -> None:
        self._gathering.add([message], 0)
        self._waiting.came(self._world.env.now)
        if not self._is_applying:
            self._gather(was_idle=True)

    def _gather(self, *, was_idle: bool) -> None:
        if self._waiting.due_s is None:
            self._was_idle = was_idle
        if self._gathering.is_full or self._waiting.has_enough(len(self._gathering)):
            self._apply()
            return
        rank = self._gathering.rank
        assert rank is not None
        if rank == self._waiting.rank:
            return
        now_s, due_s = self._world.env.now, self._waiting.due_s
        self._waiting.begin(rank, linger_s(self._limits, now_s - self._settled_s[rank]), now_s)
        if self._waiting.due_s != due_s:
            self._set_timer()

    def _set_timer(self) -> None:
        assert self._waiting.due_s is not None
        self._timer += 1
        timeout = self._world.env.timeout(self._waiting.due_s - self._world.env.now, self._timer)
        assert timeout.callbacks is not None
        timeout.callbacks.append(self._lingered)

    def _lingered(self, event: simpy.Event) -> None:
        if self._waiting.due_s is None or event.value != self._timer:
            return
        if self._waiting.goes_on(self._limits, self._world.env.now):
            self._set_timer()
        else:
            self._apply()

    def _apply(self) -> None:
        self._waiting = Waiting()
        self._is_applying = True
        world = self._world
        batch = self._gathering.take()
        writer_s, database_s = _batch_s(world.costs, batch, was_idle=self._was_idle)
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
            most_important = min(message.rank for message in batch)
            self._settled_s[most_important:] = [world.env.now] * (len(RANKS) - most_important)
            self._settled(batch)
            if self._gathering and not self._is_applying:
                self._gather(was_idle=False)

        self._machine.run(writer_s, computed)


def _batch_s(costs: Costs, batch: Sequence[Message], *, was_idle: bool) -> tuple[float, float]:
    """CPU seconds of the writer and of PostgreSQL. Each kind of message has statements of its own."""
    ranks = sorted({message.rank for message in batch})
    writer_s = database_s = 0.0
    for rank in ranks:
        messages = [message for message in batch if message.rank == rank]
        has_content = rank == CATALOG and any(m.arrival.kind != "unchanged" for m in messages)
        for_writer, for_database = (
            part.batch_s
            + (part.idle_s if was_idle and rank == ranks[0] else 0.0)
            + (part.content_s if has_content else 0.0)
            # What a decoder had not met is written as if it were new: the same messages are dear in both places.
            + sum(part.message[m.arrival.kind].at(m.arrival.body_bytes) * m.noise for m in messages)
            for part in costs.batches_of(rank)
        )
        writer_s += for_writer
        database_s += for_database
    return writer_s, database_s
