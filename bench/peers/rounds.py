"""Rounds of messages into PuppetDB and into this engine in turn, against one PostgreSQL: what facts, reports and whole runs share.

A round is over soon, so this engine gets all of it and PuppetDB its first messages; figures are for each message.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.peers.__main__ import INGEST, PUPPETDB, quiet, wal_written
from bench.pipeline import one_round
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s
from ingest.engine.signals import leave_on_signals
from lab.engine import Engine
from lab.puppetdb import PuppetDB, missing
from lab.servers import Postgres


class Round(NamedTuple):
    """One round, and what is asked of it as ratios to PuppetDB."""

    name: str
    bodies: Callable[[argparse.Namespace], list[bytes]]
    faster: int
    less_cpu: int
    wal_kib: float | None  # for each message, at most; None: nothing is asked


def options_of(description: str | None) -> argparse.ArgumentParser:
    """The options that all of them have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--peer-messages", type=int, default=192, help="of a round go to PuppetDB")
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--writers", type=int, default=2)
    return parser


def run(suite: str, options: argparse.Namespace, rounds: Sequence[Round]) -> None:
    """All rounds; prints the table, and leaves the raw record."""
    leave_on_signals()
    if reason := missing():
        sys.exit(f"skipped: {reason}")
    directory = Path(tempfile.mkdtemp(prefix="ingest-peers-"))
    directory.chmod(0o755)
    try:
        with ExitStack() as stack:
            rows = _compare(options, rounds, directory, stack)
    finally:
        shutil.rmtree(directory)
    _show(rows, rounds)
    print("record:", record(suite, vars(options), rows))


def _compare(
    options: argparse.Namespace, rounds: Sequence[Round], directory: Path, stack: ExitStack
) -> list[dict[str, Any]]:
    """One row a round and system."""
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
    rows = []
    for number, round_ in enumerate(rounds, 1):
        bodies = round_.bodies(options)
        for system in (PUPPETDB, INGEST):
            its = bodies[: options.peer_messages] if system == PUPPETDB else bodies
            quiet(server)
            before = wal_written(server)
            done = (
                _by_peer(peer, server, its) if system == PUPPETDB else one_round(engine, server, broker, its)
            )
            after = wal_written(server)
            rows.append(
                {"system": system, "round": number, "name": round_.name, "mean_bytes": sum(map(len, its)) // len(its)}
                | done
                | {
                    "wal_kib": (after[0] - before[0]) / 1024 / len(its),
                    "full_page_images": (after[1] - before[1]) / len(its),
                }
            )  # fmt: skip
            print(f"{system:<9} {number} {round_.name:<18} {rows[-1]['per_s']:>8.1f}/s", flush=True)
    engine.stop()
    return rows


def _by_peer(peer: PuppetDB, server: Postgres, bodies: list[bytes]) -> dict[str, Any]:
    assert server.process is not None
    before = cpu_s(peer.process.pid), cpu_s(server.process.pid)
    seconds = peer.store(bodies)
    after = cpu_s(peer.process.pid), cpu_s(server.process.pid)
    return {
        "catalogs": len(bodies), "seconds": seconds, "per_s": len(bodies) / seconds,
        "cpu_ms": (after[0] - before[0]) * 1000 / len(bodies),
        "postgresql_ms": (after[1] - before[1]) * 1000 / len(bodies),
    }  # fmt: skip


def _show(rows: list[dict[str, Any]], rounds: Sequence[Round]) -> None:
    """The table with the ratios, and what was asked of them."""
    table = Table(title="the same messages, the same PostgreSQL, one run")
    names = ("round", "system", "a second", "own CPU ms", "PostgreSQL ms", "WAL KiB", "faster", "less CPU")
    for column in names:
        table.add_column(column, justify="left" if column in ("round", "system") else "right")
    for number, goal in enumerate(rounds, 1):
        of = {row["system"]: row for row in rows if row["round"] == number}
        faster = of[INGEST]["per_s"] / of[PUPPETDB]["per_s"]
        less = _cpu(of[PUPPETDB]) / _cpu(of[INGEST])
        asked = "" if goal.wal_kib is None else f" (goal {goal.wal_kib})"
        for row in of.values():
            is_ours = row["system"] == INGEST
            table.add_row(
                "" if is_ours else f"{number} {goal.name}", row["system"], f"{row['per_s']:.1f}", f"{row['cpu_ms']:.2f}",
                f"{row['postgresql_ms']:.2f}", f"{row['wal_kib']:.2f}" + (asked if is_ours else ""),
                f"{faster:.1f}x (goal {goal.faster}x)" if is_ours else "",
                f"{less:.1f}x (goal {goal.less_cpu}x)" if is_ours else "", end_section=is_ours,
            )  # fmt: skip
    Console(width=130).print(table)


def _cpu(row: dict[str, Any]) -> float:
    return float(row["cpu_ms"] + row["postgresql_ms"])
