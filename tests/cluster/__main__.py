"""``make test-cluster``: every fault, its figures, and the record of the run."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.records import record
from lab import machines
from lab.cluster import QUEUE, Cluster, missing
from tests.cluster import faults
from tests.cluster.run import Figures, run, tell

DISK_MIB = (
    900  # of each PostgreSQL, in memory, where its disk is to be full: databases, and max_wal_size twice
)


def main() -> int:
    asked = _arguments().parse_args()
    machines.enter("tests.cluster")
    if reason := missing():
        print(reason, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end with us
    faults.OUTAGE_S, faults.EARLIER = asked.outage_s, asked.earlier
    wanted = [
        fault for fault in faults.FAULTS if not asked.fault or any(part in fault.name for part in asked.fault)
    ]
    skipped = 0
    for fault in list(wanted):
        if reason := fault.lacks():
            print(f"skipped: {fault.name}: {reason}")
            wanted.remove(fault)
            skipped += 1
    load = os.getloadavg()[0]
    found: list[Figures] = []
    directory = Path(tempfile.mkdtemp(prefix="ingest-cluster-logs-"))
    print(f"logs of the engines: {directory}")
    cluster = Cluster(
        disk_mib=DISK_MIB * any(fault.needs_disks for fault in wanted),
        own_machines=machines.missing() is None,
    )
    try:
        cluster.start()
        bad = _doctor(cluster) if cluster.network else []
        for _, together in itertools.groupby(wanted, lambda fault: fault.with_ or fault.name):
            faults_now = list(together)
            engines = 1 if "scaled" in faults_now[0].name else asked.engines
            for figures in run(cluster, faults_now, directory, engines):
                found.append(figures)
                print(tell(figures), flush=True)
    finally:
        cluster.remove()
        if found:
            settings = {
                "engines": asked.engines, "outage_s": asked.outage_s, "earlier": asked.earlier, "load_before": round(load, 1),
                "load_after": round(os.getloadavg()[0], 1),
            }  # fmt: skip
            print(f"record: {record('cluster', settings, [each._asdict() for each in found])}")
    bad += [each.fault for each in found if not (each.is_whole and each.is_in_time)]
    print(f"every fault holds, {skipped} not tried" if not bad else f"NOT: {'; '.join(bad)}")
    return bool(bad)


def _doctor(cluster: Cluster) -> list[str]:
    """What it says of this cluster, which is as docs/clusters.md has it."""
    command = [
        sys.executable, "-m", "ingest", "doctor", "--json", "--queue-source", cluster.brokers.url(),
        "--destination", f"/amq/queue/{QUEUE}", "--database", cluster.databases.conninfo(database="postgres"),
    ]  # fmt: skip
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    said = {(each["what"], each["state"]) for each in told["findings"]}
    bad = [f"doctor: {each['text']}" for each in told["findings"]
           if each["state"] in ("wrong", "away") and each["what"] != "durability"]  # fmt: skip
    return bad + [
        f"doctor does not see {what}"
        for what in ("hosts", "standbys", "patroni", "nodes", "queues")
        if (what, "ok") not in said
    ]


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", action="append", help="only those whose name holds this; may be repeated")
    parser.add_argument("--engines", type=int, default=3)
    parser.add_argument("--outage-s", type=float, default=faults.OUTAGE_S, help="of the whole database")
    parser.add_argument(
        "--earlier", default=faults.EARLIER, help="the revision that a rolling upgrade begins with"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
