"""Side by side with PuppetDB: the reports of the same nodes, kind after kind, against one PostgreSQL.

As for facts (``bench.peers.facts``). The reports are made up in the sizes of real ones (``lab.runs``): of a run that changed
nothing, of one in which one resource in fifty changed, and of one in which every resource did, which a release brings to all
nodes alike. The first round is of nodes that neither system has heard of, whose rows both make with it; the second is what comes
every half hour.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta

from bench.peers.facts import compare, show
from bench.records import record
from bench.servers import workplace
from ingest.engine.signals import leave_on_signals
from lab.puppetdb import missing
from lab.runs import Run, report_of

ROUNDS = {1: "unchanged, new node", 2: "unchanged run", 3: "few changes", 4: "worst case"}
WORST = 4
# Throughput, CPU less, and KiB of WAL for each.
GOALS = {1: (30, 30, 2.5), 2: (30, 30, 2.5), 3: (30, 30, 5.0), 4: (30, 30, 60.0)}
RESOURCES = 1000  # of a node; in the worst case all have an event
CHANGED = {1: 0, 2: 0, 3: RESOURCES // 50, 4: RESOURCES}
WORST_SHARE = 8  # so many times fewer of the worst: they are a hundred times as large


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3000, help="of which this engine gets a report each")
    parser.add_argument("--peer-nodes", type=int, default=192, help="of them go to PuppetDB")
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--writers", type=int, default=2)
    options = parser.parse_args()
    if reason := missing():
        sys.exit(f"skipped: {reason}")
    rounds = {round_: fleet(round_, options.nodes) for round_ in ROUNDS}
    with workplace() as (directory, stack):
        fewer = {WORST: max(1, options.peer_nodes // WORST_SHARE)}
        rows = compare(options, directory, stack, rounds, ROUNDS, fewer)
    show(rows, "the reports of the same nodes", ROUNDS, GOALS)
    print("record:", record("peers-reports", vars(options), rows))


def fleet(round_: int, nodes: int) -> list[bytes]:
    """A report of each node, the rounds an hour apart."""
    at = datetime.now(UTC) - timedelta(hours=len(ROUNDS) - round_)
    count = max(1, nodes // WORST_SHARE) if round_ == WORST else nodes
    return [
        report_of(Run(f"n{n:05d}.example.com", n, round_, at), changed=CHANGED[round_], release=round_)
        for n in range(count)
    ]


if __name__ == "__main__":
    main()
