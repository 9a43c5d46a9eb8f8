"""One round of a calibration: messages through the engine under measurement, and everything that is counted."""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

import psutil

from ingest.capacity.calibration import Round, Sample
from ingest.capacity.catalogs import Sheet, Template
from ingest.capacity.engine import (
    MeasuredEngine,
    busy_elsewhere_s,
    children_of,
    cpu_of,
    machine_busy_s,
    private_bytes,
)
from ingest.config.machine import cores
from ingest.config.settings import Config
from ingest.core.delivery.importance import RANKS
from ingest.core.delivery.routing import decoders_at_work
from ingest.engine.process import cpu_s
from ingest.errors import Unavailable
from ingest.ipc.names import kind_of
from ingest.store import capacity as store
from ingest.store.connection import Connection
from ingest.transport.publisher import Publisher

BACKLOG_TIMEOUT_S = 120.0
SINGLE_TIMEOUT_S = 20.0
Body = TypeVar("Body", bytes, memoryview)


class Sender(Protocol):
    """Who has another message whenever it is asked."""

    certname: str

    def next(self, kind: str) -> bytes:
        """The whole body."""

    def next_parts(self, kind: str, at: datetime | None = None) -> list[bytes]:
        """The same in pieces."""


class Node:
    """One node of the calibration's fleet and the state of its catalog."""

    def __init__(self, template: Template, clone: int, release: int = 0) -> None:
        self.template = template
        self.certname = f"{template.name}-{clone:03d}.calibration.example.com"
        self.tweak = 0
        self.release = release

    def next(self, kind: str) -> bytes:
        """Its next catalog."""
        return b"".join(self.next_parts(kind))

    def next_parts(self, kind: str, at: datetime | None = None) -> list[bytes]:
        """The same in pieces, for a ``Sheet``."""
        self.tweak += kind == "few"
        self.release += kind == "upgrade"
        return self.template.parts(
            self.certname, at or datetime.now(UTC), tweak=self.tweak, release=self.release
        )


class Bench:
    """The engine under measurement with its surroundings, and the three ways to feed it."""

    def __init__(self, config: Config, engine: MeasuredEngine, watcher: Connection, broker_pid: int) -> None:
        self.config = config
        self.engine = engine
        self.watcher = watcher
        self._publisher = Publisher(config)
        self._settled = 0.0
        self._releases: set[tuple[str, int, int]] = set()
        backends = store.backends(watcher)
        postmaster = parent_of(store.server(watcher).backend_pid)
        if not backends or name_of(postmaster) not in ("postgres", "postmaster"):
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

    def backlog(self, name: str, messages: Sequence[tuple[Sender, str]], *, fresh_pages: bool) -> Round:
        """All of them wait in the queue before the engine sees the first."""
        if fresh_pages:
            store.checkpoint(self.watcher)
        tally = Tally()
        meter = Meter(self)
        with self.engine.intake_stopped():
            before = cpu_s(self._pids["broker"])
            bodies = ((node, kind, node.next(kind)) for node, kind in messages)
            self._publish(tally.count(self._kind(node, kind), body) for node, kind, body in bodies)
            broker_in_s = cpu_s(self._pids["broker"]) - before
            meter.start()
        self._wait(len(messages), BACKLOG_TIMEOUT_S)
        return meter.round(name, "backlog", fresh_pages, tally, {"broker_in": broker_in_s})

    def flow(self, mode: str, name: str, messages: Sequence[tuple[Sender, str]], per_s: float) -> Round:
        """As in life: they come at random times, so many a second."""
        tally = Tally()
        meter = Meter(self)
        due_s = time.monotonic()
        chance = random.Random(name)
        sheet = Sheet()

        def in_time() -> Iterator[memoryview]:
            nonlocal due_s
            for node, kind in messages:
                body = sheet.write(node.next_parts(kind))
                due_s += chance.expovariate(per_s)
                time.sleep(max(0.0, due_s - time.monotonic()))
                yield tally.count(self._kind(node, kind), body)

        self._publish(in_time())
        self._wait(len(messages), BACKLOG_TIMEOUT_S)
        return meter.round(name, mode, False, tally, {"broker_in": 0.0})

    def single(self, name: str, messages: Iterable[tuple[Sender, str]]) -> tuple[list[Sample], Round]:
        """Each is published when the one before is settled."""
        samples = []
        tally = Tally()
        meter = Meter(self)
        for node, kind in messages:
            body = node.next(kind)
            kind = self._kind(node, kind)
            own = Meter(self)
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

    def _kind(self, node: Sender, kind: str) -> str:
        """An upgrade is new where its role's release comes to the node's decoder for the first time."""
        if kind != "upgrade" or not isinstance(node, Node):
            return kind
        decoders = min(self.config.workers, decoders_at_work(cores()))
        release = (node.template.name, node.release, zlib.crc32(node.certname.encode()) % decoders)
        if release in self._releases:
            return kind
        self._releases.add(release)
        return "upgrade_new"

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by stage."""
        found: dict[str, float] = {}
        for name, seconds in cpu_of(self._pids).items():
            stage = kind_of(name)
            found[stage] = found.get(stage, 0.0) + seconds
        return found

    def memory(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, pid in self._pids.items():
            stage = kind_of(name)
            found[stage] = max(found.get(stage, 0), private_bytes(pid))
        return found

    def table_bytes(self) -> dict[str, int]:
        return {name: table.total_bytes for name, table in store.tables(self.watcher).items()}

    def _publish(self, bodies: Iterable[bytes | memoryview]) -> None:
        self._publisher.publish((body, {}) for body in bodies)

    def _wait(self, messages: int, timeout_s: float) -> None:
        self._settled += messages
        self.engine.wait(lambda: self.engine.settled() >= self._settled, f"{messages} messages", timeout_s)


class Tally:
    """Messages and bytes, by kind."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self.kind_bytes: dict[str, int] = {}

    def count(self, kind: str, body: Body) -> Body:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self.kind_bytes[kind] = self.kind_bytes.get(kind, 0) + len(body)
        return body


class Meter:
    """Everything that is counted, from its making or its last ``start`` to ``round``. What the engine says of itself
    is read when it is made: later it may be stopped, but not at work."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._wal = store.wal_bytes(bench.watcher)
        self._counters = _sums(bench.engine.counters())
        self.start()

    def start(self) -> None:
        self._cpu = self._bench.cpu()
        self._busy_s = machine_busy_s()
        self._own_s = time.process_time()
        self._started_s = time.monotonic()

    def round(self, name: str, mode: str, fresh_pages: bool, tally: Tally, more: dict[str, float]) -> Round:
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
            settle_s=sum(count[f"ingest_settle_seconds_{kind}_sum"] for kind in RANKS),
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


def parent_of(pid: int) -> int:
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.Error:
        return 0


def name_of(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return ""
