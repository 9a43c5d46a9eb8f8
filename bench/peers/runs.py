"""Side by side with PuppetDB: reports of the same runs, and whole runs (facts, catalog, report), against one PostgreSQL."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import catalogs
from bench.peers.rounds import Round, options_of, run
from lab import synthetic_runs

_CERTNAME = re.compile(rb'"certname":"([^"]+)"')


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("what", choices=("reports", "whole"))
    parser.add_argument("--nodes", type=int, default=1000, help="that send reports")
    parser.add_argument(
        "--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json, for whole runs"
    )
    parser.add_argument("--clones", type=int, default=20, help="of each catalog, in whole runs")
    options = parser.parse_args()
    rounds = {
        "reports": (
            Round("unchanged run", lambda options: reports(options, 1, "unchanged"), 30, 30, 2.5),
            Round("unchanged run", lambda options: reports(options, 2, "unchanged"), 30, 30, 2.5),
            Round("few changes", lambda options: reports(options, 3, "parameters"), 30, 30, 5.0),
            Round(
                "everything changed", lambda options: reports(options, 4, "everything")[:300], 30, 30, 60.0
            ),
        ),
        "whole": (
            Round("first", lambda options: whole(options, 1, "first"), 40, 40, None),
            Round("unchanged", lambda options: whole(options, 2, "unchanged"), 40, 40, None),
            Round("few parameters", lambda options: whole(options, 3, "parameters"), 40, 40, None),
        ),
    }[options.what]
    run(f"peers-{options.what}", options, rounds)


def reports(options: argparse.Namespace, round_: int, change: str) -> list[bytes]:
    """One of each node, half an hour after the round before."""
    at = _at(round_)
    return [
        synthetic_runs.report(f"node-{number:05d}.example.com", round_, change, at)
        for number in range(options.nodes)
    ]


def whole(options: argparse.Namespace, round_: int, change: str) -> list[bytes]:
    """Node after node its facts, its catalog, its report."""
    found = []
    at = _at(round_)
    for number, catalog in enumerate(catalogs.fleet(options.catalogs, options.clones)[round_]):
        named = _CERTNAME.search(catalog)
        assert named is not None
        certname = named[1].decode()
        found += [synthetic_runs.facts(certname, number, at), catalog]
        found.append(synthetic_runs.report(certname, round_, change, at))
    return found


def _at(round_: int) -> datetime:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return hour - timedelta(hours=6) + timedelta(minutes=30 * round_)


if __name__ == "__main__":
    main()
