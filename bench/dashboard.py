"""puppetboard's pages in a browser, over a fleet with days of reports: how long until a page is complete, and how much of that
its requests to the front took.

A figure is the median of some openings. A page is complete when it is loaded, its own requests are answered and its tables drawn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.query import V4, commands, store
from bench.records import record
from bench.servers import POSTGRESQL, workplace
from ingest.engine.signals import leave_on_signals
from lab.browser import CHROMIUM, Browser, browser
from lab.front import Front, ask
from lab.puppetboard import Puppetboard
from lab.servers import Postgres, embedded_broker

TIMES = 3  # of each page, after one that fills caches and compiles templates
GOAL_MS = 1000.0
COMPLETE = (
    "document.readyState === 'complete' && performance.timing.loadEventEnd > 0 && !(window.jQuery && jQuery.active)"
    " && ![...document.querySelectorAll('.dataTables_processing, .dt-processing')].some("
    "each => getComputedStyle(each).display !== 'none') && performance.now()"
)


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--days", type=int, default=14, help="of reports, one a node and day")
    parser.add_argument("--only", default="", help="pages whose path has this in it")
    parser.add_argument("--photographs", type=Path, help="a directory for a picture of each page")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("skipped: Chromium is not installed (apt-get install chromium)")
    with workplace() as (directory, stack):
        rows = measure(options, directory, stack)
    print("record:", record("dashboard", vars(options) | {"photographs": ""}, rows))


def measure(options: argparse.Namespace, directory: Path, stack: ExitStack) -> list[dict[str, Any]]:
    """A row a page."""
    server = Postgres(directory)
    server.start(**POSTGRESQL)
    stack.callback(server.stop)
    server.execute("postgres", "CREATE DATABASE ingest")
    bodies = list(commands(options.nodes, options.days))
    certname = json.loads(bodies[0])["certname"]
    print(f"{len(bodies)} commands: {store(server.conninfo('ingest'), bodies):.0f} s", flush=True)
    server.execute("ingest", "VACUUM ANALYZE")
    broker = stack.enter_context(embedded_broker())
    front = Front(server.conninfo("ingest"), broker, log=directory / "front.log")
    stack.callback(front.stop)
    front.wait_ready()
    dashboard = Puppetboard(directory, front.port)
    stack.callback(dashboard.stop)
    report = ask(front.port, f"{V4}/nodes/{certname}").json["latest_report_hash"]
    rows = []
    with browser() as tab:
        for path in pages(certname, report):
            if options.only in path:
                rows.append(open_page(tab, dashboard, path, options.photographs))
                print(line(rows[-1]), flush=True)
    return rows


def pages(certname: str, report: str) -> Iterator[str]:
    """Every one that its menu and its links lead to."""
    yield from ("/", "/nodes", "/nodes?status=failed", f"/node/{certname}", "/failures", "/facts")
    yield from ("/fact/kernel", "/fact/os", "/fact/osfamily/Debian", "/reports", f"/reports/{certname}")
    yield from (f"/report/{certname}/{report}", "/metrics", "/inventory", "/catalogs", f"/catalog/{certname}")
    yield from (f"/catalogs/compare/{certname}...{certname}", "/classes", "/class_resource/Ssh%3A%3AServer")
    yield from ("/metric/puppetlabs.puppetdb.population%3Aname%3Dnum-nodes", "/radiator", "/query")


def open_page(tab: Browser, dashboard: Puppetboard, path: str, photographs: Path | None) -> dict[str, Any]:
    found: list[float] = []
    for _ in range(TIMES + 1):
        tab.show("about:blank")
        tab.until("location.href === 'about:blank'")
        before = len(dashboard.answered())
        tab.show(f"http://127.0.0.1:{dashboard.port}{path}")
        tab.until("location.pathname !== 'blank'")
        found.append(tab.until(COMPLETE))
    if photographs is not None:
        photographs.mkdir(exist_ok=True)
        tab.photograph(photographs / f"{path.strip('/').replace('/', '_')[:60] or 'index'}.png")
    made = [one for one in dashboard.answered()[before:] if "/static/" not in one["path"]]
    made = [one for one in made if "/offline/" not in one["path"]]
    return {
        "page": path,
        "complete_ms": round(statistics.median(found[1:]), 1),
        "server_ms": round(sum(one["seconds"] for one in made) * 1000, 1),
        "in_requests_ms": round(sum(one["in_requests_s"] for one in made) * 1000, 1),
        "waited_ms": round(sum(one["waited_s"] for one in made) * 1000, 1),  # of those, for the front
        "requests": sum(one["requests"] for one in made),
        "bytes_asked": sum(one["bytes_asked"] for one in made),
        "complaints": tab.complaints()[:3],
    }


def line(row: dict[str, Any]) -> str:
    text = (
        "{page:<60.60}{complete_ms:>9} ms, puppetboard {server_ms}, of it in {requests} requests {in_requests_ms}, "
        "waiting for the front {waited_ms}".format(**row)
    )
    return text + ("" if row["complete_ms"] <= GOAL_MS else "  late")


if __name__ == "__main__":
    main()
