"""What a cluster takes beside the engines: three RabbitMQ with a quorum queue, PostgreSQL with a synchronous standby.

Backlogs of small and of large bodies tell what a message and a byte of it cost the queue's leader and a follower, in CPU and on
disk, and what a byte of WAL costs the primary's sender and the standby; pairs of commits, with and without the standby, what
waiting for it takes. Then whole runs at a steady rate are measured, and reckoned from these figures. ``--built-in FILE`` writes
what ``ingest capacity`` plans clusters with.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import psutil
import psycopg

from bench.records import record
from bench.servers import POSTGRESQL, cpu_s, workplace
from ingest.capacity.catalogs import Sheet, synthetic
from ingest.capacity.cluster import ClusterCosts
from ingest.capacity.costs import Line
from ingest.capacity.rounds import Node
from ingest.config.loading import load
from ingest.engine.signals import leave_on_signals
from ingest.transport.publisher import Publisher
from lab.cluster import HERE, MEMBERS, QUEUE, Brokers
from lab.engine import Engine
from lab.runs import Run, facts_of, report_of
from lab.servers import Postgres
from tests.faults.world import Standby

DESTINATION = f"/amq/queue/{QUEUE}"
NODES = 200
COMMITS = 200
FLAGS = ("--workers", "1", "--writers", "2", "--log-level", "warning", "--destination", DESTINATION)
PARTS = ("leader", "follower", "sender", "standby", "primary", "engine")


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=400, help="of each backlog")
    parser.add_argument("--per-s", type=float, default=10, help="whole runs, at the end")
    parser.add_argument("--seconds", type=float, default=15, help="of these, and of twice as many")
    parser.add_argument("--built-in", type=Path)
    options = parser.parse_args()
    with workplace() as (directory, stack):
        for name in ("primary", "standby"):
            (directory / name).mkdir(mode=0o755)
        brokers = Brokers(directory / "brokers", [HERE] * MEMBERS)
        brokers.start()
        stack.callback(brokers.stop)
        primary = Postgres(directory / "primary")
        primary.start(wal_level="replica", **POSTGRESQL)
        stack.callback(primary.stop, immediate=True)
        primary.execute("postgres", "CREATE DATABASE ingest")
        standby = Standby(directory / "standby", primary)
        stack.callback(standby.stop, immediate=True)
        brokers.wait()
        engine = Engine(
            brokers.url(brokers.leader()), primary.conninfo("ingest"), *FLAGS, log=directory / "engine.log"
        )
        stack.callback(engine.kill)
        engine.wait_ready()
        cluster = _Cluster(brokers, primary, standby, engine)
        rows = cluster.backlogs(options.messages)
        waits = commits(primary.conninfo("ingest"))
        steady = [cluster.steady(times * options.per_s, options.seconds) for times in (1, 2)]
        costs = fitted(rows, steady[0], waits)
        for row in steady:
            row["reckoned_ms"] = reckoned(costs, row)
        cluster.close()
    print(msgspec.json.format(msgspec.json.encode(costs), indent=1).decode())
    for row in steady:
        for part, ms in row["reckoned_ms"].items():
            print(
                f"{row['per_s']:g} runs/s, {part:<9} {row['cpu_ms'][part]:6.2f} ms a run measured, {ms:6.2f} reckoned"
            )
    print(
        "record:",
        record(
            "cluster-costs", vars(options), [*rows, {"commit_ms": waits}, *steady, msgspec.to_builtins(costs)]
        ),
    )
    if options.built_in:
        options.built_in.write_bytes(msgspec.json.format(msgspec.json.encode(costs), indent=1) + b"\n")


class _Cluster:
    def __init__(self, brokers: Brokers, primary: Postgres, standby: Postgres, engine: Engine) -> None:
        self._brokers, self._primary, self._standby, self._engine = brokers, primary, standby, engine
        leader = brokers.leader()
        self._publisher = Publisher(
            load({"queue_source": brokers.url(leader), "destination": DESTINATION}, {}).config
        )
        self._nodes = [Node(template, n) for n in range(NODES // 8) for template in synthetic(8, 3)]
        self._sheet = Sheet()
        self._runs = [0] * NODES
        self._settled = 0.0
        pids = [node.process.pid for node in brokers.nodes if node.process is not None]
        self._leader, (self._follower, _) = pids[leader], [pid for pid in pids if pid != pids[leader]]

    def close(self) -> None:
        self._publisher.close()

    def backlogs(self, messages: int) -> list[dict[str, Any]]:
        """Catalogs and facts that are there, and reports; the catalogs' first ones before, which do not count."""
        self._measure("first", (self._catalog(n, "first") for n in range(NODES)))
        self._measure("facts", (self._facts(n) for n in range(NODES)))
        rows = []
        for _ in range(2):
            rows += [
                self._measure("unchanged", (self._catalog(n % NODES, "unchanged") for n in range(messages))),
                self._measure("facts", (self._facts(n % NODES) for n in range(messages))),
                self._measure("report", (self._report(n % NODES) for n in range(messages))),
            ]
        rows.append(self._measure("few", (self._catalog(n % NODES, "few") for n in range(messages))))
        return rows

    def steady(self, per_s: float, seconds: float) -> dict[str, Any]:
        def bodies() -> Iterator[bytes]:
            begun_s = time.monotonic()
            for number in range(int(per_s * seconds)):
                time.sleep(max(0.0, begun_s + number / per_s - time.monotonic()))
                node = number % NODES
                yield self._facts(node)
                yield self._catalog(node, "few" if number % 10 == 0 else "unchanged")
                yield self._report(node)

        found = self._measure("steady", bodies())
        runs = found["messages"] / 3
        found["cpu_ms"] = {part: value * found["messages"] / runs for part, value in found["cpu_ms"].items()}
        return found | {"runs": runs, "per_s": per_s}

    def _measure(self, name: str, bodies: Iterator[bytes]) -> dict[str, Any]:
        before, count, size = self._now(), 0, 0

        def counted() -> Iterator[tuple[bytes, dict[str, str]]]:
            nonlocal count, size
            for body in bodies:
                count, size = count + 1, size + len(body)
                yield body, {}

        begun_s = time.monotonic()
        self._publisher.publish(counted())
        self._settled += count
        self._engine.wait_settled(int(self._settled))
        time.sleep(0.5)  # what is written behind
        after = self._now()
        spent = {key: after[key] - before[key] for key in after}
        return {
            "name": name, "messages": count, "bytes": size, "seconds": time.monotonic() - begun_s,
            "cpu_ms": {part: spent[part] * 1000 / count for part in PARTS},
            "wal_bytes": spent["wal"], "leader_disk_bytes": spent["leader disk"],
            "follower_disk_bytes": spent["follower disk"],
        }  # fmt: skip

    def _now(self) -> dict[str, float]:
        assert self._primary.process is not None
        assert self._standby.process is not None
        sender = sum(_titled(self._primary.process.pid, "walsender"))
        with psycopg.connect(self._primary.conninfo("ingest")) as connection:
            row: Any = connection.execute(
                "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8"
            ).fetchone()
        return {
            "leader": cpu_s(self._leader), "follower": cpu_s(self._follower), "sender": sender,
            "standby": cpu_s(self._standby.process.pid),
            "primary": cpu_s(self._primary.process.pid) - sender,
            "engine": cpu_s(self._engine.process.pid), "wal": row[0],
            "leader disk": _written(self._leader), "follower disk": _written(self._follower),
        }  # fmt: skip

    def _catalog(self, node: int, kind: str) -> bytes:
        return bytes(self._sheet.write(self._nodes[node].next_parts(kind, datetime.now(UTC))))

    def _facts(self, node: int) -> bytes:
        self._runs[node] += 1
        return facts_of(self._run(node))

    def _report(self, node: int) -> bytes:
        self._runs[node] += 1
        return report_of(self._run(node))

    def _run(self, node: int) -> Run:
        return Run(self._nodes[node].certname, node, self._runs[node], datetime.now(UTC))


