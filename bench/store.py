"""The store alone: four rounds of real catalogs through decoding and one lane, WAL and rows counted.

``make bench-store`` runs it against a PostgreSQL of its own; ``--catalogs DIR`` takes other real catalogs. A
checkpoint stands before each round; full-page images are counted apart. Ends with 1 when a limit or the
reference is missed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.catalogs import ROUND_NAMES, fleet
from bench.records import record
from ingest.core.catalog.decoding import Decoding
from ingest.core.delivery.work import Claim, Descriptor, Full, Outcome, SectionDigests
from ingest.engine.kinds import open_lane
from ingest.engine.signals import leave_on_signals
from ingest.store.connection import Connection, connect
from ingest.store.lane import LaneSettings
from ingest.store.migrate import migrate
from lab.decoding import work_of
from lab.servers import Postgres
from lab.store_reference import Reference

# WAL for a catalog, full-page images apart: what the store is to keep. PuppetDB 7.12.1 wrote 5214, 1, 153 and
# 3513 KiB for the same rounds.
LIMITS_KIB = {1: 280, 2: 0.3, 3: 6, 4: 60}
TABLES = (
    "resources",
    "catalog_resources",
    "catalogs",
    "catalog_exports",
    "edge_sets",
    "position_sets",
    "positions",
    "tags",
    "nodes",
)


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json")
    parser.add_argument("--clones", type=int, default=3)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--database", help="an empty database instead of a server of its own")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    directory.chmod(0o755)
    server = None
    try:
        if options.database is None:
            server = Postgres(directory)
            server.start(fsync="on", shared_buffers="512MB", max_wal_size="8GB", checkpoint_timeout="30min")
            options.database = server.conninfo("postgres")
        rows = run(options.database, fleet(options.catalogs, options.clones), options.batch)
        show(rows)
        print("record:", record("store", vars(options), rows))
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory)
    missed = [row["round"] for row in rows[:-1] if not _holds(row)]
    if missed:
        sys.exit(f"missed in rounds {missed}")


def _holds(row: dict[str, Any]) -> bool:
    return bool(row["wal_kib"] <= LIMITS_KIB[row["round"]] and row["rows"] == row["reference_rows"])


def run(conninfo: str, rounds: dict[int, list[bytes]], batch: int) -> list[dict[str, Any]]:
    connection = connect(conninfo)
    watcher = connect(conninfo)
    migrate(connection)
    watcher.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    lane = open_lane(connection, LaneSettings(400_000))
    decoding = Decoding(64 * 1024 * 1024)
    reference = Reference()
    known: dict[str, SectionDigests] = {}
    found = []
    for round_, bodies in rounds.items():
        watcher.execute("CHECKPOINT")
        watcher.execute("SELECT pg_stat_reset()")
        before = _lsn(watcher)
        decode_s = write_s = 0.0
        outcomes: dict[str, int] = {}
        for start in range(0, len(bodies), batch):
            began = time.perf_counter()
            works = []
            for number, body in enumerate(bodies[start : start + batch], start + 1):
                descriptor = Descriptor(number, 1, 0, len(body), len(body), datetime.now(UTC), {})
                works.append(work_of(decoding, descriptor, body, known))
            middle = time.perf_counter()
            for settled in lane.apply(works):
                outcomes[settled.outcome] = outcomes.get(settled.outcome, 0) + 1
                assert settled.outcome is not Outcome.REDO
            for work in works:
                assert isinstance(work, Claim | Full)
                known[work.header.certname] = work.sections
            write_s += time.perf_counter() - middle
            decode_s += middle - began
        rows, updates, hot = _rows(connection)
        expected: Counter[str] = sum((reference.take(body) for body in bodies), Counter())
        found.append(
            {
                "round": round_,
                "catalogs": len(bodies),
                "mean_bytes": sum(map(len, bodies)) // len(bodies),
                "decode_ms": decode_s * 1000 / len(bodies),
                "write_ms": write_s * 1000 / len(bodies),
                "outcomes": outcomes,
                **_wal(watcher, before, len(bodies)),
                "records": _records(watcher, before, len(bodies)),
                "rows": rows,
                "reference_rows": dict(+expected),
                "updates": updates,
                "hot_updates": hot,
            }
        )
    found.append({"sizes": _sizes(watcher, len(next(iter(rounds.values()))))})
    return found


def show(rows: list[dict[str, Any]]) -> None:
    print(
        f"{'round':<18} {'WAL KiB':>8} {'limit':>6} {'+ FPI':>7} {'FPI share':>9} {'rows':>8} {'reference':>9} "
        f"{'HOT':>11} {'decode ms':>10} {'write ms':>9}  outcomes"
    )
    for row in rows[:-1]:
        name = f"{row['round']} {ROUND_NAMES[row['round']]}"
        share = row["fpi_kib"] / (row["wal_kib"] + row["fpi_kib"])
        hot = f"{row['hot_updates']}/{row['updates']}"
        print(
            f"{name:<18} {row['wal_kib']:>8.2f} {LIMITS_KIB[row['round']]:>6} {row['fpi_kib']:>7.1f} {share:>9.0%} "
            f"{sum(row['rows'].values()):>8} {sum(row['reference_rows'].values()):>9} {hot:>11} "
            f"{row['decode_ms']:>10.2f} {row['write_ms']:>9.2f}  {row['outcomes']}"
        )
    for row in rows[:-1]:
        print(f"round {row['round']}")
        print("   WAL KiB by record:", row["records"])
        print("   rows a catalog:", {k: round(v / row["catalogs"], 2) for k, v in row["rows"].items()})
    print("bytes a node, tables with their indexes:", rows[-1]["sizes"])


def _lsn(connection: Connection) -> str:
    row: Any = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    return str(row[0])


def _wal(connection: Connection, before: str, catalogs: int) -> dict[str, float]:
    """KiB a catalog: records without and full-page images with their share."""
    row: Any = connection.execute(
        "SELECT sum(record_size), sum(fpi_size) FROM pg_get_wal_stats(%s, pg_current_wal_flush_lsn())",
        [before],
    ).fetchone()
    return {"wal_kib": float(row[0]) / 1024 / catalogs, "fpi_kib": float(row[1]) / 1024 / catalogs}


def _records(connection: Connection, before: str, catalogs: int) -> dict[str, float]:
    """Where the WAL comes from: KiB a catalog by kind of record, full-page images apart."""
    rows: Any = connection.execute(
        'SELECT "resource_manager/record_type", record_size FROM pg_get_wal_stats(%s, pg_current_wal_flush_lsn(), true)'
        " ORDER BY record_size DESC LIMIT 8",
        [before],
    ).fetchall()
    return {name: round(float(size) / 1024 / catalogs, 2) for name, size in rows}


def _rows(connection: Connection) -> tuple[dict[str, int], int, int]:
    """(rows written by table, updates, those of them that were HOT) since the reset; asked on the lane's own
    connection, which has to report its counts first."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    rows: Any = connection.execute(
        "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
        " WHERE relname = ANY(%s)",
        [list(TABLES)],
    ).fetchall()
    counts = {name: written for name, written, _, _ in rows if written}
    return counts, sum(row[2] for row in rows), sum(row[3] for row in rows)


def _sizes(connection: Connection, nodes: int) -> dict[str, int]:
    rows: Any = connection.execute(
        "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND relname = ANY(%s)",
        [list(TABLES)],
    ).fetchall()
    return {name: size // nodes for name, size in rows}


if __name__ == "__main__":
    main()
