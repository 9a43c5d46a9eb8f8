"""Measures the real engine on this machine: every stage's CPU time for every kind of message, in about a minute.

Theory of operation. An engine of its own works between an embedded broker and a database that nobody else
uses. In *backlog* rounds it is never idle: what a message costs when batches are full. Rounds of one kind, with
small and with large catalogs apart, tell costs by kind and size. In a *flow* round kinds come mixed, at a rate that can be kept
up: what a decoder's cache is worth in life, and what broker and receiver take for bodies that do not wait in
memory of their own. In a *calm* round they come so seldom that the machine comes to rest in between: what a message
costs more that wakes it. In the *single* round each message has the engine to itself: what a batch costs beside its
messages, what a writer takes more that was idle, and how much messages of one kind differ.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from ingest.capacity.calibration import SCHEMA, Calibration, Round, Sample, Sizes
from ingest.capacity.catalogs import Template
from ingest.capacity.engine import children_of, free_port, measured_engine
from ingest.capacity.machine import commit, crowding, machine
from ingest.capacity.rounds import Bench, Node
from ingest.capacity.run_bodies import Bodies, made_up
from ingest.capacity.run_rounds import RunScale, measure_runs
from ingest.config.settings import Config
from ingest.core.delivery.importance import RANKS
from ingest.embedded.broker.starting import embedded_broker
from ingest.embedded.postgresql import embedded_database
from ingest.embedded.programs import system_programs
from ingest.engine.run import keep_house_once
from ingest.store import capacity as store
from ingest.store.connection import connect

SEED = 12  # of the order of messages
MIX = {
    "unchanged": 0.83,
    "few": 0.15,
    "upgrade": 0.02,
}  # somewhat more change than in life: enough to know its mean
FLOW_SHARE = 0.9  # of a backlog's rate: who publishes, and the broker's intake, need cores too
CALM_SHARE = 0.12  # of it too: most messages find the machine at rest
RELEASES = 2  # that all nodes go through before kinds come mixed


class Scale(NamedTuple):
    """How much is measured: with these numbers means hold to a tenth, in under a minute."""

    clones: int = 12  # nodes of a role: most of what they have is shared, as in a fleet
    calm: int = 150
    singles: int = 400
    mixed: int = 10  # times all nodes
    commits: int = 100
    runs: RunScale = RunScale()


FULL = Scale()
CROWDINGS = 4  # at the beginning, and as many at the end
Progress = Callable[[str, float], None]  # what is going on, and the share that is done

PLAN = (
    ("first", 1),
    ("unchanged", 3),
    ("few", 2),
    ("upgrade", RELEASES),
)  # the kinds of round, and how often each


def calibrate(
    config: Config,
    templates: Sequence[Template],
    named: str,
    progress: Progress = lambda what, share: None,
    scale: Scale = FULL,
    bodies: Bodies | None = None,
) -> Calibration:
    """Runs it with the settings given; ``bodies``: facts and reports, made up where there are none. Raises Unavailable
    when something does not work in time."""
    started_s = time.monotonic()
    bodies = bodies or made_up()
    progress("how crowding slows a core", 0.0)
    slower = crowding(CROWDINGS)
    progress("starting broker, database and engine", 0.03)
    with _bench(config) as bench:
        rounds, samples, sizes = _measure(bench, templates, progress, scale)
        progress("facts and reports", 0.85)
        runs = measure_runs(
            bench, bodies, scale.runs, lambda what, share: progress(what, 0.85 + 0.14 * share)
        )
        server = store.server(bench.watcher)
        slower += crowding(CROWDINGS)
        return Calibration(
            schema=SCHEMA,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            program=version("puppet-ingest"),
            commit=commit(),
            machine=machine(server.version),
            templates=named,
            workers=bench.config.workers,
            writers=bench.config.writers,
            seconds=time.monotonic() - started_s,
            rounds=tuple(rounds),
            samples=tuple(samples),
            commit_s=tuple(sorted(store.commit_seconds(bench.watcher, scale.commits))),
            crowding=max(1.0, median(slower)),
            private_bytes=bench.memory(),
            sizes=sizes,
            checkpoint_s=server.checkpoint_s,
            runs=runs,
        )


@contextmanager
def _bench(config: Config) -> Iterator[Bench]:
    """An engine of its own with a broker and a database that nobody else uses."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ingest-capacity-")))
        before = set(children_of(os.getpid()))
        url = stack.enter_context(embedded_broker(0))
        (broker_pid,) = set(children_of(os.getpid())) - before
        conninfo = stack.enter_context(_database(config, directory))
        config = msgspec.structs.replace(
            config, queue_source=url, database=conninfo, log_level="error", metrics_port=free_port(),
            metrics_host="127.0.0.1", gc_interval_s=0.0, migrate=True, kinds=",".join(RANKS),
        )  # fmt: skip
        engine = stack.enter_context(measured_engine(config))
        watcher = connect(conninfo)
        stack.callback(watcher.close)
        bench = Bench(config, engine, watcher, broker_pid)
        stack.callback(bench.close)
        yield bench


