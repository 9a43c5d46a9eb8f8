"""What clients that are idle, take answers slowly or send requests slowly cost the others, and the writers.

A client asks small queries over a kept connection for some seconds, alone and beside a crowd in turn; then commands are stored,
alone and beside the same crowd in turn. Both in one run; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.query import Asked, _ask, _open, commands, store
from bench.records import record
from bench.servers import POSTGRESQL, workplace
from ingest.engine.signals import leave_on_signals
from ingest.store.connection import connect
from lab.crowd import crowd
from lab.front import Front
from lab.servers import Postgres, embedded_broker
from lab.store_model import Pipeline

P99_GOAL, WRITERS_GOAL = 1.25, 1.10
SETTLED_S_MAX = 60.0  # until a crowd that came all at once keeps nobody busy
BATCH = 50
DAYS = 14  # of reports that the writers are given
ALL = "/pdb/query/v4/facts"


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=3, help="with the crowd, and as many without")
    parser.add_argument("--idle", type=int, default=200)
    parser.add_argument("--readers", type=int, default=50, help="that take all facts slowly")
    parser.add_argument("--senders", type=int, default=50, help="that send a request slowly")
    parser.add_argument("--bytes-per-s", type=int, default=4096, help="that each of the readers takes")
    options = parser.parse_args()
    with workplace() as (directory, stack):
        rows = measure(options, directory, stack)
    print("record:", record("slow", vars(options), rows))


def measure(options: argparse.Namespace, directory: Path, stack: ExitStack) -> list[dict[str, Any]]:
    server = Postgres(directory)
    server.start(**POSTGRESQL)
    stack.callback(server.stop)
    server.execute("postgres", "CREATE DATABASE ingest")
    conninfo = server.conninfo("ingest")
    bodies = list(commands(options.nodes, 1 + DAYS))
    now, later = (
        bodies[: 3 * options.nodes],
        bodies[3 * options.nodes :],
    )  # facts, catalogs, a day; more days
    print(f"{len(now)} commands: {store(conninfo, now):.0f} s", flush=True)
    server.execute("ingest", "VACUUM ANALYZE")
    front = Front(conninfo, stack.enter_context(embedded_broker()), log=directory / "front.log")
    stack.callback(front.stop)
    front.wait_ready()
    asked = list(small(json.loads(bodies[0])["certname"]))
    turns: dict[str, list[list[float]]] = {"alone": [], "the crowd comes": [], "beside the crowd": []}
    latencies(front.port, [*asked, Asked("", "all", "/facts")], 2.0)
    rows = []
    for _ in range(options.turns):
        turns["alone"].append(latencies(front.port, asked, options.seconds))
        with beside(options, front.port) as met:
            turns["the crowd comes"].append(latencies(front.port, asked, SETTLED_S_MAX, settled(conninfo)))
            turns["beside the crowd"].append(latencies(front.port, asked, options.seconds))
        print(met, flush=True)
    rows += [row_of_client(name, found) for name, found in turns.items()]
    rows[-1] |= {"goal": P99_GOAL, "ratio": ratio(turns, p99)}
    print(f"p99 beside the crowd: {rows[-1]['ratio']:.2f} times that without, goal {P99_GOAL}")
    return [*rows, *writers(options, conninfo, front.port, later)]


@contextmanager
def beside(options: argparse.Namespace, port: int) -> Iterator[dict[str, int]]:
    with crowd(
        port, idle=options.idle, readers=options.readers, senders=options.senders,
        bytes_per_s=options.bytes_per_s, path=ALL,
    ) as met:  # fmt: skip
        yield met


def small(certname: str) -> Iterator[Asked]:
    """What a compile and a page of one node ask."""
    exported = ["and", ["=", "type", "Sshkey"], ["=", "exported", True], ["=", "title", certname]]
    yield Asked("", "collector", "/resources", {"query": exported})
    yield Asked("", "facts of a node", f"/nodes/{certname}/facts")
    yield Asked("", "node", f"/nodes/{certname}")
    yield Asked("", "environments", "/environments")


def settled(conninfo: str) -> Callable[[], bool]:
    """Whether for a second nothing has been under way but what one client asks."""
    asking, quiet_since_s = connect(conninfo), time.perf_counter()

    def is_settled() -> bool:
        nonlocal quiet_since_s
        row: Any = asking.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ingest serve%' AND state = 'active'"
        ).fetchone()
        now_s = time.perf_counter()
        quiet_since_s = now_s if row[0] > 1 else quiet_since_s
        return now_s - quiet_since_s > 1

    return is_settled


def latencies(
    port: int, asked: list[Asked], seconds: float, until: Callable[[], bool] = lambda: False
) -> list[float]:
    """In ms, of each in turn; what is refused counts as long as it lasted, and is told."""
    connection = _open(port)
    found: list[float] = []
    refused, ends_s = 0, time.perf_counter() + seconds
    for one in itertools.cycle(asked):
        start_s = time.perf_counter()
        if start_s > ends_s or (len(found) % 100 == 0 and until()):
            break
        try:
            _ask(connection, one)
        except RuntimeError:
            refused += 1
        found.append((time.perf_counter() - start_s) * 1000)
    connection.close()
    if refused:
        print(f"{refused} of {len(found)} were refused", file=sys.stderr)
    return found


def p99(found: list[float]) -> float:
    return sorted(found)[min(len(found) - 1, len(found) * 99 // 100)]


def ratio(turns: dict[str, list[list[float]]], of: Callable[[list[float]], float]) -> float:
    """The median of those of each turn with the one right before it."""
    pairs = zip(turns["alone"], turns["beside the crowd"], strict=True)
    return round(statistics.median(of(beside) / of(alone) for alone, beside in pairs), 3)


def row_of_client(name: str, found: list[list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"what": f"a client, {name}", "requests": sum(map(len, found))}
    row |= {"p50_ms": [round(statistics.median(one), 2) for one in found]}
    row |= {"p99_ms": [round(p99(one), 2) for one in found], "max_ms": [round(max(one), 1) for one in found]}
    print(row, flush=True)
    return row


def writers(
    options: argparse.Namespace, conninfo: str, port: int, bodies: list[bytes]
) -> list[dict[str, Any]]:
    """Commands a second, the same number in each turn."""
    turns: dict[str, list[float]] = {"alone": [], "beside the crowd": []}
    part = len(bodies) // (2 * options.turns + 1) // BATCH * BATCH
    with connect(conninfo) as connection:
        pipeline = Pipeline(connection)

        def take() -> float:
            start_s = time.perf_counter()
            mine = bodies[:part]
            del bodies[:part]
            for at in range(0, part, BATCH):
                pipeline.take(*mine[at : at + BATCH], received_at=datetime.now(UTC))
            per_s: float = part / (time.perf_counter() - start_s)
            return per_s

        take()  # of plans, and caches
        for _ in range(options.turns):
            turns["alone"].append(take())
            with beside(options, port):
                is_settled = settled(conninfo)
                while not is_settled():
                    time.sleep(0.1)
                turns["beside the crowd"].append(take())
    slower: float = statistics.median(a / b for a, b in zip(*turns.values(), strict=True))
    print(f"writers beside the crowd: {slower:.2f} times as long, goal {WRITERS_GOAL}")
    rows: list[dict[str, Any]] = [
        {"what": f"reports a second, {name}", "per_s": [round(one) for one in found]}
        for name, found in turns.items()
    ]
    rows[-1] |= {"goal": WRITERS_GOAL, "ratio": round(slower, 3)}
    return rows


if __name__ == "__main__":
    main()
