"""What a catalog costs when one, two or three engines empty the same queue into the same database: in one run, in turn.

Each time an empty database and the same backlogs, one after the other: 500 nodes' first catalogs, the same again, with few
parameters changed, of the next release; then the engines know what there is, and each node sends five more, of which one in
ten has a changed resource of the node's own. ``--sticky`` has a queue for each engine besides, and a node's messages always on
the same, as a consistent hash exchange does it; ``--apart`` a database for each, too, so that they share nothing but the
machine. CPU is counted from the moment at which a backlog is there and the engines may take it.
"""

from __future__ import annotations

import argparse
import re
import statistics
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from bench.backlogs import IN_LIFE, NAMES, Backlog, eighth, part_of, phases
from bench.low_load import serve_a_while
from bench.pipeline import engine_cpu_s, intake_stopped
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s, publish, workplace
from ingest.capacity.engine import machine_busy_s
from ingest.config.loading import load
from ingest.core.metrics import Metric
from ingest.engine.signals import leave_on_signals
from ingest.transport.publisher import Publisher
from lab.engine import SETTLED, Engine
from lab.servers import Postgres

# How the backlog comes to the engines.
ONE_QUEUE, STICKY, APART = "one queue", "sticky", "apart"
SAMPLE_EVERY_S = 0.01
FLAGS = ("--workers", "1", "--writers", "1", "--log-level", "warning", "--heartbeat-s", "60")
_WAITING = """
SELECT CASE WHEN wait_event_type = 'Lock' THEN wait_event ELSE '' END, count(*)
FROM pg_stat_activity WHERE application_name LIKE 'ingest writer%' AND state <> 'idle' GROUP BY 1"""
# What decoders and writers did anew.
COUNTED = {
    "redone": Metric.REDONE,
    "normalised": Metric.CACHE_MISSES,
    "rows_written": Metric.ROWS_WRITTEN,
    "resources_new": Metric.RESOURCES_NEW,
}
TOLD = (
    "backlog",
    "engines",
    "way",
    "per_s",
    "engine_ms",
    "engine_ms_of",
    "postgresql_ms",
    "waiting_for_locks",
    "waiting_time",
    *COUNTED,
)
_ERROR = re.compile(r"ERROR:  (.*)")


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json")
    parser.add_argument(
        "--clones", type=int, default=125, help="nodes of each role; each sends four catalogs"
    )
    parser.add_argument(
        "--backlogs", nargs="+", choices=NAMES, default=NAMES, help="only these, in that order"
    )
    parser.add_argument("--engines", nargs="+", type=int, default=[1, 2, 3], help="so many, in turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sticky", action="store_true", help="also with a queue for each engine, a node's always the same"
    )
    parser.add_argument("--apart", action="store_true", help="also with a queue and a database for each")
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    options = parser.parse_args()
    backlogs = {name: phases(options.catalogs, options.clones)[name] for name in options.backlogs}
    rows: list[dict[str, Any]] = []
    with workplace() as (directory, stack):
        broker = broker_of(options.broker, stack)
        server = Postgres(directory)
        server.start(**POSTGRESQL)
        stack.callback(server.stop)
        serve_a_while(server)
        warm_up = {name: eighth(backlog) for name, backlog in backlogs.items()}
        measure(server, broker, directory, warm_up, 1)  # nobody's first time counts
        for round_ in range(options.rounds):
            asked = [way for way in (STICKY, APART) if getattr(options, way)]
            ways = [(engines, ONE_QUEUE) for engines in options.engines]
            ways += [(engines, way) for way in asked for engines in options.engines if engines > 1]
            for engines, way in ways if round_ % 2 == 0 else reversed(ways):
                found = measure(server, broker, directory, backlogs, engines, way)
                rows += [{"round": round_} | row for row in found]
                for row in found:
                    told = {name: row[name] for name in TOLD}
                    print({name: round(v, 3) if isinstance(v, float) else v for name, v in told.items()})
    show(rows)
    print("record:", record("sharing", vars(options), rows))


