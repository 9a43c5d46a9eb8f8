"""What a fleet's reports take on disk: a part of the reports of 14 days stored, the rest extrapolated.

A report every 30 minutes of so many nodes, of them one in fifty with changes, for so many of the 14 days, through decoder and
lane without processes. What grows with reports (the days' partitions with their indexes) is multiplied; what nodes share
(contents, shapes, headers) and what there is once a node are not taken for more than they are: they are multiplied too, which is
too much rather than too little.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.records import record
from bench.servers import POSTGRESQL
from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.work import Descriptor
from ingest.core.report.decoding import ReportDecoder
from ingest.engine.kinds import open_lane
from ingest.engine.signals import leave_on_signals
from ingest.store.connection import Connection, connect
from ingest.store.lane import LaneSettings
from ingest.store.migrate import migrate
from lab.decoding import work_of
from lab.runs import Run, report_of
from lab.servers import Postgres

DAYS, NODES, INTERVAL = 14, 3000, timedelta(minutes=30)
GOAL_GB = 5.0  # PuppetDB: 40
CHANGED_EVERY, CHANGED = 50, 40  # one report in so many has so many changed resources
BATCH = 100
SIZES = """
SELECT c.relname LIKE 'node\\_reports%%' AND c.relname <> 'node_reports' AS grows,
       sum(pg_table_size(c.oid))::bigint, sum(pg_indexes_size(c.oid))::bigint
FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
  AND (c.relname LIKE 'node\\_reports%%' OR c.relname = ANY (%s))
GROUP BY 1
"""
SHARED = ("metric_shapes", "report_headers", "event_contents", "log_contents", "node_latest_reports")


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=NODES // 10, help="of 3000")
    parser.add_argument(
        "--days", type=int, default=DAYS, help="of 14: contents grow with them, as reports do"
    )
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    try:
        server.start(**POSTGRESQL)
        with connect(server.conninfo("postgres")) as connection:
            row = measure(connection, options.nodes, options.days)
    finally:
        server.stop()
        shutil.rmtree(directory)
    print(
        f"{row['reports']} reports of {options.nodes} nodes and {options.days} days: {row['bytes'] / 1024**2:.0f} MiB, "
        f"{row['bytes_each']:.0f} bytes each; {row['of_all']} of {NODES} nodes, extrapolated: "
        f"{row['gb_extrapolated']:.2f} GB (goal {GOAL_GB:g}, PuppetDB 40)"
    )
    print("record:", record("disk", vars(options), [row]))


def measure(connection: Connection, nodes: int, days: int) -> dict[str, Any]:
    """Stores them as they would have come, and weighs."""
    migrate(connection)
    lane = open_lane(connection, LaneSettings(4000, report_ttl=timedelta(days=DAYS + 1)))
    decoder = ReportDecoder(DecoderSettings(cache_bytes_max=0))
    runs = int(timedelta(days=days) / INTERVAL)
    first = datetime.now(UTC) - timedelta(days=days)
    began = time.perf_counter()
    works: list[Any] = []
    count = 0
    for run in range(runs):
        for node in range(nodes):
            count += 1
            at = first + (run + node / nodes) * INTERVAL
            changed = CHANGED if count % CHANGED_EVERY == 0 else 0
            who = Run(f"n{node:05d}.example.com", node, run, at)
            body = report_of(who, changed=changed, release=run)  # a release a run: contents are shared by few
            descriptor = Descriptor(count, 1, 0, len(body), len(body), at, {})
            works.append(work_of(decoder, descriptor, body, {}))
            if len(works) == BATCH:
                lane.apply(works)
                works.clear()
    if works:
        lane.apply(works)
    seconds = time.perf_counter() - began
    stored: Any = connection.execute("SELECT count(*) FROM node_reports").fetchone()
    assert stored[0] == count, f"{stored[0]} of {count} are stored"
    connection.execute("VACUUM ANALYZE")
    rows: Any = connection.execute(SIZES, [list(SHARED)]).fetchall()
    sizes = {("reports" if grows else "shared"): (int(table), int(index)) for grows, table, index in rows}
    total = sum(map(sum, sizes.values()))
    of_all = int(timedelta(days=DAYS) / INTERVAL) * NODES
    return {
        "reports": count, "nodes": nodes, "days": days, "seconds": seconds, "bytes": total, "sizes": sizes,
        "bytes_each": total / count, "of_all": of_all, "gb_extrapolated": total / count * of_all / 1e9,
    }  # fmt: skip


if __name__ == "__main__":
    main()
