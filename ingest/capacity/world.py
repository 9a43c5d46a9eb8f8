"""What the simulated parts share: the messages, the engine's settings, and what an instance stands in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import simpy

from ingest.capacity.calibration import rank_of_kind
from ingest.capacity.cores import Cores
from ingest.capacity.costs import Costs, Line


class Arrival(NamedTuple):
    """One message: when it was due, and what it will cost."""

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
    queues: tuple[int, int, int] = (0, 0, 0)  # in which of the broker's each rank waits


class Message:
    """A message under way."""

    __slots__ = ("arrival", "found_rest", "noise", "number", "rank")

    def __init__(self, number: int, arrival: Arrival, noise: float) -> None:
        self.number = number
        self.arrival = arrival
        self.noise = noise
        self.rank = rank_of_kind(arrival.kind)
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