def measure(
    server: Postgres,
    broker: str,
    directory: Path,
    backlogs: dict[str, Backlog],
    engines: int,
    way: str = ONE_QUEUE,
) -> list[dict[str, Any]]:
    """Each backlog by so many engines, a row each."""
    databases = [f"shared_{number}" if way == APART else "shared_0" for number in range(engines)]
    for database in sorted(set(databases)):
        server.execute("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        server.execute("postgres", f"CREATE DATABASE {database}")
    with ExitStack() as stack:
        started = []
        for number, database in enumerate(databases):
            engine = Engine(
                broker, server.conninfo(database), *FLAGS, "--instance", f"shared-{number}",
                *(() if way == ONE_QUEUE else ("--destination", f"/queue/part-{number}")),
                log=directory / f"engine-{number}.log",
            )  # fmt: skip
            stack.callback(engine.kill)
            engine.wait_ready()
            started.append(engine)
        found = []
        for name, backlog in backlogs.items():
            row = _one(server, broker, started, backlog, in_parts=way != ONE_QUEUE)
            found.append({"engines": engines, "way": way, "backlog": name, **row})
        for engine in started:
            engine.stop()
    return found


def _one(
    server: Postgres, broker: str, engines: list[Engine], backlog: Backlog, *, in_parts: bool
) -> dict[str, Any]:
    catalogs = sum(1 for _ in backlog())
    log_before = len(server.log())
    before = _told_by(engines)
    with ExitStack() as stopped:
        for engine in engines:
            stopped.enter_context(intake_stopped(engine))
        if in_parts:
            publish_parts(broker, backlog, len(engines))
        else:
            publish(broker, backlog())
        server.execute("postgres", "CHECKPOINT")
    row = _emptied(server, engines, catalogs, before)
    errors = _ERROR.findall(server.log()[log_before:])
    return {**row, "errors": sorted(set(errors)), "serialization_failures": len(
        [each for each in errors if "serialize" in each or "was collected meanwhile" in each])}  # fmt: skip


def _told_by(engines: list[Engine]) -> Counter[str]:
    """Outcomes, and what decoders and writers had to do anew, of all engines together."""
    found: Counter[str] = Counter()
    for engine in engines:
        for its in engine.status()["processes"].values():
            found.update({name: its.get(name, 0) for name in SETTLED})
            found.update({name: its.get(metric.declared.name, 0) for name, metric in COUNTED.items()})
    return found


def publish_parts(broker: str, backlog: Backlog, parts: int) -> None:
    """Each node's to the queue that its name says."""
    for part in range(parts):
        publisher = Publisher(load({"queue_source": broker, "destination": f"/queue/part-{part}"}, {}).config)
        try:
            publisher.publish((body, {}) for body in backlog() if part_of(body, parts) == part)
        finally:
            publisher.close()


def _emptied(
    server: Postgres, engines: list[Engine], catalogs: int, before_all: Counter[str]
) -> dict[str, Any]:
    assert server.process is not None
    settled_before = [sum(engine.settled().values()) for engine in engines]
    goal = sum(settled_before) + catalogs
    busy, began_s = machine_busy_s(), time.perf_counter()
    before = sum(map(Counter, map(engine_cpu_s, engines)), Counter())
    database = cpu_s(server.process.pid)
    locks = Locks(server.conninfo("shared_0"))
    locks.start()
    while sum(sum(engine.settled().values()) for engine in engines) < goal:
        time.sleep(0.1)
    seconds = time.perf_counter() - began_s
    locks.end()
    database = cpu_s(server.process.pid) - database - locks.cpu_s
    used = sum(map(Counter, map(engine_cpu_s, engines)), Counter())
    used.subtract(before)
    of_each = [
        sum(engine.settled().values()) - was for engine, was in zip(engines, settled_before, strict=True)
    ]
    told = _told_by(engines)
    told.subtract(before_all)
    return {
        "catalogs": catalogs,
        "per_s": catalogs / seconds,
        "engine_ms": used.total() * 1000 / catalogs,
        "engine_ms_of": {role: seconds * 1000 / catalogs for role, seconds in used.items()},
        "outcomes": {name: told[name] for name in SETTLED if told[name]},
        **{name: told[name] / catalogs for name in COUNTED},
        "postgresql_ms": database * 1000 / catalogs,
        "cores_busy": (machine_busy_s() - busy) / seconds,
        "smallest_share": min(of_each) / catalogs,
        "deadlocks": locks.deadlocks,
        "rollbacks": locks.rollbacks,
        "working": locks.working,
        "waiting_time": locks.waiting.total() / max(1, locks.samples * len(engines)),
        "waiting_for_locks": locks.waiting.total() / max(1, locks.working),
        "locks_waited_for": dict(locks.waiting),
        "samples": locks.samples,
    }


class Locks(threading.Thread):
    """Looks again and again at what the writers' sessions wait for."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(daemon=True)
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._pid = self._connection.info.backend_pid
        self._ended = threading.Event()
        self.samples = self.working = self.deadlocks = self.rollbacks = self.commits = 0
        self.waiting: Counter[str] = Counter()  # sessions by the lock that they wait for
        self.cpu_s = 0.0  # of its own session

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            rows: Any = self._connection.execute(_WAITING).fetchall()
            self.samples += 1
            for what, sessions in rows:
                self.working += sessions
                if what:
                    self.waiting[what] += sessions

    def end(self) -> None:
        self._ended.set()
        self.join()
        self.cpu_s = cpu_s(self._pid)
        row: Any = self._connection.execute(
            "SELECT deadlocks, xact_rollback, xact_commit FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
        self.deadlocks, self.rollbacks, self.commits = row
        self._connection.close()


def show(rows: list[dict[str, Any]]) -> None:
    """Medians by backlog and number of engines; CPU against one engine's of the same round."""
    rows = rows + [_together(of) for of in _by(rows, "round", "engines", "way").values()]
    ones = {(row["round"], row["backlog"]): row for row in rows if row["engines"] == 1}
    print(f"\n{'backlog':<16} {'engines':>7} {'catalogs/s':>10} {'engine ms':>10} {'PostgreSQL ms':>14} "
          f"{'CPU of one':>18} {'lock waits':>10}")  # fmt: skip
    for (backlog, engines, way), of in _by(rows, "backlog", "engines", "way").items():
        ratios = [_cpu(row) / _cpu(ones.get((row["round"], backlog), row)) for row in of]
        values = [
            statistics.median(row[name] for row in of) for name in ("per_s", "engine_ms", "postgresql_ms")
        ]
        print(
            f"{backlog:<16} {engines:>7} {values[0]:>10.0f} {values[1]:>10.2f} {values[2]:>14.2f} "
            f"{statistics.median(ratios):>6.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            f" {max(row['waiting_for_locks'] for row in of):>9.1%}  {way}"
        )


def _by(rows: list[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _together(of: list[dict[str, Any]]) -> dict[str, Any]:
    """The rounds as one backlog."""
    of = [row for row in of if row["backlog"] != IN_LIFE]
    catalogs = sum(row["catalogs"] for row in of)
    means = {
        name: sum(row[name] * row["catalogs"] for row in of) / catalogs
        for name in ("engine_ms", "postgresql_ms")
    }
    waiting = sum(row["waiting_for_locks"] * row["working"] for row in of) / sum(row["working"] for row in of)
    seconds = sum(row["catalogs"] / row["per_s"] for row in of)
    return (
        of[0] | means | {"backlog": "the rounds", "per_s": catalogs / seconds, "waiting_for_locks": waiting}
    )


def _cpu(row: dict[str, Any]) -> float:
    return float(row["engine_ms"] + row["postgresql_ms"])


if __name__ == "__main__":
    main()
