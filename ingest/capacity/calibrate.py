"""Measures the real engine on this machine: every stage's CPU time for every kind of catalog, in half a minute.

Theory of operation. An engine of its own works between an embedded broker and a database that nobody else
uses. In *backlog* rounds it is never idle: what a message costs when batches are full. Rounds of one kind, with
small and with large catalogs apart, tell costs by kind and size; mixed ones, what they are with a decoder's cache as
it is in life. In the *single* round each message has the engine to itself: what a batch costs beside its
messages, what a process that was idle takes more, and how much messages of one kind differ.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from ingest.capacity.calibration import SCHEMA, Calibration, Machine, Round, Sample, Sizes
from ingest.capacity.catalogs import Template
from ingest.capacity.engine import (
    MeasuredEngine,
    busy_elsewhere_s,
    children_of,
    cpu_of,
    cpu_s,
    free_port,
    machine_busy_s,
    measured_engine,
    private_bytes,
)
from ingest.config import Config
from ingest.core.routing import decoders_at_work
from ingest.embedded import embedded_broker, embedded_database, system_binaries, system_database
from ingest.errors import Unavailable
from ingest.publish import Publisher
from ingest.run import keep_house_once
from ingest.store import capacity as store
from ingest.store.connection import Connection, connect

CLONES = 12  # nodes of a role: most of what they have is shared, as in a fleet
MIX = {
    "unchanged": 0.83,
    "few": 0.15,
    "upgrade": 0.02,
}  # somewhat more change than in life: enough to know its mean
SINGLES = 200
RELEASES = 2  # that all nodes go through before kinds come mixed
MIXED = 480
COMMITS = 100
BACKLOG_TIMEOUT_S = 120.0
SINGLE_TIMEOUT_S = 20.0
TEMPLATES_MIN = 2

Progress = Callable[[str, float], None]  # what is going on, and the share that is done


class Node:
    """One node of the calibration's fleet and the state of its catalog."""

    def __init__(self, template: Template, clone: int, release: int = 0) -> None:
        self.template = template
        self.certname = f"{template.name}-{clone:03d}.calibration.example.com"
        self.tweak = 0
        self.release = release

    def next(self, kind: str) -> bytes:
        """Its next catalog."""
        self.tweak += kind == "few"
        self.release += kind == "upgrade"
        return self.template.render(self.certname, datetime.now(UTC), tweak=self.tweak, release=self.release)


def calibrate(
    config: Config, templates: Sequence[Template], named: str, progress: Progress = lambda what, share: None
) -> Calibration:
    """Runs it with the settings given. Raises Unavailable when something does not work in time."""
    started_s = time.monotonic()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ingest-capacity-")))
        progress("how crowding slows a core", 0.0)
        crowding = _crowding()
        progress("starting broker, database and engine", 0.03)
        before = set(children_of(os.getpid()))
        url = stack.enter_context(embedded_broker(0))
        (broker_pid,) = set(children_of(os.getpid())) - before
        conninfo = stack.enter_context(_database(config, directory))
        config = msgspec.structs.replace(
            config, queue_source=url, database=conninfo, log_level="error", metrics_port=free_port(),
            metrics_host="127.0.0.1", gc_interval_s=0.0, migrate=True,
        )  # fmt: skip
        engine = stack.enter_context(measured_engine(config))
        watcher = connect(conninfo)
        stack.callback(watcher.close)
        bench = _Bench(config, engine, watcher, broker_pid)
        stack.callback(bench.close)
        rounds, samples, sizes = _measure(bench, templates, progress)
        server = store.server(watcher)
        return Calibration(
            schema=SCHEMA,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            program=version("puppet-ingest"),
            commit=_commit(),
            machine=_machine(server.version),
            templates=named,
            workers=config.workers,
            writers=config.writers,
            seconds=time.monotonic() - started_s,
            rounds=tuple(rounds),
            samples=tuple(samples),
            commit_s=tuple(sorted(store.commit_seconds(watcher, COMMITS))),
            crowding=crowding,
            private_bytes=bench.memory(),
            sizes=sizes,
            checkpoint_s=server.checkpoint_s,
        )


