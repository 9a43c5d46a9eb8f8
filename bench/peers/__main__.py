"""Side by side with PuppetDB: the same catalogs, the same PostgreSQL, round after round in turn.

What is compared: PuppetDB takes commands over HTTP into its own queue on disk and stores them with two threads; this
engine takes them from a STOMP broker, where they wait as a backlog. CPU is that of the server's own processes and of
PostgreSQL; the broker's is left out, and competes for the same cores. Both start cold. Between two rounds both
databases are vacuumed and a checkpoint is made, so that neither pays for the other.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from bench.catalogs import ROUND_NAMES, again, fleet
from bench.pipeline import one_round
from bench.receiver import drop
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s, workplace
from ingest.engine.signals import leave_on_signals
from lab.engine import Engine
from lab.puppetdb import PuppetDB, missing
from lab.servers import Postgres

# Throughput at least so many times PuppetDB's, and its CPU for a catalog divided by at least so much.
GOALS = {1: (25, 35), 2: (16, 35), 3: (20, 40), 4: (30, 40)}
PUPPETDB, INGEST = "PuppetDB", "ingest"


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json")
    parser.add_argument("--clones", type=int, default=10, help="of each catalog")
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument(
        "--unchanged-times",
        type=int,
        default=8,
        help="as often this engine gets round 2, which is over so soon",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--writers", type=int, default=2)
    options = parser.parse_args()
    if reason := missing():
        sys.exit(f"skipped: {reason}")
    with workplace() as (directory, stack):
        rows = compare(options, directory, stack)
    show(rows)
    print("record:", record("peers", vars(options), rows))


def compare(options: argparse.Namespace, directory: Path, stack: ExitStack) -> list[dict[str, Any]]:
    """One row a round and system, and one of what the receiver alone can do."""
    rounds = fleet(options.catalogs, options.clones)
    mean = sum(map(len, rounds[1])) / len(rounds[1])
    broker = broker_of(options.broker, stack)
    server = Postgres(directory)
    server.start(**POSTGRESQL)
    stack.callback(server.stop)
    peer = PuppetDB(directory, server)
    stack.callback(peer.stop)
    server.execute("postgres", "CREATE DATABASE ingest")
    flags = ("--workers", str(options.workers), "--writers", str(options.writers), "--log-level", "warning")
    engine = Engine(broker, server.conninfo("ingest"), *flags, log=directory / "engine.log")
    stack.callback(engine.kill)
    engine.wait_ready()
    print(f"{len(rounds[1])} catalogs a round, mean {mean / 1024:.0f} KiB; PuppetDB {peer.version()}")

    def by_puppetdb(bodies: list[bytes]) -> dict[str, Any]:
        assert server.process is not None
        before = cpu_s(peer.process.pid), cpu_s(server.process.pid)
        seconds = peer.store(bodies)
        after = cpu_s(peer.process.pid), cpu_s(server.process.pid)
        return {
            "catalogs": len(bodies), "seconds": seconds, "per_s": len(bodies) / seconds,
            "cpu_ms": (after[0] - before[0]) * 1000 / len(bodies),
            "postgresql_ms": (after[1] - before[1]) * 1000 / len(bodies),
        }  # fmt: skip

    def by_ingest(bodies: list[bytes]) -> dict[str, Any]:
        return one_round(engine, server, broker, bodies)

    rows: list[dict[str, Any]] = []
    systems: tuple[tuple[str, Callable[[list[bytes]], dict[str, Any]]], ...] = (
        (PUPPETDB, by_puppetdb),
        (INGEST, by_ingest),
    )
    for round_, catalogs in rounds.items():
        for system, store in systems:
            # PuppetDB drops what a newer command for the same node makes obsolete, and would have to be waited for.
            often = options.unchanged_times if round_ == 2 and system == INGEST else 1
            bodies = again(catalogs, often)
            quiet(server)
            before = wal_written(server)
            row = {"system": system, "round": round_, **store(bodies)}
            after = wal_written(server)
            row["wal_kib"] = (after[0] - before[0]) / 1024 / len(bodies)
            row["full_page_images"] = (after[1] - before[1]) / len(bodies)
            rows.append(row)
            print(f"{system:<9} {round_} {ROUND_NAMES[round_]:<16} {row['per_s']:>8.1f}/s", flush=True)
    engine.stop()
    rows.append(
        {"system": "receive and drop", "round": 2, **drop(broker, again(rounds[2], options.unchanged_times))}
    )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table with the ratios, and what was asked of them."""
    table = Table(title="the same catalogs, the same PostgreSQL, one run")
    for column in (
        "round",
        "system",
        "catalogs/s",
        "own CPU ms",
        "PostgreSQL ms",
        "WAL KiB",
        "faster",
        "less CPU",
    ):
        table.add_column(column, justify="left" if column in ("round", "system") else "right")
    for round_, name in ROUND_NAMES.items():
        of = {row["system"]: row for row in rows if row["round"] == round_}
        peer, ours = of[PUPPETDB], of[INGEST]
        faster = ours["per_s"] / peer["per_s"]
        less = _cpu(peer) / _cpu(ours)
        goal = GOALS[round_]
        for row in (peer, ours):
            is_ours = row is ours
            table.add_row(
                "" if is_ours else f"{round_} {name}", row["system"], f"{row['per_s']:.1f}", f"{row['cpu_ms']:.1f}",
                f"{row['postgresql_ms']:.1f}", f"{row['wal_kib']:.1f}",
                f"{faster:.1f}x (goal {goal[0]}x)" if is_ours else "", f"{less:.1f}x (goal {goal[1]}x)" if is_ours else "",
                end_section=is_ours,
            )  # fmt: skip
    Console(width=120).print(table)
    dropped = next(row for row in rows if row["system"] == "receive and drop")
    unchanged = next(row for row in rows if row["system"] == INGEST and row["round"] == 2)
    share = unchanged["per_s"] / dropped["per_s"]
    print(
        f"receive and drop by the same receiver: {dropped['per_s']:.0f}/s; unchanged catalogs reach {share:.0%} of it"
    )


def _cpu(row: dict[str, Any]) -> float:
    return float(row["cpu_ms"] + row["postgresql_ms"])


def quiet(server: Postgres) -> None:
    for database in ("puppetdb", "ingest"):
        server.execute(database, "VACUUM ANALYZE")
    server.execute("postgres", "CHECKPOINT")
    time.sleep(1)


def wal_written(server: Postgres) -> tuple[int, int]:
    """(bytes ever written, full-page images ever written)."""
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as connection:
        row: Any = connection.execute(
            "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, wal_fpi FROM pg_stat_wal"
        ).fetchone()
    return int(row[0]), int(row[1])


if __name__ == "__main__":
    main()
