"""One fault under a stream of catalogs and N engines, and what a checker finds afterwards."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psycopg

from ingest.errors import Unavailable
from ingest.store.connection import Connection, connect
from ingest.store.migrate import migrate
from lab.cluster import MEMBERS, QUEUE, Cluster, until
from lab.engine import Engine
from lab.proxy import Proxy
from tests.cluster.checker import compare
from tests.cluster.stream import Stream
from tests.cluster.watch import Watch
from tests.faults import audit

QUIET_S = 5.0  # after the fault, at least: what comes late is seen
NEVER_S = 120.0  # what has not settled by then is said never to
MARGIN_S = 10.0  # beyond the cluster's own recovery
FLAGS = ("--workers", "1", "--writers", "1", "--heartbeat-s", "3")  # as docs/clusters.md has it
_names = itertools.count(1)


class Figures(NamedTuple):
    fault: str
    engines: int
    messages: int
    own_recovery_s: float  # as plain clients of the queue and of the database saw it
    settled_after_s: float | None  # None: not in NEVER_S
    lost: int
    differing: int
    went_back: int
    quarantined: int
    restarts: int
    dead_letters: int  # what the broker has delivered more often than its limit
    delivery_count_max: int  # that an engine saw
    details: list[str]

    @property
    def is_whole(self) -> bool:
        return not (
            self.lost
            or self.differing
            or self.went_back
            or self.quarantined
            or self.restarts
            or self.dead_letters
        )

    @property
    def is_in_time(self) -> bool:
        return self.settled_after_s is not None and self.settled_after_s <= self.own_recovery_s + MARGIN_S


class Run:
    """What a fault may put its hands on."""

    def __init__(self, cluster: Cluster, directory: Path, engines: int, queue: str = QUEUE) -> None:
        self.cluster = cluster
        self.queue, self.destination = queue, f"/amq/queue/{queue}"  # /queue/NAME would declare a classic one
        self.directory = directory
        self.database = f"run{next(_names)}"
        self.engines: list[Engine] = []
        self._numbers = itertools.count()
        self.flags: tuple[str, ...] = ()
        self.conninfo = cluster.databases.conninfo(database=self.database)
        self.broker_urls = [cluster.brokers.url(*((place + step) % MEMBERS for step in range(MEMBERS)))
                            for place in range(MEMBERS)]  # fmt: skip
        self.watched = [
            cluster.databases.conninfo(place, target=None, database=self.database) for place in range(MEMBERS)
        ]
        self.published_to = cluster.brokers.addresses
        self.wanted = engines
        self.victim = self.lost_broker = 0  # for what mends them
        self.lasted_s = (
            0.0  # where plain clients do not see it, as ``Fault.lasts_s``, and only the fault knows
        )
        self.through: dict[int, tuple[str, ...]] = {}  # a program that becomes the engine of that number
        self.tree: Path | None = None  # of an earlier revision, whose program the engines are
        self.closing: list[Callable[[], None]] = []
        self.proxies: list[Proxy] = []

    def primary(self, database: str | None = None) -> str:
        return self.cluster.databases.conninfo(database=database or self.database)

    def prepare(self) -> None:
        with psycopg.connect(self.primary("postgres"), autocommit=True, connect_timeout=5) as connection:
            connection.execute(f"CREATE DATABASE {self.database}".encode())
        self.install()

    def install(self) -> None:
        """The schema, and what watches it."""
        opened = connect(self.primary())
        if not self.tree:
            migrate(opened)
        audit.install(opened)
        opened.execute("CREATE TABLE faults.watch (at timestamptz DEFAULT now())")
        opened.close()

    def start_engine(self) -> Engine:
        number = next(self._numbers)
        flags = (
            *FLAGS,
            *self.flags,
            "--destination",
            self.destination,
            "--instance",
            f"{self.database}-{number}",
        )
        engine = Engine(
            self.broker_urls[number % len(self.broker_urls)], self.conninfo, *flags,
            log=self.directory / f"{self.database}-engine-{number}.log",
            through=self.through.get(number, ()), tree=self.tree,
        )  # fmt: skip
        self.engines.append(engine)
        return engine


class Fault(NamedTuple):
    """``hurt`` begins at the fault's first moment and returns when nothing more is done to the cluster; ``mend`` makes it
    whole for the next one. ``prepare`` comes before the engines start."""

    name: str
    hurt: Callable[[Run], None]
    mend: Callable[[Run], None] = lambda run: None
    prepare: Callable[[Run], None] = lambda run: None
    never_s: float = NEVER_S
    lasts_s: float = (
        0.0  # where plain clients do not see it: a small row still fits, or they are not behind the links
    )
    needs_disks: bool = False  # of each member one of its own, so that it can be full
    lacks: Callable[[], str | None] = lambda: None  # why it cannot be tried here
    queue: str = QUEUE
    with_: str = ""  # those with the same word have it together


class Trial:
    """Engines under a stream, from before a fault until what came of it is known."""

    def __init__(self, cluster: Cluster, fault: Fault, directory: Path, engines: int) -> None:
        self.fault = fault
        self.world = Run(cluster, directory, engines, fault.queue)
        self._stream: Stream | None = None
        self._watch: Watch | None = None
        self._seen: tuple[float, float | None, int, int] | None = None

    def begin(self) -> None:
        world = self.world
        world.prepare()
        self.fault.prepare(world)
        for _ in range(world.wanted):
            world.start_engine()
        for engine in world.engines:
            engine.wait_ready()
        self._stream = Stream(world.published_to, destination=world.destination)
        self._stream.start()
        self._watch = Watch(world.watched, self._stream)
        self._watch.start()
        until(lambda: self._watch is not None and len(self._watch.stored) > 20, "the stream flows", 60)

    def end(self, began_s: float) -> None:
        """When all is settled, or never will be."""
        stream, watch, world = self._stream, self._watch, self.world
        assert stream is not None
        assert watch is not None
        _wait(stream, watch, self.fault.never_s)
        stream.end()
        is_settled = holds_in(watch.all_stored, 30.0)
        watch.end()
        settled = round(watch.settled_after(began_s), 1) if is_settled else None
        plain = (watch.outages.recovered_after(began_s), stream.outages.recovered_after(began_s))
        own = max(*plain, self.fault.lasts_s, world.lasted_s)
        deliveries = max(map(_deliveries_of, world.engines), default=0)
        self._seen = (own, settled, sum(map(restarts_of, world.engines)), deliveries)
        for engine in world.engines:
            engine.stop(60)

    def close(self) -> None:
        for thread in (self._stream, self._watch):
            if thread is not None:
                thread.end()
        for engine in self.world.engines:
            engine.kill()
        for close in self.world.closing:
            close()

    def figures(self) -> Figures:
        """With the cluster whole again."""
        stream, watch, world = self._stream, self._watch, self.world
        assert stream is not None
        assert watch is not None
        assert self._seen is not None
        dead = world.cluster.brokers.dropped(world.queue)
        connection = open_store(world)
        try:
            found = compare(connection, stream.newest())
        finally:
            connection.close()
        own, settled, restarts, deliveries = self._seen
        return Figures(
            self.fault.name, world.wanted, len(stream.sent), round(own, 1), settled, len(found.lost),
            len(found.differing), found.went_back + len(watch.went_back), found.quarantined, restarts, dead,
            deliveries, [*found.lost, *found.differing, *watch.went_back][:20],
        )  # fmt: skip


def run(cluster: Cluster, faults: Sequence[Fault], directory: Path, engines: int) -> list[Figures]:
    """The cluster is whole before and after. Several faults are one, under engines of their own for each: the first one's."""
    cluster.databases.wait_whole()
    trials = [Trial(cluster, fault, directory, engines) for fault in faults]
    try:
        for trial in trials:
            trial.begin()
        began_s = time.monotonic()
        faults[0].hurt(trials[0].world)
        for trial in trials:
            trial.end(began_s)
    finally:
        for trial in trials:
            trial.close()
        faults[0].mend(trials[0].world)
    cluster.databases.wait_whole()
    return [trial.figures() for trial in trials]


