"""The whole pipeline: a backlog of real catalogs in a broker, the engine empties it, round by round.

Throughput is from the start of the round's backlog to the last settlement; CPU is that of the engine's tree and
of PostgreSQL, the broker's apart. ``--drop`` measures the receiver alone (receive, acknowledge, nothing else).
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.catalogs import ROUND_NAMES, fleet
from bench.records import record
from ingest.channels import Arena, memory
from ingest.config import load
from ingest.errors import Unavailable
from ingest.publish import Publisher
from ingest.receiver import open_connection
from ingest.transports import endpoints
from tests.engine.engine import Engine
from tests.servers import Postgres, embedded_broker

TICKS = os.sysconf("SC_CLK_TCK")
# Sync is on, as in production; no checkpoint falls into a round but those that the benchmark asks for.
POSTGRESQL = {
    "fsync": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path)
    parser.add_argument("--clones", type=int, default=8)
    parser.add_argument("--roles", default="*", help="a pattern; minimal-* are the small catalogs")
    parser.add_argument("--broker", help="instead of the embedded one, which competes for the cores as well")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--writers", type=int, default=2)
    parser.add_argument("--drop", action="store_true", help="only receive and acknowledge")
    options = parser.parse_args()
    bodies = fleet(options.catalogs, options.clones, roles=options.roles)
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        broker = options.broker or stack.enter_context(embedded_broker())
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


def publish(broker: str, bodies: list[bytes]) -> None:
    publisher = Publisher(load({"queue_source": broker}, {}).config)
    try:
        publisher.publish((body, {}) for body in bodies)
    finally:
        publisher.close()


def drop(broker: str, bodies: list[bytes]) -> dict[str, Any]:
    """Our receiver's connection without anything behind it: what the wire and the broker allow."""
    config = load({"queue_source": broker}, {}).config
    publish(broker, bodies)
    arena = Arena(memory("bench", config.window_bytes_max))
    connection = open_connection(config, endpoints(config)[0], arena)
    connection.subscribe(config.destination, "drop", config.window_messages_max, config.window_bytes_max)
    start, cpu = time.perf_counter(), time.process_time()
    got = 0
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while got < len(bodies):
            selector.select(1)
            for message in connection.read():
                got += 1
                if message.offset is not None:
                    arena.free(message.offset, message.length)
                headers = message.headers
                connection.acknowledge([(headers.get("ack", ""), headers.get("message-id", ""))], "drop")
            connection.flush()
    seconds = time.perf_counter() - start
    cpu_ms = (time.process_time() - cpu) * 1000 / got
    connection.disconnect("bye")
    with suppress(Unavailable):  # some brokers close as soon as they have answered
        while "bye" not in connection.receipts:
            for _ in connection.read():
                pass
            time.sleep(0.01)
    connection.close()
    return {"drop": True, "catalogs": got, "seconds": seconds, "per_s": got / seconds, "cpu_ms": cpu_ms}


def cpu_s(pid: int) -> float:
    """User and system seconds of a process and all below it, the ended ones included."""
    total = 0.0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(") ")[2].split()
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15])) / TICKS
        waiting += map(int, children)
    return total


if __name__ == "__main__":
    main()
