"""What the engine costs when nothing happens, and how long one lone catalog takes.

Idle: CPU and memory of the whole tree. Latency: from just before SEND until the catalog can be queried.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import psycopg

from bench.catalogs import fleet
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s, workplace
from ingest.config.loading import load
from ingest.core.catalog.formats import Skim, skim
from ingest.engine.signals import leave_on_signals
from ingest.transport.publisher import Publisher
from lab.engine import Engine
from lab.servers import Postgres

PAUSE_S = 0.1  # 3000 nodes at half an hour send every 0.6 s
ASK_S = 0.002  # asking without a pause takes more of a core than the engine
WAL_FILES = 6
STORED = "SELECT 1 FROM node_catalogs WHERE certname = %s AND producer_timestamp = %s"


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json")
    parser.add_argument("--clones", type=int, default=4)
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--idle-s", type=float, default=20)
    options = parser.parse_args()
    rounds = fleet(options.catalogs, options.clones)
    with workplace() as (directory, stack):
        broker = broker_of(options.broker, stack)
        server = Postgres(directory)
        server.start(**POSTGRESQL)
        stack.callback(server.stop)
        serve_a_while(server)
        flags = ("--workers", str(options.workers), "--log-level", "warning")
        engine = Engine(broker, server.conninfo("postgres"), *flags, log=directory / "engine.log")
        stack.callback(engine.kill)
        engine.wait_ready()
        publisher = Publisher(load({"queue_source": broker}, {}).config)
        stack.callback(publisher.close)
        rows = [idle(engine, options.idle_s, "fresh")]
        with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
            for round_ in (1, 2, 3, 4):
                rows.append(latency(publisher, connection, round_, rounds[round_]))
        rows.append(idle(engine, options.idle_s, "after work"))
        engine.stop()
    print("record:", record("low-load", vars(options), rows))


def serve_a_while(server: Postgres) -> None:
    """The WAL files of a server in service exist already; a new one fills each with 16 MiB of zeros first, and a commit
    waits for that."""
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        for _ in range(WAL_FILES):
            connection.execute("SELECT pg_logical_emit_message(false, 'bench', 'x')")
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")


def idle(engine: Engine, seconds: float, when: str) -> dict[str, Any]:
    """CPU share of one core, and memory in MiB: resident (pages shared counted each time) and proportional."""
    before, start = cpu_s(engine.process.pid), time.perf_counter()
    time.sleep(seconds)
    share = (cpu_s(engine.process.pid) - before) / (time.perf_counter() - start)
    pids = [engine.process.pid, *engine.children().values()]
    row = {
        "idle": when, "processes": len(pids), "core_share": share, "rss_mib": _memory_mib(pids, "Rss"),
        "pss_mib": _memory_mib(pids, "Pss"),
    }  # fmt: skip
    print(
        f"idle, {when}: {share:.2%} of a core; {len(pids)} processes, "
        f"{row['pss_mib']:.0f} MiB PSS, {row['rss_mib']:.0f} MiB RSS"
    )
    return row


def latency(
    publisher: Publisher, connection: psycopg.Connection[Any], round_: int, bodies: list[bytes]
) -> dict[str, Any]:
    """One catalog after the other, each sent a little after the one before could be queried."""
    found_ms = []
    for body in bodies:
        time.sleep(PAUSE_S)
        skimmed = skim(body, {}, None)  # type: ignore[arg-type]
        assert isinstance(skimmed, Skim)
        key = (skimmed.header.certname, skimmed.header.producer_timestamp)
        start = time.perf_counter()
        publisher.publish([(body, {})])
        while connection.execute(STORED, key).fetchone() is None:
            time.sleep(ASK_S)
        found_ms.append((time.perf_counter() - start) * 1000)
    in_order = [round(ms, 1) for ms in found_ms]
    found_ms.sort()
    row = {
        "latency_of_round": round_, "catalogs": len(bodies), "p50_ms": statistics.median(found_ms),
        "p99_ms": found_ms[int(len(found_ms) * 0.99)], "max_ms": found_ms[-1],
        "in_order_ms": in_order,
    }  # fmt: skip
    print(
        f"round {round_}: a lone catalog can be queried after {row['p50_ms']:.0f} ms (p50), "
        f"{row['p99_ms']:.0f} ms (p99), {row['max_ms']:.0f} ms (max)"
    )
    return row


def _memory_mib(pids: list[int], name: str) -> float:
    total_kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{name}:"):
                total_kib += int(line.split()[1])
    return total_kib / 1024


if __name__ == "__main__":
    main()
