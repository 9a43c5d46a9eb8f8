"""Side by side with PuppetDB: whole runs of the same nodes (facts, catalog, report), against one PostgreSQL.

As for facts (``bench.peers.facts``); a message is one of the three, and figures are for each message. The runs are those of
``bench/loadgen``: the first of each node, and then next ones in which nine catalogs of ten are what they were.
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
from tools.loadgen.fleet import KINDS, Fleet

ROUNDS = {1: "first runs", 2: "next runs", 3: "next runs"}
# Throughput and CPU less; there is no goal of WAL.
GOALS = {1: (40, 40, None), 2: (40, 40, None), 3: (40, 40, None)}


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=800, help="of which this engine gets a run each")
    parser.add_argument("--peer-nodes", type=int, default=48, help="of them go to PuppetDB")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--writers", type=int, default=2)
    options = parser.parse_args()
    if reason := missing():
        sys.exit(f"skipped: {reason}")
    rounds = rounds_of(options.nodes, options.seed)
    fewer = {round_: options.peer_nodes * len(KINDS) for round_ in ROUNDS}
    with workplace() as (directory, stack):
        rows = compare(options, directory, stack, rounds, ROUNDS, fewer)
    show(rows, "the runs of the same nodes, a message", ROUNDS, GOALS)
    print("record:", record("peers-runs", vars(options), rows))


def rounds_of(nodes: int, seed: int) -> dict[int, list[bytes]]:
    """Facts, catalog and report of node after node, the rounds an hour apart."""
    fleet = Fleet(nodes, seed)
    now = datetime.now(UTC)
    return {round_: fleet.next_round(now - timedelta(hours=len(ROUNDS) - round_)) for round_ in ROUNDS}


if __name__ == "__main__":
    main()