def _measure(
    bench: _Bench, templates: Sequence[Template], progress: Progress
) -> tuple[list[Round], list[Sample], Sizes]:
    half = len(templates) // 2
    groups = (templates[:half], templates[half:])
    fleets = [[Node(template, clone) for clone in range(CLONES) for template in group] for group in groups]
    rounds: list[Round] = []
    progress("first catalogs of each role", 0.08)
    for group, nodes in zip(groups, fleets, strict=True):
        rounds.append(
            bench.backlog("roles", [(node, "first") for node in nodes[: len(group)]], fresh_pages=False)
        )
    role_bytes = bench.table_bytes()
    plan = [("first", 1), ("unchanged", 3), ("few", 2), ("upgrade", RELEASES)]
    first_bytes: dict[str, int] = {}
    for step, (kind, times) in enumerate(plan):
        for size, group, nodes in zip(("small", "large"), groups, fleets, strict=True):
            progress(f"{kind}, {size} catalogs", 0.1 + 0.5 * (step + (size == "large") / 2) / len(plan))
            messages = [(node, kind) for node in (nodes[len(group) :] if kind == "first" else nodes)]
            for time_ in range(times):
                rounds.append(bench.backlog(f"{kind} {size}", messages, fresh_pages=time_ == 0))
        if kind == "first":
            first_bytes = bench.table_bytes()
    pages = store.tables(bench.watcher)["catalogs"].pages
    changed_bytes = bench.table_bytes()
    chance = random.Random(CLONES)
    everybody = [node for nodes in fleets for node in nodes]
    for half_ in range(2):
        progress("all kinds, mixed", 0.6 + 0.05 * half_)
        rounds.append(bench.backlog("mixed", _mixed(everybody, MIXED // 2, chance), fresh_pages=False))
    progress("all kinds, one at a time", 0.7)
    samples: list[Sample] = []
    for name, messages in (
        ("singles", _mixed(everybody, SINGLES, chance)),
        ("upgrades", _upgrades(templates, everybody)),
        ("newcomers", [(Node(template, CLONES, RELEASES), "first") for template in templates]),
    ):
        found, round_ = bench.single(name, messages)
        samples += found
        rounds.append(round_)
    progress("what the database takes", 0.96)
    keep_house_once(bench.config, bench.watcher)
    count = len(everybody)
    sizes = Sizes(
        nodes=count,
        roles=len(templates),
        resources=round(store.stored_fleet(bench.watcher).mean_resources * count),
        role_bytes=role_bytes,
        first_bytes=first_bytes,
        changed_bytes=changed_bytes,
        collected_bytes=bench.table_bytes(),
        catalogs_pages=pages,
    )
    return rounds, samples, sizes


def _mixed(nodes: Sequence[Node], messages: int, chance: random.Random) -> list[tuple[Node, str]]:
    """Random nodes in turn, each kind as often as ``MIX`` says."""
    kinds = [kind for kind, share in MIX.items() for _ in range(round(share * messages))]
    chance.shuffle(kinds)
    turns = [node for _ in range(-(-messages // len(nodes))) for node in chance.sample(nodes, len(nodes))]
    return list(zip(turns, kinds, strict=False))


def _upgrades(templates: Sequence[Template], nodes: Sequence[Node]) -> list[tuple[Node, str]]:
    """To a release that nobody has had: of each role one node that brings it, then one that finds it known."""
    newest = max(node.release for node in nodes)
    by_role = [[node for node in nodes if node.template is template][:2] for template in templates]
    for pair in by_role:
        for node in pair:
            node.release = newest
    return [(pair[turn], "upgrade") for turn in range(2) for pair in by_role]


class _Bench:
    """The engine under measurement with its surroundings, and the two ways to feed it."""

    def __init__(self, config: Config, engine: MeasuredEngine, watcher: Connection, broker_pid: int) -> None:
        self.config = config
        self.engine = engine
        self.watcher = watcher
        self._publisher = Publisher(config)
        self._settled = 0.0
        self._releases: set[tuple[str, int, int]] = set()
        backends = store.backends(watcher)
        postmaster = _parent(store.server(watcher).backend_pid)
        if not backends or Path(f"/proc/{postmaster}/comm").read_text().strip() not in (
            "postgres",
            "postmaster",
        ):
            raise Unavailable(
                "the CPU time of PostgreSQL cannot be read from here: run the calibration on its machine"
            )
        self._pids = engine.pids() | {"broker": broker_pid, "supervisor": engine.process.pid}
        self._pids |= {f"postgresql-{name}": pid for name, pid in backends.items()}
        own = store.server(watcher).backend_pid
        others = set(children_of(postmaster)) - set(backends.values()) - {own}
        self._pids |= {f"postgresql_other-{pid}": pid for pid in others}

    def close(self) -> None:
        self._publisher.close()

    def backlog(self, name: str, messages: Sequence[tuple[Node, str]], *, fresh_pages: bool) -> Round:
        """All of them wait in the queue before the engine sees the first."""
        if fresh_pages:
            store.checkpoint(self.watcher)
        tally = _Tally()
        with self.engine.intake_stopped():
            before = cpu_s(self._pids["broker"])
            bodies = ((node, kind, node.next(kind)) for node, kind in messages)
            self._publish(tally.count(self._kind(node, kind), body) for node, kind, body in bodies)
            broker_in_s = cpu_s(self._pids["broker"]) - before
        meter = _Meter(self)
        self._wait(len(messages), BACKLOG_TIMEOUT_S)
        return meter.round(name, "backlog", fresh_pages, tally, {"broker_in": broker_in_s})

    def single(self, name: str, messages: Iterable[tuple[Node, str]]) -> tuple[list[Sample], Round]:
        """Each is published when the one before is settled."""
        samples = []
        tally = _Tally()
        meter = _Meter(self)
        for node, kind in messages:
            body = node.next(kind)
            kind = self._kind(node, kind)
            own = _Meter(self)
            self._publish([tally.count(kind, body)])
            self._wait(1, SINGLE_TIMEOUT_S)
            one = own.round("", "single", False, tally, {})
            cpu = one.cpu_s
            samples.append(
                Sample(
                    kind,
                    len(body),
                    cpu["receiver"],
                    cpu["decoder"],
                    cpu["writer"],
                    cpu["postgresql"],
                    one.settle_s,
                )
            )
        return samples, meter.round(name, "single", False, tally, {})

    def _kind(self, node: Node, kind: str) -> str:
        """An upgrade is new where its role's release comes to the node's decoder for the first time."""
        if kind != "upgrade":
            return kind
        decoders = min(self.config.workers, decoders_at_work(len(os.sched_getaffinity(0))))
        release = (node.template.name, node.release, zlib.crc32(node.certname.encode()) % decoders)
        if release in self._releases:
            return kind
        self._releases.add(release)
        return "upgrade_new"

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by stage."""
        found: dict[str, float] = {}
        for name, seconds in cpu_of(self._pids).items():
            stage = name.partition("-")[0]
            found[stage] = found.get(stage, 0.0) + seconds
        return found

    def memory(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, pid in self._pids.items():
            stage = name.partition("-")[0]
            found[stage] = max(found.get(stage, 0), private_bytes(pid))
        return found

    def table_bytes(self) -> dict[str, int]:
        return {name: table.total_bytes for name, table in store.tables(self.watcher).items()}

    def _publish(self, bodies: Iterable[bytes]) -> None:
        self._publisher.publish((body, {}) for body in bodies)

    def _wait(self, messages: int, timeout_s: float) -> None:
        self._settled += messages
        self.engine.wait(lambda: self.engine.settled() >= self._settled, f"{messages} catalogs", timeout_s)


class _Tally:
    """Messages and bytes, by kind."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self.kind_bytes: dict[str, int] = {}

    def count(self, kind: str, body: bytes) -> bytes:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self.kind_bytes[kind] = self.kind_bytes.get(kind, 0) + len(body)
        return body


class _Meter:
    """Everything that is counted, between its making and ``round``."""

    def __init__(self, bench: _Bench) -> None:
        self._bench = bench
        self._wal = store.wal_bytes(bench.watcher)
        self._counters = _sums(bench.engine.counters())
        self._cpu = bench.cpu()
        self._busy_s = machine_busy_s()
        self._own_s = time.process_time()
        self._started_s = time.monotonic()

    def round(self, name: str, mode: str, fresh_pages: bool, tally: _Tally, more: dict[str, float]) -> Round:
        seconds = time.monotonic() - self._started_s
        cpu = {stage: s - self._cpu[stage] for stage, s in self._bench.cpu().items()}
        own_s = time.process_time() - self._own_s
        now = _sums(self._bench.engine.counters())
        count = {name: now[name] - self._counters.get(name, 0) for name in now}
        batches = int(count["ingest_batch_messages_count"])
        return Round(
            name=name,
            kinds=tally.kinds,
            kind_bytes=tally.kind_bytes,
            mode=mode,
            fresh_pages=fresh_pages,
            messages=sum(tally.kinds.values()),
            body_bytes=sum(tally.kind_bytes.values()),
            batches=batches,
            content_batches=min(batches, sum(n for kind, n in tally.kinds.items() if kind != "unchanged")),
            batch_s=count["ingest_batch_seconds_sum"],
            settle_s=count["ingest_settle_seconds_sum"],
            seconds=seconds,
            cpu_s=cpu | more,
            elsewhere_s=busy_elsewhere_s(sum(cpu.values()) + own_s, self._busy_s),
            wal_bytes=store.wal_bytes(self._bench.watcher) - self._wal,
            copy_bytes=int(count["ingest_copy_bytes_total"]),
            rows=int(count["ingest_rows_written_total"]),
        )


def _sums(processes: dict[str, dict[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for numbers in processes.values():
        for name, value in numbers.items():
            found[name] = found.get(name, 0.0) + value
    return found


@contextmanager
def _database(config: Config, directory: Path) -> Iterator[str]:
    """A new database in the cluster that is named, or in one of its own."""
    with ExitStack() as stack:
        conninfo = config.database
        if not conninfo:
            binaries = system_binaries()  # what an operator has, before the one that comes with the extra
            cluster = (
                system_database(directory / "postgresql", binaries)
                if binaries is not None
                else embedded_database(directory / "postgresql")
            )
            conninfo = stack.enter_context(cluster)
        yield stack.enter_context(store.own_database(conninfo, f"ingest_calibration_{os.getpid()}"))


_CROWD = """
import json, time, hashlib
text = json.dumps([{"title": f"file {n}", "tags": ["a", "b", "c"], "parameters": {"n": n}} for n in range(4000)])
json.loads(text)
before = time.process_time()
for _ in range(25):
    json.loads(text)
    hashlib.sha256(text.encode()).digest()
print(time.process_time() - before)
"""


def _crowding() -> float:
    """CPU time of one piece of work with all cores busy, over that of the same with one busy. Shared caches, shared
    arithmetic units and clocks that depend on load make it larger than one."""

    def crowd(size: int) -> float:
        processes = [
            subprocess.Popen([sys.executable, "-c", _CROWD], stdout=subprocess.PIPE, text=True)
            for _ in range(size)
        ]
        return min(float(process.communicate()[0]) for process in processes)

    cores = len(os.sched_getaffinity(0))
    alone = min(crowd(1) for _ in range(3))
    return max(1.0, min(crowd(cores) for _ in range(3)) / alone)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    except OSError:
        return 0


def _machine(postgresql: str) -> Machine:
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=cpu,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        system=platform.platform(),
        python=platform.python_version(),
        postgresql=postgresql,
    )


def _commit() -> str:
    """Of the checkout that this program runs from; an installed one has none."""
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
