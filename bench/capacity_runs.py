"""The capacity model against the real engine for whole runs: facts, catalog and report of each node, at random times.

Loads are so many runs a second, and last as many as can be made. Bodies are not the calibration's: real facts, other reports,
other catalogs. Told are the CPU that each stage used of a run, how busy the engine was, and how long a message of each kind took
from its receipt to its settlement, beside what the model says of the same arrivals.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import msgspec

from bench.records import record
from ingest.capacity.calibrate import calibrate
from ingest.capacity.calibration import load
from ingest.capacity.catalogs import Sheet, synthetic
from ingest.capacity.costs import Costs, Line
from ingest.capacity.engine import (
    MeasuredEngine,
    children_of,
    cpu_of,
    free_port,
    machine_busy_s,
    measured_engine,
)
from ingest.capacity.machine import work_s
from ingest.capacity.rounds import Node
from ingest.capacity.run_costs import all_costs_of
from ingest.capacity.simulation import simulate
from ingest.capacity.world import Arrival, Setup
from ingest.config.loading import load as load_config
from ingest.config.settings import Config
from ingest.core.delivery.importance import RANKS
from ingest.engine.signals import leave_on_signals
from ingest.ipc.names import kind_of
from ingest.store.capacity import backends
from ingest.store.connection import connect
from ingest.transport.publisher import Publisher
from lab.runs import Run, facts_of, report_of
from lab.servers import Postgres, embedded_broker

CATALOG_MIX = {"unchanged": 0.9, "few": 0.1}
CHANGED_SHARE, CHANGED = 0.02, 40  # of reports, and resources in them
STAGES = ("receiver", "decoder", "writer", "PostgreSQL", "broker")
PACES = 5


class Sent(NamedTuple):
    due_s: float
    kind: str
    node: int


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=Path, help="instead of a new one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--per-s", type=float, nargs="+", default=[5, 15, 30], help="runs a second")
    parser.add_argument("--seconds", type=float, default=15, help="of each load")
    parser.add_argument("--backlog", type=int, default=400, help="runs, as fast as they can be made")
    parser.add_argument("--nodes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=2)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    rows: list[dict[str, Any]] = []
    try:
        server.start(fsync="on", shared_buffers="256MB", max_wal_size="8GB", checkpoint_timeout="30min")
        server.execute("postgres", "CREATE DATABASE load_runs")
        config = load_config(
            {"workers": str(options.workers), "database": server.conninfo("load_runs")}, {}
        ).config
        if options.calibration:
            calibration, calibrated_s = load(options.calibration), None  # whose pace nobody knows
        else:
            before_s = pace_s()
            calibration = calibrate(config, synthetic(8, 1), "synthetic")
            calibrated_s = min(before_s, pace_s())
        costs = all_costs_of(calibration)
        for row in loads(config, costs, calibrated_s, options):
            rows.append(row)
            print(text_of(row), flush=True)
    finally:
        server.stop()
        shutil.rmtree(directory)
        if rows:
            print("record:", record("capacity-runs", vars(options), rows))


def pace_s() -> float:
    """What a piece of work takes now: the smallest, since what disturbs makes it longer."""
    return min(work_s(os.cpu_count() or 1) for _ in range(PACES))


def loads(
    config: Config, costs: Costs, calibrated_s: float | None, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    before = set(children_of(os.getpid()))
    with ExitStack() as stack:
        url = stack.enter_context(embedded_broker())
        (broker,) = set(children_of(os.getpid())) - before
        config = msgspec.structs.replace(
            config, queue_source=url, metrics_port=free_port(), log_level="warning", gc_interval_s=0.0
        )
        engine = stack.enter_context(measured_engine(config))
        pids = engine.pids() | {"supervisor": engine.process.pid, "broker": broker}
        with connect(config.database) as watcher:
            pids |= {f"PostgreSQL-{name}": pid for name, pid in backends(watcher).items()}
        fleet = _Fleet(config, engine, pids, options)
        stack.callback(fleet.close)
        for _ in range(2):  # what moves is known after the second
            fleet.measure(None, options.nodes)
        for per_s in (*options.per_s, None):
            before_s = pace_s()
            count = int(per_s * options.seconds) if per_s else options.backlog
            row, arrivals = fleet.measure(per_s, count)
            slower = min(before_s, pace_s()) / calibrated_s if calibrated_s else 1.0
            yield row | predicted(costs.slower(slower), config, arrivals, row) | {"slower": slower}


class _Fleet:
    """Sends whole runs, and counts."""

    def __init__(
        self, config: Config, engine: MeasuredEngine, pids: dict[str, int], options: argparse.Namespace
    ) -> None:
        self._engine, self._pids = engine, pids
        self._publisher = Publisher(config)
        self._chance = random.Random(options.seed)
        templates = synthetic(8, options.seed)
        self._nodes = [Node(templates[number % 8], number) for number in range(options.nodes)]
        self._runs = [0] * options.nodes
        self._place = 0
        self._sheet = Sheet()
        self._settled = 0.0

    def close(self) -> None:
        self._publisher.close()

    def measure(self, per_s: float | None, count: int) -> tuple[dict[str, Any], list[Arrival]]:
        due = list(self._due(per_s, count))
        arrivals: list[Arrival] = []
        counters, cpu, busy_s = self._settles(), cpu_of(self._pids), machine_busy_s()
        own_s, began_s = time.process_time(), time.monotonic()
        thread_s = [0.0]

        def bodies() -> Iterator[tuple[bytes | memoryview, dict[str, str]]]:
            for one in due:
                wait_s = began_s + one.due_s - time.monotonic()
                if per_s and wait_s > 0:
                    time.sleep(wait_s)
                kind, body = self._body(one)
                node = zlib.crc32(self._nodes[one.node].certname.encode())
                # When it was sent: a generator that gets no core is late, and so were then the messages.
                arrivals.append(Arrival(time.monotonic() - began_s, kind, len(body), node))
                yield body, {}

        def publish() -> None:
            before_s = time.thread_time()
            self._publisher.publish(bodies())
            thread_s[0] = time.thread_time() - before_s

        sender = threading.Thread(target=publish)
        sender.start()
        sender.join()
        self._settled += len(due)
        self._engine.wait(self._is_settled, f"{len(due)} messages", 120)
        seconds = time.monotonic() - began_s
        spent = _by_stage({name: after - cpu[name] for name, after in cpu_of(self._pids).items()})
        after = self._settles()
        return {
            "per_s": per_s, "runs": count, "messages": len(due), "seconds": seconds,
            "bytes": sum(arrival.body_bytes for arrival in arrivals),
            "runs_per_s": count / seconds,
            "cpu_ms": {stage: spent.get(stage, 0.0) * 1000 / count for stage in (*STAGES, "supervisor")},
            "publisher_s": thread_s[0],
            "engine_cores": sum(spent.values()) / seconds,
            "elsewhere_cores": (machine_busy_s() - busy_s - sum(spent.values()) - (time.process_time() - own_s)) / seconds,
            "settle_ms": {
                kind: 1000 * (after[kind][0] - counters[kind][0]) / max(1.0, after[kind][1] - counters[kind][1])
                for kind in RANKS
            },
        }, arrivals  # fmt: skip

    def _is_settled(self) -> bool:
        time.sleep(0.1)  # each look costs the supervisor a millisecond
        return self._engine.settled() >= self._settled

    def _settles(self) -> dict[str, tuple[float, float]]:
        receiver = self._engine.counters()["receiver"]
        return {
            kind: (
                receiver[f"ingest_settle_seconds_{kind}_sum"],
                receiver[f"ingest_settle_seconds_{kind}_count"],
            )
            for kind in RANKS
        }

    def _due(self, per_s: float | None, count: int) -> Iterator[Sent]:
        """Facts, catalog, report of one node after the other, each at a random time of its own."""
        found = []
        length_s = count / per_s if per_s else 0.0
        for number in range(count):
            node = (self._place + number) % len(self._nodes)
            kinds = ("facts", "catalog", "report")
            times = [self._chance.uniform(0, length_s) if per_s else float(number) for _ in kinds]
            found += [Sent(at_s, kind, node) for at_s, kind in zip(sorted(times), kinds, strict=True)]
        self._place += count
        return iter(sorted(found, key=lambda one: one.due_s))

    def _body(self, sent: Sent) -> tuple[str, bytes | memoryview]:
        node, now = self._nodes[sent.node], datetime.now(UTC)
        run = Run(node.certname, sent.node, self._runs[sent.node], now)
        if sent.kind == "facts":
            return ("facts_next" if run.run else "facts_first"), facts_of(run)
        if sent.kind == "catalog":
            first = not run.run
            kind = (
                "first" if first else self._chance.choices(list(CATALOG_MIX), list(CATALOG_MIX.values()))[0]
            )
            return kind, self._sheet.write(node.next_parts(kind, now))
        self._runs[sent.node] += 1
        has_changes = self._chance.random() < CHANGED_SHARE
        body = report_of(run, changed=CHANGED if has_changes else 0, release=run.run * 1000 + run.number)
        return ("report_few" if has_changes else "report_unchanged"), body


def predicted(costs: Costs, config: Config, arrivals: list[Arrival], row: dict[str, Any]) -> dict[str, Any]:
    """What the model says of the same arrivals on the same machine, the generator's CPU included."""
    setup = Setup(
        cores=os.cpu_count() or 1, workers=config.workers, writers=config.writers, broker_here=True,
        publisher=Line(row["publisher_s"] / len(arrivals), 0.0), linger_s=config.batch_linger_ms / 1000,
        batch_messages_max=config.batch_messages_max, window_messages_max=config.window_messages_max,
        window_bytes_max=config.window_bytes_max, queues=(0, 1, 2),
    )  # fmt: skip
    outcome = simulate(costs, setup, arrivals)
    runs = row["runs"]
    cpu = {stage: outcome.served_s[stage] * 1000 / runs for stage in STAGES}
    return {
        "model_runs_per_s": runs / outcome.duration_s,
        "model_cpu_ms": cpu,
        "model_engine_cores": sum(cpu.values()) * runs / 1000 / outcome.duration_s,
        "model_settle_ms": {
            kind: 1000 * mean(outcome.freshness_of(rank) or [0.0]) for rank, kind in enumerate(RANKS)
        },
    }


def _by_stage(cpu: dict[str, float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in cpu.items():
        found[kind_of(name)] = found.get(kind_of(name), 0.0) + value
    return found


def text_of(row: dict[str, Any]) -> str:
    def pair(measured: float, model: float) -> str:
        return (
            f"{measured:.2f}, {model:.2f} ({model / measured - 1:+.0%})"
            if measured
            else f"{measured:.2f}, {model:.2f}"
        )

    what = f"{row['per_s']:g} runs/s" if row["per_s"] else f"{row['runs']} runs, as fast as they are made"
    lines = [
        f"{what}; measured, model: runs/s {pair(row['runs_per_s'], row['model_runs_per_s'])}; "
        f"engine's cores {pair(row['engine_cores'], row['model_engine_cores'])}; "
        f"others {row['elsewhere_cores']:.2f} cores; pace {row['slower']:.2f}",
        "  CPU ms a run: "
        + "; ".join(f"{stage} {pair(row['cpu_ms'][stage], row['model_cpu_ms'][stage])}" for stage in STAGES),
        "  receipt to settlement, ms: "
        + "; ".join(f"{kind} {pair(row['settle_ms'][kind], row['model_settle_ms'][kind])}" for kind in RANKS),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