def _wait(stream: Stream, watch: Watch, never_s: float) -> None:
    """Until all that is due was published and stored, not before the quiet time is over."""
    quiet_until_s = time.monotonic() + QUIET_S
    deadline = quiet_until_s + never_s
    while time.monotonic() < deadline:
        until_s = max(quiet_until_s, time.monotonic() + 1.0)
        time.sleep(max(0.0, until_s - time.monotonic()))
        if not stream.is_on_time():
            continue
        newest = max(stream.receipts)
        if holds_in(lambda newest=newest: set(range(1, newest + 1)) <= watch.stored.keys(), 1.0):  # type: ignore[misc]
            return


def holds_in(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def restarts_of(engine: Engine) -> int:
    """Of its children; one that ended by itself counts, too. Those that the test stopped have an exit code."""
    died = sum(line.get("event") == "child_died" for line in engine.lines())
    return died + (engine.process.poll() not in (None, 0) and has_run(engine))


def _deliveries_of(engine: Engine) -> int:
    receiver = engine.status().get("processes", {}).get("receiver", {})
    return int(receiver.get("ingest_delivery_count_max", 0))


def has_given_up(engine: Engine) -> bool:
    """Its drain, after drain_timeout_s: then it ends with an exit code of its own, and what it holds goes back."""
    return any(line.get("event") == "drain_given_up" for line in engine.lines())


def has_run(engine: Engine) -> bool:
    """One that finds no database at its start ends, for a service manager to start it again."""
    return any(line.get("event") == "running" for line in engine.lines())


def open_store(world: Run) -> Connection:
    """Patroni's word that all is well may be older than the promotion's end."""
    for _ in range(30):
        with suppress(Unavailable):
            return connect(world.primary(), connect_timeout_s=10)
        time.sleep(1)
    return connect(world.primary(), connect_timeout_s=10)


def tell(figures: Figures) -> str:
    return json.dumps(figures._asdict())