def _written(pid: int) -> float:
    """Bytes that a process and its children gave to be stored."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(each.io_counters().write_bytes for each in processes))


def _titled(pid: int, title: str) -> Iterator[float]:
    for child in psutil.Process(pid).children():
        if title in " ".join(child.cmdline()):
            yield cpu_s(child.pid)


def commits(conninfo: str) -> dict[str, float]:
    """Median milliseconds of the smallest commit, without the standby and with it, in turn."""
    found: dict[str, list[float]] = {"local": [], "on": []}
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS smallest (n int)")
        for number in range(2 * COMMITS):
            how = "local" if number % 2 else "on"
            connection.execute(f"SET synchronous_commit = {how}")
            begun_s = time.perf_counter()
            connection.execute("INSERT INTO smallest VALUES (1)")
            found[how].append((time.perf_counter() - begun_s) * 1000)
        connection.execute("DROP TABLE smallest")
    return {how: median(values) for how, values in found.items()}


def fitted(rows: list[dict[str, Any]], single: dict[str, Any], commit_ms: dict[str, float]) -> ClusterCosts:
    """``single``: whole runs, where nearly each message has a commit of its own."""
    small = [row for row in rows if row["name"] in ("facts", "report")]
    large = [row for row in rows if row["name"] in ("unchanged", "few")]
    wal = sum(row["wal_bytes"] for row in rows)

    def line(part: str) -> Line:
        """Through the mean of the small and of the large."""
        (few, low), (many, high) = (
            (
                sum(row["bytes"] for row in of) / sum(row["messages"] for row in of),
                sum(row["cpu_ms"][part] * row["messages"] for row in of)
                / 1000
                / sum(row["messages"] for row in of),
            )
            for of in (small, large)
        )
        byte_s = max(0.0, (high - low) / (many - few))
        return Line(max(0.0, low - byte_s * few), byte_s)

    def of_wal(part: str) -> Line:
        byte_s = _a_byte(part)
        messages, spent_s = single["messages"], single["cpu_ms"][part] * single["runs"] / 1000
        return Line(max(0.0, spent_s - byte_s * single["wal_bytes"]) / messages, byte_s)

    def _a_byte(part: str) -> float:
        return float(sum(row["cpu_ms"][part] * row["messages"] for row in rows) / 1000 / wal)

    bodies = sum(row["bytes"] for row in rows)
    return ClusterCosts(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpu(),
        leader=line("leader"),
        follower=line("follower"),
        disk_bytes=sum(row["follower_disk_bytes"] for row in rows) / bodies,
        sender=of_wal("sender"),
        standby=of_wal("standby"),
        standby_wait_s=max(0.0, commit_ms["on"] - commit_ms["local"]) / 1000,
    )


def _cpu() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"


def reckoned(costs: ClusterCosts, steady: dict[str, Any]) -> dict[str, float]:
    """CPU milliseconds of a run."""
    runs, messages = steady["runs"], steady["messages"]
    sizes = {
        "leader": steady["bytes"],
        "follower": steady["bytes"],
        "sender": steady["wal_bytes"],
        "standby": steady["wal_bytes"],
    }
    lines = {part: getattr(costs, part) for part in sizes}
    return {
        part: 1000 * (line.each_s * messages + line.byte_s * sizes[part]) / runs
        for part, line in lines.items()
    }


if __name__ == "__main__":
    main()
