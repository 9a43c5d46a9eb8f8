"""Side by side with PuppetDB: the facts of the same nodes, round after round in turn, against one PostgreSQL.

As for catalogs (``bench.peers``). A round of facts is over soon, so this engine gets the whole fleet and PuppetDB the first
nodes of it; figures are for each factset. This engine has one half of the fleet before PuppetDB's turn and the other after it: a
machine's mood lasts for minutes. Clones have names, addresses and hardware of their own.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.peers.__main__ import INGEST, PUPPETDB, quiet, wal_written
from bench.pipeline import one_round
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s, workplace
from ingest.engine.signals import leave_on_signals
from lab import real_facts as corpus
from lab.engine import Engine
from lab.puppetdb import PuppetDB, missing
from lab.servers import Postgres

ROUNDS = {1: "first", 2: "next run", 3: "next run", 4: "packages upgraded"}
# Throughput, CPU less, and KiB of WAL for each.
GOALS = {1: (60, 60, 6.0), 2: (40, 40, 1.5), 3: (40, 40, 1.5), 4: (40, 40, 6.0)}
_CERTNAME = re.compile(rb'"certname":"([^".]+)')


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=Path, help="a directory of ROLE/run-K/facts-wire.json")
    parser.add_argument("--clones", type=int, default=100, help="of each node")
    parser.add_argument("--peer-nodes", type=int, default=192, help="of them go to PuppetDB")
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--writers", type=int, default=2)
    options = parser.parse_args()
    if reason := missing():
        sys.exit(f"skipped: {reason}")
    with workplace() as (directory, stack):
        rounds = {round_: fleet(options.facts, round_, options.clones) for round_ in ROUNDS}
        rows = compare(options, directory, stack, rounds, ROUNDS)
    show(rows, "the facts of the same nodes", ROUNDS, GOALS)
    print("record:", record("peers-facts", vars(options), rows))


def compare(
    options: argparse.Namespace,
    directory: Path,
    stack: ExitStack,
    rounds: Mapping[int, Sequence[bytes]],
    names: Mapping[int, str],
    peer_nodes: Mapping[int, int] | None = None,
) -> list[dict[str, Any]]:
    """One row a round and system. ``peer_nodes``: so many messages of a round go to PuppetDB."""
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
    for round_, bodies in rounds.items():
        its = bodies[: (peer_nodes or {}).get(round_, options.peer_nodes)]
        half = len(bodies) // 2
        first = _with_wal(server, bodies[:half], lambda part: one_round(engine, server, broker, part))
        theirs = _with_wal(server, its, lambda part: _by_peer(peer, server, part))
        second = _with_wal(server, bodies[half:], lambda part: one_round(engine, server, broker, part))
        for system, row in ((PUPPETDB, theirs), (INGEST, _together(first, second))):
            rows.append({"system": system, "round": round_} | row)
            print(f"{system:<9} {round_} {names[round_]:<18} {row['per_s']:>8.1f}/s", flush=True)
    engine.stop()
    return rows


def _with_wal(
    server: Postgres, bodies: Sequence[bytes], store: Callable[[list[bytes]], dict[str, Any]]
) -> dict[str, Any]:
    """What ``store`` gives, with the WAL that it cost."""
    quiet(server)
    before = wal_written(server)
    row = store(list(bodies))
    after = wal_written(server)
    return row | {
        "mean_bytes": sum(map(len, bodies)) // len(bodies),
        "wal_kib": (after[0] - before[0]) / 1024 / len(bodies),
        "full_page_images": (after[1] - before[1]) / len(bodies),
    }


def _together(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One row of two: counts and seconds are added, what is for each message is weighed with the messages."""
    counts = (first["catalogs"], second["catalogs"])

    def mean(one: Any, other: Any) -> Any:
        if isinstance(one, dict):
            return {name: mean(one[name], other[name]) for name in one}
        return (one * counts[0] + other * counts[1]) / sum(counts)

    both = {name: mean(first[name], second[name]) for name in first if name != "outcomes"}
    seconds = first["seconds"] + second["seconds"]
    outcomes = Counter(first["outcomes"]) + Counter(second["outcomes"])
    return both | {
        "catalogs": sum(counts),
        "seconds": seconds,
        "per_s": sum(counts) / seconds,
        "outcomes": dict(outcomes),
        "halves_per_s": [first["per_s"], second["per_s"]],
    }


def fleet(directory: Path | None, round_: int, clones: int) -> list[bytes]:
    """Clone after clone of all nodes."""
    if directory is None:
        bodies = [corpus.body(role, round_) for role in corpus.ROLES]
    else:
        files = sorted(directory.glob(f"*/run-{round_}/facts-wire.json"))
        bodies = [file.read_bytes() for file in files]
    return [_clone(body, clone) for clone in range(clones) for body in bodies]


def _clone(body: bytes, clone: int) -> bytes:
    found = _CERTNAME.search(body)
    assert found is not None
    body = body.replace(found[1], found[1] + b"-c%d" % clone)
    body = re.sub(rb"10\.0\.0\.(\d+)", b"10.%d.%d.\\1" % divmod(clone, 256), body)
    return body.replace(b"52:54:00:", b"52:%02x:%02x:" % divmod(clone, 256))


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


def show(
    rows: list[dict[str, Any]],
    title: str,
    names: Mapping[int, str],
    goals: Mapping[int, tuple[float, float, float | None]],
) -> None:
    """The table with the ratios, and what was asked of them."""
    table = Table(title=f"{title}, the same PostgreSQL, one run")
    for column in (
        "round",
        "system",
        "a second",
        "own CPU ms",
        "PostgreSQL ms",
        "WAL KiB",
        "faster",
        "less CPU",
    ):
        table.add_column(column, justify="left" if column in ("round", "system") else "right")
    for round_, name in names.items():
        of = {row["system"]: row for row in rows if row["round"] == round_}
        faster = of[INGEST]["per_s"] / of[PUPPETDB]["per_s"]
        less = _cpu(of[PUPPETDB]) / _cpu(of[INGEST])
        goal = goals[round_]
        for row in of.values():
            is_ours = row["system"] == INGEST
            wal_goal = f" (goal {goal[2]})" if is_ours and goal[2] is not None else ""
            table.add_row(
                "" if is_ours else f"{round_} {name}", row["system"], f"{row['per_s']:.1f}", f"{row['cpu_ms']:.2f}",
                f"{row['postgresql_ms']:.2f}", f"{row['wal_kib']:.2f}{wal_goal}",
                f"{faster:.1f}x (goal {goal[0]}x)" if is_ours else "", f"{less:.1f}x (goal {goal[1]}x)" if is_ours else "",
                end_section=is_ours,
            )  # fmt: skip
    Console(width=130).print(table)


def _cpu(row: dict[str, Any]) -> float:
    return float(row["cpu_ms"] + row["postgresql_ms"])


if __name__ == "__main__":
    main()
