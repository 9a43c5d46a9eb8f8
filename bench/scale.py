"""Reading from a large fleet: 3000 nodes of 1000 resources are stored, then collectors' questions are timed.

``make bench-scale``. Nodes are clones of real catalogs with their certname replaced, filled up to the wanted size
with resources of their own; each exports two. Prints times (median, best and worst of several), plans, and what a node
costs on disk. Ends with 1 when a question takes longer than its limit.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.catalogs import fleet
from bench.records import record
from ingest.core.catalog.decoding import Decoding
from ingest.core.delivery.work import Descriptor
from ingest.engine.kinds import open_lane
from ingest.engine.signals import leave_on_signals
from ingest.store.catalog.reading import exported_resources, read_catalog, who_has
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import collect_garbage
from ingest.store.lane import LaneSettings
from ingest.store.migrate import migrate
from ingest.store.queries import query
from lab.decoding import work_of
from lab.servers import Postgres

ASKED_TYPE = "Nagios_host"  # one exported by each node
LIMITS_MS = {"collect a type": 50, "one node's catalog": 30}
REPEATS = 15
BATCH = 24


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json")
    parser.add_argument("--nodes", type=int, default=3000)
    parser.add_argument("--resources", type=int, default=1000, help="at least, a node")
    parser.add_argument("--plans", action="store_true", help="print each question's plan")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    try:
        server.start(fsync="off", shared_buffers="1GB", max_wal_size="8GB")
        rows = run(server.conninfo("postgres"), options)
        print("record:", record("scale", vars(options), rows))
    finally:
        server.stop()
        shutil.rmtree(directory)
    missed = [row["question"] for row in rows if row.get("limit_ms") and row["median_ms"] > row["limit_ms"]]
    if missed:
        sys.exit(f"too slow: {', '.join(missed)}")


def run(conninfo: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    connection = connect(conninfo)
    migrate(connection)
    bases = [body for body in fleet(options.catalogs, 1)[1] if len(body) > 100_000]
    began = time.perf_counter()
    load(connection, clones(bases, options.nodes, options.resources))
    print(f"{options.nodes} catalogs loaded in {time.perf_counter() - began:.0f} s")
    connection.execute("VACUUM ANALYZE")
    rows = []
    for question, ask in questions(f"scale-{options.nodes // 2}.example.com").items():
        row = {"question": question, "limit_ms": LIMITS_MS.get(question), **timed(connection, ask)}
        limit = f"limit {row['limit_ms']} ms" if row["limit_ms"] else ""
        spread = f"best{row['best_ms']:>7.1f}, worst{row['worst_ms']:>7.1f}"
        print(f"{question:<28}{row['median_ms']:>8.1f} ms, {spread},{row['rows']:>6} rows {limit}")
        rows.append(row)
    if options.plans:
        for name, plan in plans(connection, f"scale-{options.nodes // 2}.example.com").items():
            print(f"\n{name}\n{plan}")
    rows.append({"bytes_a_node": sizes(connection, options.nodes)})
    print("\nbytes a node             table  indexes    TOAST")
    for name, parts in rows[-1]["bytes_a_node"].items():
        print(f"{name:<22} {parts['table']:>8} {parts['indexes']:>8} {parts['toast']:>8}")
    began = time.perf_counter()
    collected = collect_garbage(connection)
    rows.append({"gc_s": time.perf_counter() - began, "collected": sum(collected.deleted.values())})
    print(f"\ngarbage collection with nothing to do: {rows[-1]['gc_s']:.2f} s, {rows[-1]['collected']} rows")
    return rows


def clones(bases: list[bytes], nodes: int, resources: int) -> Iterator[bytes]:
    """Bodies of that many nodes: a real catalog each, and resources of the node's own."""
    templates = [_template(body, resources) for body in bases]
    for number in range(nodes):
        yield templates[number % len(templates)].replace(b"@NUMBER@", b"%d" % number)


def _template(body: bytes, resources: int) -> bytes:
    certname = "scale-@NUMBER@.example.com"
    old = json.loads(body)["payload"]["certname"]
    command = json.loads(body.decode().replace(old, certname))
    found = command["payload"]["resources"]
    own = {"tags": ["own", "scale"], "file": "/etc/puppet/site.pp", "line": 1}
    found += [
        {
            "type": "File",
            "title": f"/own/{n}",
            "exported": False,
            "parameters": {"content": f"{certname} {n}"},
        }
        | own
        for n in range(max(20, resources - len(found) - 2))
    ]
    found += [
        {"type": type_, "title": f"{type_} of {certname}", "exported": True, "parameters": {"address": "10.@NUMBER@"}}
        | own
        for type_ in (ASKED_TYPE, "Nagios_service")
    ]  # fmt: skip
    return json.dumps(command).encode()


