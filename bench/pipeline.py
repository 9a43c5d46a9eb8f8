"""The whole pipeline: a backlog of real catalogs in a broker, the engine empties it, round by round.

Throughput is from the start of the round's backlog to the last settlement; CPU is that of the engine's tree and
of PostgreSQL, the broker's apart. ``--drop`` measures the receiver alone (receive, acknowledge, nothing else).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.catalogs import ROUND_NAMES, again, fleet
from bench.receiver import drop
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s, publish
from ingest.capacity.engine import machine_busy_s
from ingest.engine.signals import leave_on_signals
from ingest.ipc.names import kind_of
from lab.engine import Engine
from lab.servers import Postgres


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path)
    parser.add_argument("--clones", type=int, default=8)
    parser.add_argument("--roles", default="*", help="a pattern; minimal-* are the small catalogs")
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument("--unchanged-times", type=int, default=8, help="as often round 2: it is over so soon")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument(
        "--drop", action="store_true", help="beside each: only receive and acknowledge round 2"
    )
    parser.add_argument(
        "--times", type=int, default=1, help="each number of workers so often; medians are printed"
    )
    options = parser.parse_args()
    bodies = fleet(options.catalogs, options.clones, roles=options.roles)
    bodies[2] = again(bodies[2], options.unchanged_times)
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        broker = broker_of(options.broker, stack)
        for workers in options.workers * options.times:  # in turn: a machine's mood lasts for minutes
            dropped = drop(broker, bodies[2]) if options.drop else None
            found = measure(broker, bodies, workers, options.writers)
            if dropped is not None:
                unchanged = next(row for row in found if row["round"] == 2)
                unchanged |= {"dropped_per_s": dropped["per_s"], "dropped_cpu_ms": dropped["cpu_ms"]}
            rows += found
    _print_medians(rows)
    print("record:", record("pipeline", vars(options), rows))


def measure(broker: str, rounds: dict[int, list[bytes]], workers: int, writers: int) -> list[dict[str, Any]]:
    """The four rounds into an empty database."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    server.start(**POSTGRESQL)
    found = []
    print(f"workers {workers}, writers {writers}")
    print(f"{'round':<18} {'catalogs/s':>10} {'engine ms':>10} {'PostgreSQL ms':>14} {'cores':>6}")
    flags = ("--workers", str(workers), "--writers", str(writers), "--log-level", "warning")
    engine = Engine(broker, server.conninfo("postgres"), *flags, log=directory / "engine.log")
    try:
        engine.wait_ready()
        for round_, bodies in rounds.items():
            server.execute("postgres", "CHECKPOINT")
            row: dict[str, Any] = {"workers": workers, "writers": writers, "round": round_}
            row |= one_round(engine, server, broker, bodies)
            found.append(row)
            name = f"{round_} {ROUND_NAMES[round_]}"
            print(
                f"{name:<18} {row['per_s']:>10.1f} {row['cpu_ms']:>10.2f} {row['postgresql_ms']:>14.2f}"
                f"{row['cores_busy']:>7.2f}  {', '.join(f'{role} {ms:.2f}' for role, ms in row['cpu_ms_of'].items())}"
                f"  {row['outcomes']}"
            )
        engine.stop()
    finally:
        engine.kill()
        server.stop()
        shutil.rmtree(directory)
    return found


def _print_medians(rows: list[dict[str, Any]]) -> None:
    """Catalogs/s by round and workers, and the share that storing unchanged ones has of dropping them."""
    of: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        of.setdefault((row["round"], row["workers"]), []).append(row["per_s"])
    for (round_, workers), several in sorted(of.items()):
        print(
            f"round {round_}, {workers} workers: {median(several):.0f}/s in the median of {len(several)}, "
            f"{min(several):.0f} to {max(several):.0f}"
        )
    if shares := [row["per_s"] / row["dropped_per_s"] for row in rows if "dropped_per_s" in row]:
        print(
            f"of receive-and-drop, right before each: {median(shares):.0%} in the median, "
            f"{min(shares):.0%} to {max(shares):.0%}"
        )


def one_round(engine: Engine, server: Postgres, broker: str, bodies: list[bytes]) -> dict[str, Any]:
    """Lets the engine empty a backlog; throughput, and CPU of the engine and of PostgreSQL for each catalog."""
    assert server.process is not None
    zero = engine.settled()
    with intake_stopped(engine):
        publish(broker, bodies)
    before, database = engine_cpu_s(engine), cpu_s(server.process.pid)
    busy = machine_busy_s()
    seconds = _wait_settled(engine, sum(zero.values()) + len(bodies))
    busy = machine_busy_s() - busy
    after = engine_cpu_s(engine)
    now = engine.settled()
    each = {name: (after[name] - before.get(name, 0)) * 1000 / len(bodies) for name in after}
    return {
        "catalogs": len(bodies),
        "seconds": seconds,
        "per_s": len(bodies) / seconds,
        "cpu_ms": sum(each.values()),
        "cpu_ms_of": each,
        "cores_busy": busy / seconds,  # the broker's share too
        "postgresql_ms": (cpu_s(server.process.pid) - database) * 1000 / len(bodies),
        "outcomes": {name: now[name] - zero[name] for name in now if now[name] != zero[name]},
    }


def engine_cpu_s(engine: Engine) -> dict[str, float]:
    """Role -> CPU seconds so far: supervisor, receiver, decoder, writer."""
    children = engine.children()
    found = {"supervisor": cpu_s(engine.process.pid) - sum(map(cpu_s, children.values()))}
    for name, pid in children.items():
        role = kind_of(name)
        found[role] = found.get(role, 0) + cpu_s(pid)
    return found


def _wait_settled(engine: Engine, goal: float) -> float:
    """Seconds until that many are settled. Asks seldom as long as there is much to do: each answer costs the engine
    a few milliseconds."""
    start = time.perf_counter()
    first = left = goal - sum(engine.settled().values())
    while left > 0:
        per_s = (first - left) / (time.perf_counter() - start)
        time.sleep(min(max(left / per_s / 2, 0.005), 0.2) if per_s else 0.02)
        left = goal - sum(engine.settled().values())
    return time.perf_counter() - start


@contextmanager
def intake_stopped(engine: Engine) -> Iterator[None]:
    """The engine stays as warm as it is while the backlog is made; the supervisor sleeps too, or it would replace
    a receiver that does not move."""
    pids = (engine.process.pid, engine.children()["receiver"])
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    main()
