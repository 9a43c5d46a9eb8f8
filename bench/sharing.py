"""What a catalog costs when one, two or three engines empty the same queue into the same database: in one run, in turn.

Each time an empty database and the same backlog: 500 nodes' first catalogs, the same again, with few parameters changed, and of
the next release. ``--sticky`` has a queue for each engine besides, and a node's messages always on the same, as a consistent hash
exchange does it. CPU is counted from the moment at which the backlog is there and the engines may take it.
"""

from __future__ import annotations

import argparse
import re
import statistics
import threading
import time
import zlib
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from bench.catalogs import fleet
from bench.low_load import serve_a_while
from bench.pipeline import engine_cpu_s, intake_stopped
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s, publish, workplace
from ingest.capacity.engine import machine_busy_s
from ingest.config.loading import load
from ingest.engine.signals import leave_on_signals
from ingest.transport.publisher import Publisher
from lab.engine import Engine
from lab.servers import Postgres

SAMPLE_EVERY_S = 0.01
FLAGS = ("--workers", "1", "--writers", "1", "--log-level", "warning", "--heartbeat-s", "60")
_WAITING = """
SELECT CASE WHEN wait_event_type = 'Lock' THEN wait_event ELSE '' END, count(*)
FROM pg_stat_activity WHERE application_name LIKE 'ingest writer%' AND state <> 'idle' GROUP BY 1"""
_CERTNAME = re.compile(rb'"certname":"([^"]+)"')
_ERROR = re.compile(r"ERROR:  (.*)")


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json")
    parser.add_argument(
        "--clones", type=int, default=125, help="nodes of each role; each sends four catalogs"
    )
    parser.add_argument("--engines", type=int, default=3, help="at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sticky", action="store_true", help="also with a queue for each engine, a node's always the same"
    )
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    options = parser.parse_args()
    backlog = [body for bodies in fleet(options.catalogs, options.clones).values() for body in bodies]
    rows: list[dict[str, Any]] = []
    with workplace() as (directory, stack):
        broker = broker_of(options.broker, stack)
        server = Postgres(directory)
        server.start(**POSTGRESQL)
        stack.callback(server.stop)
        serve_a_while(server)
        measure(server, broker, directory, backlog[: len(backlog) // 8], 1)  # nobody's first time counts
        for round_ in range(options.rounds):
            ways = [(engines, False) for engines in range(1, options.engines + 1)]
            ways += [(engines, True) for engines in range(2, options.engines + 1) if options.sticky]
            for engines, sticky in ways if round_ % 2 == 0 else reversed(ways):
                rows.append(
                    {"round": round_} | measure(server, broker, directory, backlog, engines, sticky=sticky)
                )
                print(
                    {
                        name: round(value, 2)
                        for name, value in rows[-1].items()
                        if isinstance(value, float | int)
                    }
                )
    show(rows)
    print("record:", record("sharing", vars(options), rows))


def measure(
    server: Postgres,
    broker: str,
    directory: Path,
    backlog: list[bytes],
    engines: int,
    *,
    sticky: bool = False,
) -> dict[str, Any]:
    """One backlog by so many engines."""
    server.execute("postgres", "DROP DATABASE IF EXISTS shared WITH (FORCE)")
    server.execute("postgres", "CREATE DATABASE shared")
    log_before = len(server.log())
    with ExitStack() as stack:
        started = []
        for number in range(engines):
            engine = Engine(
                broker, server.conninfo("shared"), *FLAGS, "--instance", f"shared-{number}",
                *(("--destination", f"/queue/part-{number}") if sticky else ()),
                log=directory / f"engine-{number}.log",
            )  # fmt: skip
            stack.callback(engine.kill)
            engine.wait_ready()
            started.append(engine)
        settled = sum((Counter(engine.settled()) for engine in started), Counter[str]())
        with ExitStack() as stopped:
            for engine in started:
                stopped.enter_context(intake_stopped(engine))
            if sticky:
                publish_parts(broker, backlog, engines)
            else:
                publish(broker, backlog)
            server.execute("postgres", "CHECKPOINT")
        row = _emptied(server, started, len(backlog), settled)
        for engine in started:
            engine.stop()
    errors = _ERROR.findall(server.log()[log_before:])
    return {"engines": engines, "sticky": sticky, **row, "errors": sorted(set(errors)), "serialization_failures": len(
        [each for each in errors if "serialize" in each or "was collected meanwhile" in each])}  # fmt: skip


def publish_parts(broker: str, backlog: list[bytes], parts: int) -> None:
    """Each node's to the queue that its name says."""
    for part in range(parts):
        publisher = Publisher(load({"queue_source": broker, "destination": f"/queue/part-{part}"}, {}).config)
        try:
            publisher.publish((body, {}) for body in backlog if part_of(body, parts) == part)
        finally:
            publisher.close()


def part_of(body: bytes, parts: int) -> int:
    found = _CERTNAME.search(body)
    assert found is not None
    return zlib.crc32(found[1]) % parts


def _emptied(server: Postgres, engines: list[Engine], catalogs: int, zero: Counter[str]) -> dict[str, Any]:
    assert server.process is not None
    busy, began_s = machine_busy_s(), time.perf_counter()
    before = sum(map(Counter, map(engine_cpu_s, engines)), Counter())
    database = cpu_s(server.process.pid)
    locks = Locks(server.conninfo("shared"))
    locks.start()
    while sum(sum(engine.settled().values()) for engine in engines) < catalogs + zero.total():
        time.sleep(0.1)
    seconds = time.perf_counter() - began_s
    locks.end()
    database = cpu_s(server.process.pid) - database - locks.cpu_s
    used = sum(map(Counter, map(engine_cpu_s, engines)), Counter())
    used.subtract(before)
    of_each = [sum(engine.settled().values()) for engine in engines]
    outcomes = sum((Counter(engine.settled()) for engine in engines), Counter())
    return {
        "catalogs": catalogs,
        "per_s": catalogs / seconds,
        "engine_ms": used.total() * 1000 / catalogs,
        "engine_ms_of": {role: seconds * 1000 / catalogs for role, seconds in used.items()},
        "outcomes": dict(outcomes - zero),
        "postgresql_ms": database * 1000 / catalogs,
        "cores_busy": (machine_busy_s() - busy) / seconds,
        "smallest_share": min(of_each) / catalogs,
        "deadlocks": locks.deadlocks,
        "rollbacks": locks.rollbacks,
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
    """Medians by number of engines; CPU against one engine's of the same round."""
    ones = {row["round"]: row for row in rows if row["engines"] == 1}
    print(
        f"\n{'engines':>7} {'catalogs/s':>11} {'engine ms':>10} {'PostgreSQL ms':>14} {'CPU of one':>18} {'lock waits':>10}"
    )
    for engines, sticky in sorted({(row["engines"], row["sticky"]) for row in rows}):
        of = [row for row in rows if (row["engines"], row["sticky"]) == (engines, sticky)]
        ratios = [_cpu(row) / _cpu(ones[row["round"]]) for row in of]
        values = [
            statistics.median(row[name] for row in of) for name in ("per_s", "engine_ms", "postgresql_ms")
        ]
        print(
            f"{engines:>7} {values[0]:>11.0f} {values[1]:>10.2f} {values[2]:>14.2f} "
            f"{statistics.median(ratios):>6.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            f" {max(row['waiting_for_locks'] for row in of):>9.1%}{', sticky' * sticky}"
        )


def _cpu(row: dict[str, Any]) -> float:
    return float(row["engine_ms"] + row["postgresql_ms"])


if __name__ == "__main__":
    main()
