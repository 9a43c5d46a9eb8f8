"""``make test-cluster-random``: minutes of faults at random, several at once, under whole runs of 300 nodes; and the record."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.records import record
from lab.cluster import MEMBERS, Cluster, missing, until
from lab.proxy import Proxy
from tests.cluster.chance import LANES, Hit, World, hurt
from tests.cluster.run import Run, has_given_up, holds_in, open_store, restarts_of
from tests.cluster.watch import Watch
from tests.cluster.whole_runs import Runs, compare_runs

SETTLED_S = 180.0  # what is not stored by then, with everything mended, is said never to be
WHOLE_S = 180.0


class Figures(NamedTuple):
    seed: int
    minutes: float
    engines: int
    messages: int  # with receipts
    faults: int
    several_at_once: float  # of the time with any fault
    settled_after_s: float | None  # with everything mended; None: not in SETTLED_S
    lost: int
    differing: int
    went_back: int
    quarantined: int
    restarts: int  # of engines' processes that nobody here ended
    starts_again: int  # of engines that found no database at their start
    drains_given_up: (
        int  # by engines that were told to end while the database was away: all goes back to the queue
    )
    details: list[str]
    hits: list[str]

    @property
    def is_whole(self) -> bool:
        bad = self.lost + self.differing + self.went_back + self.quarantined + self.restarts
        return not bad and self.settled_after_s is not None


def main() -> int:
    asked = _arguments().parse_args()
    if reason := missing():
        print(reason, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end with us
    seed = random.randrange(10**6) if asked.seed is None else asked.seed
    directory = Path(tempfile.mkdtemp(prefix="ingest-cluster-logs-"))
    print(f"seed {seed}; logs of the engines: {directory}", flush=True)
    load = os.getloadavg()[0]
    cluster = Cluster()
    try:
        cluster.start()
        figures = at_random(cluster, directory, asked.engines, seed, asked.minutes)
    finally:
        cluster.remove()
    settings = {"seed": seed, "minutes": asked.minutes, "engines": asked.engines, "load_before": round(load, 1),
                "load_after": round(os.getloadavg()[0], 1)}  # fmt: skip
    print(f"record: {record('cluster-random', settings, [figures._asdict()])}")
    for name, value in figures._asdict().items():
        print(f"{name:<18} {value}" if name != "hits" else "\n".join(figures.hits))
    print("holds" if figures.is_whole else f"NOT: --seed {seed}")
    return not figures.is_whole


def at_random(cluster: Cluster, directory: Path, engines: int, seed: int, minutes: float) -> Figures:
    world = _prepare(Run(cluster, directory, engines))
    run = world.run
    runs = Runs(cluster.brokers.addresses, seed)
    watch = Watch(run.watched, runs, runs.states)
    try:
        for _ in range(engines):
            run.start_engine()
        for engine in run.engines:
            engine.wait_ready()
        runs.start()
        watch.start()
        until(lambda: len(watch.stored) > 60, "the runs flow", 90)
        world.began_s = time.monotonic()
        hurt(world, LANES, seed, minutes * 60)
        holds_in(lambda: all(_is_whole(cluster)), WHOLE_S)
        runs.end()
        whole_s = time.monotonic()
        is_settled = holds_in(watch.all_stored, SETTLED_S)
        watch.end()
        settled = round(max(0.0, max(watch.stored.values(), default=0.0) - whole_s), 1)
        for engine in run.engines:
            engine.stop(60)
        found = _examine(world, runs, watch)
    finally:
        runs.end()
        if watch.is_alive():
            watch.end()
        for engine in run.engines:
            engine.kill()
        for close in run.closing:
            close()
    return found._replace(
        seed=seed, minutes=minutes, engines=engines, settled_after_s=settled if is_settled else None
    )


def _prepare(run: Run) -> World:
    """Engines reach every member and every broker through a proxy; those who watch and publish do not."""
    run.cluster.databases.wait_whole()
    run.prepare()
    databases = [Proxy(*address) for address in run.cluster.databases.addresses]
    brokers = [Proxy(*address) for address in run.cluster.brokers.addresses]
    hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in databases)
    run.conninfo = f"postgresql://postgres@{hosts}/{run.database}?target_session_attrs=read-write"
    urls = [f"stomp://guest:guest@127.0.0.1:{proxy.port}" for proxy in brokers]
    run.broker_urls = [",".join(urls[place:] + urls[:place]) for place in range(MEMBERS)]
    run.closing += [proxy.close for proxy in databases + brokers]
    return World(run, databases, brokers)


def _is_whole(cluster: Cluster) -> tuple[bool, bool]:
    databases = cluster.databases
    return (
        sum(databases.is_("primary", place) for place in range(MEMBERS)) == 1
        and sum(databases.is_("replica", place) for place in range(MEMBERS)) == MEMBERS - 1,
        all(cluster.brokers.lets_in(place) for place in range(MEMBERS)),
    )


def _examine(world: World, runs: Runs, watch: Watch) -> Figures:
    connection = open_store(world.run)
    try:
        found = compare_runs(connection, runs)
    finally:
        connection.close()
    ended = [*world.run.engines, *(engine for engine, in_order in world.stopped if in_order)]
    given_up = [engine for engine in ended if has_given_up(engine)]
    restarts = sum(restarts_of(engine) for engine in ended) - len(given_up)
    return Figures(
        0, 0.0, 0, len(runs.receipts), len(world.hits), several_at_once(world.hits), None, len(found.lost),
        len(found.differing), found.went_back + len(watch.went_back), found.quarantined, restarts,
        world.starts_again, len(given_up),
        [*found.lost, *found.differing, *watch.went_back][:40],
        [f"{hit.began_s:7.1f} {hit.lasted_s:5.1f} {hit.what}" for hit in sorted(world.hits, key=lambda hit: hit.began_s)],
    )  # fmt: skip


def several_at_once(hits: list[Hit]) -> float:
    """Of the time in which something was hurt, the part in which two things or more were."""
    edges = sorted(edge for hit in hits for edge in ((hit.began_s, 1), (hit.began_s + hit.lasted_s, -1)))
    any_s = several_s = 0.0
    now = 0
    for place, (at_s, step) in enumerate(edges[:-1]):
        now += step
        lasts_s = edges[place + 1][0] - at_s
        any_s += lasts_s * (now >= 1)
        several_s += lasts_s * (now >= 2)
    return round(several_s / any_s, 2) if any_s else 0.0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--engines", type=int, default=3)
    parser.add_argument("--seed", type=int, help="of another run, to have its faults again")
    return parser


if __name__ == "__main__":
    sys.exit(main())