def load(connection: Connection, bodies: Iterator[bytes]) -> None:
    lane = open_lane(connection, LaneSettings(400_000))
    decoding = Decoding(256 * 1024 * 1024)
    works = []
    for number, body in enumerate(bodies, 1):
        descriptor = Descriptor(number, 1, 0, len(body), len(body), datetime.now(UTC), {})
        works.append(work_of(decoding, descriptor, body, {}))
        if len(works) == BATCH:
            lane.apply(works)
            works = []
    if works:
        lane.apply(works)


def questions(certname: str) -> dict[str, Callable[[Connection], int]]:
    """What is asked, as the product asks it; each returns how many rows came."""

    def count(rows: Iterator[Any]) -> int:
        return sum(1 for _ in rows)

    def collect(connection: Connection) -> int:
        # As the Puppet module does: no tags, no positions.
        return connection.execute(
            "SELECT certname, type, title, parameters::text, encode(exact, 'hex') FROM exported_resources"
            ' WHERE type = %s AND certname <> %s ORDER BY certname COLLATE "C", title COLLATE "C"',
            [ASKED_TYPE, certname],
            prepare=False,
        ).rowcount

    return {
        "collect a type": collect,
        "  with tags and positions": lambda c: count(exported_resources(c, ASKED_TYPE)),
        "  one title": lambda c: count(
            exported_resources(c, ASKED_TYPE, title=f"{ASKED_TYPE} of {certname}")
        ),
        "  by tag": lambda c: count(exported_resources(c, ASKED_TYPE, tags=["scale"])),
        "  by parameter": lambda c: count(exported_resources(c, ASKED_TYPE, parameters={"address": "10.7"})),
        "one node's catalog": lambda c: len(read_catalog(c, certname).resources),
        "who has, on one node": lambda c: count(who_has(c, ASKED_TYPE, f"{ASKED_TYPE} of {certname}")),
        "who has, on all nodes": lambda c: count(who_has(c, "Stage", "main")),
        "one node's edges": lambda c: (
            c.execute("SELECT * FROM edges WHERE certname = %s", [certname]).rowcount
        ),
    }


def timed(connection: Connection, ask: Callable[[Connection], int]) -> dict[str, Any]:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        rows = ask(connection)
        times.append((time.perf_counter() - began) * 1000)
    return {
        "best_ms": min(times),
        "median_ms": statistics.median(times),
        "worst_ms": max(times),
        "rows": rows,
    }


def plans(connection: Connection, certname: str) -> dict[str, str]:
    """EXPLAIN ANALYZE of the statements behind the questions."""
    nothing = dict.fromkeys(("title", "tags", "parameters", "except_certname"))
    row: Any = connection.execute("SELECT id FROM nodes WHERE certname = %s", [certname]).fetchone()
    asked: dict[str, tuple[str, Any]] = {
        "collect a type, with tags and positions": ("read_exported", nothing | {"type": ASKED_TYPE}),
        "one node's resources": ("read_catalog_resources", [row[0]]),
        "who has, on one node": (
            "read_who_has",
            {"type": ASKED_TYPE, "title": f"{ASKED_TYPE} of {certname}"},
        ),
        "who has, on all nodes": ("read_who_has", {"type": "Stage", "title": "main"}),
    }
    found = {}
    for name, (statement, parameters) in asked.items():
        lines: Any = connection.execute(
            "EXPLAIN (ANALYZE, BUFFERS) " + query(statement).as_string(connection),
            parameters,
        ).fetchall()
        found[name] = "\n".join(line for (line,) in lines)
    return found


def sizes(connection: Connection, nodes: int) -> dict[str, dict[str, int]]:
    rows: Any = connection.execute(
        "SELECT relname, pg_relation_size(oid), pg_indexes_size(oid), pg_total_relation_size(oid) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY pg_total_relation_size(oid) DESC"
    ).fetchall()
    found = {
        name: {
            "table": table // nodes,
            "indexes": indexes // nodes,
            "toast": (total - table - indexes) // nodes,
        }
        for name, table, indexes, total in rows
        if total // nodes
    }
    found["all"] = {
        part: sum(parts[part] for parts in found.values()) for part in ("table", "indexes", "toast")
    }
    return found


if __name__ == "__main__":
    main()
