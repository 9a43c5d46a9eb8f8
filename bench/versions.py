"""Revisions of the engine beside each other: the same rounds of runs into each, round by round in turn, each with a broker and a
database of its own.

A tree is a checkout (``git worktree add``). The first is what the others are compared with: the median, over the rounds after the
first, of each round's ratio. The order within a round is another each time.
"""

from __future__ import annotations

import argparse
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from bench.pipeline import one_round
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, workplace
from ingest.engine.signals import leave_on_signals
from lab.engine import Engine
from lab.servers import Postgres
from tools.loadgen.fleet import Fleet, parse_kinds


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trees", type=Path, nargs="+", help="checkouts, the first is the base")
    parser.add_argument("--nodes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--kinds", default="facts,catalog,report", help="that a run sends")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--writers", type=int, default=2)
    options = parser.parse_args()
    if len({tree.name for tree in options.trees}) < len(options.trees):
        parser.error("two trees have the same name, by which rows are told apart")
    rows = measure(options)
    _print_ratios(rows, options.trees[0].name)
    print("record:", record("versions", {**vars(options), "trees": [t.name for t in options.trees]}, rows))


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each tree and round."""
    fleet = Fleet(options.nodes, options.seed, kinds=parse_kinds(options.kinds))
    chance = random.Random(options.seed)
    flags = ("--workers", str(options.workers), "--writers", str(options.writers), "--log-level", "warning")
    rows = []
    with workplace() as (directory, stack):
        server = Postgres(directory)
        server.start(**POSTGRESQL)
        stack.callback(server.stop)
        engines = []
        for number, tree in enumerate(options.trees):
            broker = broker_of(None, stack)
            server.execute("postgres", f"CREATE DATABASE ingest{number}")
            log = directory / f"engine-{number}.log"
            engine = Engine(broker, server.conninfo(f"ingest{number}"), *flags, log=log, tree=tree.resolve())
            stack.callback(engine.kill)
            engine.wait_ready()
            engines.append((tree.name, broker, engine))
        for round_ in range(1, options.rounds + 1):
            bodies = fleet.next_round(datetime.now(UTC) - timedelta(hours=options.rounds - round_))
            for name, broker, engine in chance.sample(engines, len(engines)):
                server.execute("postgres", "CHECKPOINT")
                row = {"tree": name, "round": round_} | one_round(engine, server, broker, bodies)
                rows.append(row)
                print(
                    f"{round_:>3} {name:<16} {row['per_s']:>8.1f}/s, CPU {_cpu_ms(row):.2f} ms, of it PostgreSQL "
                    f"{row['postgresql_ms']:.2f}; {row['cores_busy']:.2f} cores busy",
                    flush=True,
                )
        for _, _, engine in engines:
            engine.stop()
    return rows


def _cpu_ms(row: dict[str, Any]) -> float:
    """Of the engine and of PostgreSQL, for each message."""
    return float(row["cpu_ms"] + row["postgresql_ms"])


def _print_ratios(rows: list[dict[str, Any]], base: str) -> None:
    of: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        if row["round"] > 1:
            of.setdefault(row["tree"], {})[row["round"]] = row
    for name, its in of.items():
        pairs = [(row, of[base][round_]) for round_, row in its.items()]
        print(
            f"{name:<16} {median(row['per_s'] for row in its.values()):>8.1f}/s, CPU "
            f"{median(map(_cpu_ms, its.values())):.2f} ms; of {base}: "
            f"{median(row['per_s'] / old['per_s'] for row, old in pairs):.2f} times as fast, "
            f"{median(_cpu_ms(row) / _cpu_ms(old) for row, old in pairs):.2f} of the CPU"
        )


if __name__ == "__main__":
    main()
