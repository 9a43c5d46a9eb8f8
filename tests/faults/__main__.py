"""``make faults``: the whole matrix of faults with a fixed seed, its figures, and the record of the run."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.records import record
from lab.brokers import BROKERS
from tests.faults.injuries import FAULTS
from tests.faults.run import Run, kill_many, run, schedule
from tests.faults.world import World


class Part(NamedTuple):
    """A world and which faults happen in it."""

    name: str
    broker: str
    replica: bool
    areas: tuple[str, ...]
    names: tuple[str, ...] | None = None


PARTS = (
    Part("embedded broker", "embedded", False, ("process", "database", "broker")),
    Part("RabbitMQ", "rabbitmq", False, ("process", "broker")),
    Part("ActiveMQ Classic", "activemq", False, ("process", "broker")),
    # It loses what it had handed to a consumer that ends: nothing here may end the receiver's connection.
    Part("StompServer", "stompserver", False, (), ("kill a decoder", "kill a writer", "stop a decoder", "stop a writer",
     "stop the supervisor", "PostgreSQL: immediate shutdown and restart", "PostgreSQL: connection cut at byte N")),
    Part("two database servers", "embedded", True, (), ("PostgreSQL: primary fails over to its standby", "kill a writer")),
)  # fmt: skip
MANY_CHILDREN = ("--workers", "6", "--writers", "4")  # enough that a thousand kills take minutes


def main() -> int:
    asked = _arguments().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end with us
    console = Console()
    parts = [part for part in PARTS if not asked.part or part.name in asked.part]
    runs: dict[str, Run] = {}
    for part in parts:
        if missing := BROKERS[part.broker].missing():
            console.print(f"{part.name}: skipped, {missing}")
            continue
        runs[part.name] = _run(part, asked, console)
    for name, each in runs.items():
        _print(console, name, each)
    rows = [row for name, each in runs.items() for row in _rows(name, each)]
    settings = {"seed": asked.seed, "rounds": asked.rounds, "combined": asked.combined, "kills": asked.kills}
    console.print(f"record: {record('faults', settings, rows)}")
    clean = all(each.verdict.is_clean for each in runs.values())
    console.print("nothing lost" if clean else "[red]NOT CLEAN[/red]")
    return 0 if clean and runs else 1


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=20260101)
    parser.add_argument(
        "--rounds", type=int, default=2, help="how often each fault happens (default: %(default)s)"
    )
    parser.add_argument(
        "--combined", type=int, default=15, help="turns with several at once (default: %(default)s)"
    )
    parser.add_argument(
        "--kills", type=int, default=0, help="instead: so many kills of random processes in one run"
    )
    parser.add_argument(
        "--seconds-max", type=float, default=3600.0, help="end the kills earlier (default: %(default)s)"
    )
    parser.add_argument("--part", action="append", help=" or ".join(f"'{part.name}'" for part in PARTS))
    return parser


def _run(part: Part, asked: argparse.Namespace, console: Console) -> Run:
    columns = (TextColumn("{task.description:50}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        flags = MANY_CHILDREN if asked.kills else ()
        world = World(broker=part.broker, seed=asked.seed, replica=part.replica, flags=flags)
        try:
            names = part.names or [
                n for n, f in FAULTS.items() if f.area in part.areas and not f.missing(world)
            ]
            turns = asked.kills or len(list(schedule(names, asked.rounds, asked.combined, asked.seed)))
            task = progress.add_task(part.name, total=turns)

            def told(turn: tuple[str, ...], recovery_s: float) -> None:
                progress.update(task, advance=1, description=f"{part.name}: {' + '.join(turn)}"[:50])

            if asked.kills:
                return kill_many(world, asked.kills, asked.seed, told, asked.seconds_max)
            wanted = names if part.names else [n for n, f in FAULTS.items() if f.area in part.areas]
            return run(
                world, names=wanted, rounds=asked.rounds, combined=asked.combined, seed=asked.seed, told=told
            )  # fmt: skip
        finally:
            world.close()


def _print(console: Console, name: str, found: Run) -> None:
    table = Table("fault", "times", "longest recovery", "limit", title=name)
    for fault, (count, longest_s, limit_s) in sorted(found.worst().items()):
        over = limit_s is not None and longest_s > limit_s
        limit = "" if limit_s is None else f"{limit_s:.0f} s"
        table.add_row(fault, str(count), f"[{'red' if over else 'green'}]{longest_s:.2f} s[/]", limit)
    for fault, reason in found.skipped.items():
        table.add_row(fault, "skipped", reason, "")
    console.print(table)
    verdict = found.verdict
    console.print(
        f"faults injected {found.faults}, messages sent {verdict.sent}, with receipt {verdict.receipts}, settled "
        f"{verdict.settled}, lost {len(verdict.lost)}, stale overwrites {verdict.stale_overwrites}, duplicates in effect "
        f"{verdict.duplicates_in_effect}, still queued {verdict.still_queued}, left over {len(verdict.leftovers)}, "
        f"{found.seconds:.0f} s"
    )
    for line in [*verdict.lost, *verdict.leftovers][:20]:
        console.print(f"  {line}")


def _rows(name: str, found: Run) -> list[dict[str, Any]]:
    verdict = found.verdict._asdict() | {
        "lost": len(found.verdict.lost),
        "leftovers": len(found.verdict.leftovers),
    }
    rows: list[dict[str, Any]] = [
        {"part": name, "faults": found.faults, **verdict, "seconds": round(found.seconds, 1)}
    ]
    for fault, (count, longest_s, limit_s) in sorted(found.worst().items()):
        rows.append(
            {
                "part": name,
                "fault": fault,
                "times": count,
                "longest_recovery_s": round(longest_s, 2),
                "limit_s": limit_s,
            }
        )
    rows += [{"part": name, "fault": fault, "skipped": reason} for fault, reason in found.skipped.items()]
    return rows


if __name__ == "__main__":
    sys.exit(main())
