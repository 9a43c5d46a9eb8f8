"""How long a lone catalog takes while many reports wait, beside the same without them: in one run, in turn.

The reports are in the broker before the engine comes. The catalogs are unchanged ones, each sent a little after the one
before could be queried. A phase with reports in which none were left at its end counts as none.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from bench.catalogs import again, fleet
from bench.low_load import latency, serve_a_while
from bench.records import record
from bench.servers import POSTGRESQL, broker_of, workplace
from ingest.config.loading import load
from ingest.engine.signals import leave_on_signals
from ingest.transport.publisher import Publisher
from lab.engine import Engine, wait_for
from lab.peer_reports import payloads
from lab.servers import Postgres

NODES = 3000
WARM = 60  # catalogs for each engine that has just been started
PATIENCE_S = 1800.0  # for what is left of the reports


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json")
    parser.add_argument("--clones", type=int, default=4)
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    parser.add_argument("--reports", type=int, default=100_000, help="that wait, each time")
    parser.add_argument("--samples", type=int, default=300, help="catalogs of a phase")
    parser.add_argument("--times", type=int, default=1, help="phases with reports, each between two without")
    options = parser.parse_args()
    rounds = fleet(options.catalogs, options.clones)
    phases = 1 + 2 * options.times
    streams = _streams(rounds[2], options.samples, 2 * phases)
    numbers = itertools.count()
    rows: list[dict[str, Any]] = []
    with workplace() as (directory, stack):
        broker = broker_of(options.broker, stack)
        server = Postgres(directory)
        server.start(**POSTGRESQL)
        stack.callback(server.stop)
        serve_a_while(server)
        publisher = Publisher(load({"queue_source": broker}, {}).config)
        stack.callback(publisher.close)
        connection = stack.enter_context(psycopg.connect(server.conninfo("postgres"), autocommit=True))

        def phase(reports: int) -> None:
            now = datetime.now(UTC)
            publisher.publish((body, {}) for body in _reports(now, reports, numbers))
            engine = Engine(
                broker, server.conninfo("postgres"), "--log-level", "warning", log=directory / "log"
            )
            stack.callback(engine.kill)
            engine.wait_ready()
            for body in next(streams)[:WARM]:  # the decoders know the nodes again
                publisher.publish([(body, {})])
            before, began = _settled_reports(engine), time.perf_counter()
            row = latency(publisher, connection, 2, next(streams))
            after, ended = _settled_reports(engine), time.perf_counter()
            left = reports - after
            row |= {
                "reports": reports,
                "reports_left": left,
                "reports_per_s": (after - before) / (ended - began),
            }
            wait_for(lambda: _settled_reports(engine) >= reports, engine, "all reports", PATIENCE_S)
            row["reports_per_s_alone"] = left / (time.perf_counter() - ended)
            rows.append(row)
            print(
                f"  {reports} reports waited before, {left} of them at the end; {row['reports_per_s']:.0f}/s with catalogs, "
                f"{row['reports_per_s_alone']:.0f}/s without"
            )
            engine.stop()

        for body in (rounds[1], rounds[2]):
            publisher.publish((one, {}) for one in body)
        phase(0)
        for _ in range(options.times):
            phase(options.reports)
            phase(0)
    _print_ratio(rows)
    print("record:", record("order", vars(options), rows))


def _streams(bodies: list[bytes], samples: int, times: int) -> Iterator[list[bytes]]:
    """So many of the same catalogs, compiled later each time."""
    every = again(bodies, times * samples // len(bodies) + 1)
    for number in itertools.count():
        yield every[number * samples : (number + 1) * samples]


def _reports(now: datetime, count: int, numbers: Iterator[int]) -> Iterator[bytes]:
    """Small ones, of unchanged runs, each a node's next."""
    certname, template = payloads(now)[0]
    for number in itertools.islice(numbers, count):
        at = (now - timedelta(hours=2) + timedelta(milliseconds=number)).isoformat()
        name = certname.replace("web-1", f"node-{number % NODES}")
        payload = template | {"certname": name, "start_time": at, "end_time": at, "producer_timestamp": at}
        command = {"command": "store report", "version": 8, "certname": name, "payload": payload}
        yield json.dumps(command, separators=(",", ":")).encode()


def _settled_reports(engine: Engine) -> int:
    receiver = engine.status().get("processes", {}).get("receiver", {})
    return int(receiver.get("ingest_settle_seconds_report_count", 0))


def _print_ratio(rows: list[dict[str, Any]]) -> None:
    for name in ("p50_ms", "p99_ms"):
        alone = statistics.mean(row[name] for row in rows if not row["reports"])
        behind = statistics.mean(row[name] for row in rows if row["reports"] and row["reports_left"])
        print(f"{name}: {alone:.1f} alone, {behind:.1f} while reports wait, ratio {behind / alone:.2f}")


if __name__ == "__main__":
    main()
