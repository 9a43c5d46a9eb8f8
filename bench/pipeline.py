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
from typing import Any

from bench.catalogs import ROUND_NAMES, fleet
from bench.receiver import drop
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s, publish
from tests.engine.engine import Engine
from tests.servers import Postgres


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path)
    parser.add_argument("--clones", type=int, default=8)
    parser.add_argument("--roles", default="*", help="a pattern; minimal-* are the small catalogs")
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--drop", action="store_true", help="only receive and acknowledge")
    options = parser.parse_args()
    bodies = fleet(options.catalogs, options.clones, roles=options.roles)
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        broker = broker_of(options.broker, stack)
        if options.drop:
            rows.append(drop(broker, bodies[2]))
            print(
                f"receive and drop: {rows[-1]['per_s']:.0f} catalogs/s, {rows[-1]['cpu_ms']:.2f} ms CPU each"
            )
        for workers in options.workers:
            rows += measure(broker, bodies, workers, options.writers)
    print("record:", record("pipeline", vars(options), rows))


def measure(broker: str, rounds: dict[int, list[bytes]], workers: int, writers: int) -> list[dict[str, Any]]:
    """The four rounds into an empty database."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    server.start(**POSTGRESQL)
    found = []
    print(f"workers {workers}, writers {writers}")
    print(f"{'round':<18} {'catalogs/s':>10} {'engine ms':>10} {'PostgreSQL ms':>14}")
    flags = ("--workers", str(workers), "--writers", str(writers), "--log-level", "warning")
    engine = Engine(broker, server.conninfo("postgres"), *flags, log=directory / "engine.log")
    try:
        engine.wait_ready()
        for round_, bodies in rounds.items():
            server.execute("postgres", "CHECKPOINT")
            row = {"workers": workers, "writers": writers, "round": round_}
            row |= one_round(engine, server, broker, bodies)
            found.append(row)
            name = f"{round_} {ROUND_NAMES[round_]}"
            print(
                f"{name:<18} {row['per_s']:>10.1f} {row['cpu_ms']:>10.2f} {row['postgresql_ms']:>14.2f}"
                f"  {row['outcomes']}"
            )
        engine.stop()
    finally:
        engine.kill()
        server.stop()
        shutil.rmtree(directory)
    return found


def one_round(engine: Engine, server: Postgres, broker: str, bodies: list[bytes]) -> dict[str, Any]:
    """Lets the engine empty a backlog; throughput, and CPU of the engine and of PostgreSQL for each catalog."""
    assert server.process is not None
    with intake_stopped(engine):
        publish(broker, bodies)
    zero = engine.settled()
    before = cpu_s(engine.process.pid), cpu_s(server.process.pid)
    start = time.perf_counter()
    while sum(engine.settled().values()) - sum(zero.values()) < len(bodies):
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    after = cpu_s(engine.process.pid), cpu_s(server.process.pid)
    now = engine.settled()
    return {
        "catalogs": len(bodies),
        "seconds": seconds,
        "per_s": len(bodies) / seconds,
        "cpu_ms": (after[0] - before[0]) * 1000 / len(bodies),
        "postgresql_ms": (after[1] - before[1]) * 1000 / len(bodies),
        "outcomes": {name: now[name] - zero[name] for name in now if now[name] != zero[name]},
    }


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