def _measure(
    bench: Bench, templates: Sequence[Template], progress: Progress, scale: Scale
) -> tuple[list[Round], list[Sample], Sizes]:
    half = len(templates) // 2
    groups = (templates[:half], templates[half:])
    fleets = [
        [Node(template, clone) for clone in range(scale.clones) for template in group] for group in groups
    ]
    everybody = [node for nodes in fleets for node in nodes]
    rounds: list[Round] = []
    progress("first catalogs of each role", 0.08)
    for group, nodes in zip(groups, fleets, strict=True):
        rounds.append(
            bench.backlog("roles", [(node, "first") for node in nodes[: len(group)]], fresh_pages=False)
        )
    role_bytes = bench.table_bytes()
    found, first_bytes = _backlogs(bench, groups, fleets, progress)
    rounds += found
    pages = store.tables(bench.watcher)["catalogs"].pages
    changed_bytes = bench.table_bytes()
    chance = random.Random(SEED)
    rounds += _flows(bench, everybody, _backlog_per_s(rounds), progress, scale, chance)
    progress("all kinds, one at a time", 0.63)
    samples, single_rounds = _one_at_a_time(bench, templates, everybody, scale, chance)
    rounds += single_rounds
    progress("what the database takes", 0.84)
    keep_house_once(bench.config, bench.watcher)
    sizes = Sizes(
        nodes=len(everybody),
        roles=len(templates),
        resources=round(store.stored_fleet(bench.watcher).mean_resources * len(everybody)),
        role_bytes=role_bytes,
        first_bytes=first_bytes,
        changed_bytes=changed_bytes,
        collected_bytes=bench.table_bytes(),
        catalogs_pages=pages,
    )
    return rounds, samples, sizes


def _backlogs(
    bench: Bench,
    groups: Sequence[Sequence[Template]],
    fleets: Sequence[Sequence[Node]],
    progress: Progress,
) -> tuple[list[Round], dict[str, int]]:
    """Rounds of one kind each, as fast as they go; and what the tables take after the first catalogs."""
    rounds: list[Round] = []
    first_bytes: dict[str, int] = {}
    for step, (kind, times) in enumerate(PLAN):
        for size, group, nodes in zip(("small", "large"), groups, fleets, strict=True):
            progress(f"{kind}, {size} catalogs", 0.1 + 0.45 * (step + (size == "large") / 2) / len(PLAN))
            messages = [(node, kind) for node in (nodes[len(group) :] if kind == "first" else nodes)]
            for time_ in range(times):
                rounds.append(bench.backlog(f"{kind} {size}", messages, fresh_pages=time_ == 0))
        if kind == "first":
            first_bytes = bench.table_bytes()
    return rounds, first_bytes


def _flows(
    bench: Bench,
    nodes: Sequence[Node],
    per_s: float,
    progress: Progress,
    scale: Scale,
    chance: random.Random,
) -> list[Round]:
    """All kinds mixed, at a share of a backlog's rate."""
    progress("all kinds, mixed", 0.55)
    mixed = bench.flow("flow", "mixed", _mixed(nodes, scale.mixed * len(nodes), chance), FLOW_SHARE * per_s)
    progress("all kinds, now and then", 0.6)
    return [mixed, bench.flow("calm", "calm", _mixed(nodes, scale.calm, chance), CALM_SHARE * per_s)]


def _one_at_a_time(
    bench: Bench, templates: Sequence[Template], nodes: Sequence[Node], scale: Scale, chance: random.Random
) -> tuple[list[Sample], list[Round]]:
    """What a catalog takes that finds the engine idle."""
    # Each is made when its turn comes: making one changes the nodes.
    singles: tuple[tuple[str, Callable[[], list[tuple[Node, str]]]], ...] = (
        ("singles", lambda: _mixed(nodes, scale.singles, chance)),
        ("upgrades", lambda: _upgrades(templates, nodes)),
        ("newcomers", lambda: [(Node(template, scale.clones, RELEASES), "first") for template in templates]),
    )
    samples: list[Sample] = []
    rounds: list[Round] = []
    for name, in_turn in singles:
        found, round_ = bench.single(name, in_turn())
        samples += found
        rounds.append(round_)
    return samples, rounds


def _backlog_per_s(rounds: Sequence[Round]) -> float:
    """How many of that mix a second, told from the rounds of one kind."""
    each_s = 0.0
    for kind, share in MIX.items():
        mine = [r for r in rounds if kind in r.kinds]
        each_s += share * sum(r.seconds for r in mine) / sum(r.messages for r in mine)
    return 1 / each_s


def _mixed(nodes: Sequence[Node], messages: int, chance: random.Random) -> list[tuple[Node, str]]:
    """The nodes in turn, each kind as often as ``MIX`` says. Always in one order: while a node's last catalog is under
    way, nobody can know its next one as unchanged."""
    kinds = [kind for kind, share in MIX.items() for _ in range(round(share * messages))]
    chance.shuffle(kinds)
    turns = cycle(chance.sample(nodes, len(nodes)))
    return list(zip(turns, kinds, strict=False))


def _upgrades(templates: Sequence[Template], nodes: Sequence[Node]) -> list[tuple[Node, str]]:
    """To a release that nobody has had: of each role one node that brings it, then one that finds it known."""
    newest = max(node.release for node in nodes)
    by_role = [[node for node in nodes if node.template is template][:2] for template in templates]
    for pair in by_role:
        for node in pair:
            node.release = newest
    return [(pair[turn], "upgrade") for turn in range(2) for pair in by_role]


@contextmanager
def _database(config: Config, directory: Path) -> Iterator[str]:
    """A new database in the cluster that is named, or in one of its own."""
    with ExitStack() as stack:
        conninfo = config.database
        if not conninfo:
            # What an operator has, before the one that comes with the extra.
            cluster = embedded_database(directory / "postgresql", system_programs())
            conninfo = stack.enter_context(cluster)
        yield stack.enter_context(store.own_database(conninfo, f"ingest_calibration_{os.getpid()}"))
