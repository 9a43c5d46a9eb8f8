"""Queries beside PuppetDB: what puppetboard's pages, the collectors of a compile, prometheus-puppetdb-exporter and scripts ask,
of the same fleet in both, in turn.

Real catalogs and facts (``lab``), cloned, with a report a day for each node; one PostgreSQL. A figure is the median of some
requests over a kept connection, until the last byte; the ratio is PuppetDB's time over ours.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from rich.console import Console
from rich.table import Table

from bench.catalogs import fleet as catalogs
from bench.records import record
from bench.servers import POSTGRESQL, workplace
from ingest.engine.signals import leave_on_signals
from ingest.store.catalog.housekeeping import write_exported_texts
from ingest.store.connection import connect
from ingest.store.migrate import migrate
from lab import peer_reports, real_facts
from lab.front import Front
from lab.puppetdb import PuppetDB, missing
from lab.servers import Postgres, embedded_broker
from lab.store_model import Pipeline

TIMES_MIN, TIMES_MAX, SECONDS_MAX = 3, 25, 3.0  # of each request to each system
GOAL = 5.0  # geometric mean of the ratios; and none below 1
V4 = "/pdb/query/v4"
EXPORTERS = 50  # every so many nodes one exports what a collector with a tag takes: some tens at 3000
KINDS = (0, 2, 3)  # of peer_reports: unchanged, changed, failed


class Asked(NamedTuple):
    group: str
    name: str
    path: str
    parameters: dict[str, Any] = {}  # noqa: RUF012  of a NamedTuple, and never changed
    is_post: bool = False


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--days", type=int, default=3, help="of reports, one a node and day")
    parser.add_argument("--only", default="", help="requests whose name has this in it")
    parser.add_argument(
        "--alone", action="store_true", help="without PuppetDB: fleets that it takes long to store"
    )
    options = parser.parse_args()
    if (reason := missing()) and not options.alone:
        sys.exit(f"skipped: {reason}")
    with workplace() as (directory, stack):
        rows = compare(options, directory, stack)
    if not options.alone:
        show(rows)
    print("record:", record("query", vars(options), rows))


def compare(options: argparse.Namespace, directory: Path, stack: ExitStack) -> list[dict[str, Any]]:
    """A row a request."""
    server = Postgres(directory)
    server.start(**POSTGRESQL)
    stack.callback(server.stop)
    ports: dict[str, int] = {}
    server.execute("postgres", "CREATE DATABASE ingest")
    bodies = list(commands(options.nodes, options.days))
    if not options.alone:
        peer = PuppetDB(directory, server)
        stack.callback(peer.stop)
        ports["puppetdb"] = peer.port
        print(f"{len(bodies)} commands: PuppetDB {peer.store(bodies):.0f} s", end=", ", flush=True)
        server.execute("puppetdb", "VACUUM ANALYZE")
    print(f"here {store(server.conninfo('ingest'), bodies):.0f} s", flush=True)
    server.execute("ingest", "VACUUM ANALYZE")
    front = Front(
        server.conninfo("ingest"), stack.enter_context(embedded_broker()), log=directory / "front.log"
    )
    stack.callback(front.stop)
    front.wait_ready()
    ports["ingest"] = front.port
    certname = json.loads(bodies[0])["certname"]
    report = json.loads(_get(front.port, f"{V4}/nodes/{certname}"))["latest_report_hash"]
    rows = []
    for asked in requests(certname, report, datetime.now(UTC)):
        if options.only in asked.name:
            rows.append(measure(asked, ports))
            print(line(rows[-1]), flush=True)
    return rows


# The fleet


def commands(nodes: int, days: int) -> Iterator[bytes]:
    """In the order of a fleet's life: facts and a catalog for each node, then a report a day."""
    now = datetime.now(UTC)
    clones = catalogs(None, -(-nodes // 2), roles="minimal-*")[1]
    facts = [json.loads(real_facts.body(role, 1)) for role in real_facts.ROLES]
    names = []
    for number, body in enumerate(clones[:nodes]):
        certname = json.loads(body)["payload"]["certname"]
        names.append(certname)
        command = json.loads(json.dumps(facts[number % len(facts)]))
        command["certname"] = command["payload"]["certname"] = certname
        command["payload"]["values"]["hostname"] = certname.partition(".")[0]
        command["payload"]["values"]["uptime"] = f"{number} days"
        yield json.dumps(command).encode()
        catalog = json.loads(body)
        if number % EXPORTERS == 0:
            catalog["payload"]["resources"].append(service_of(certname))
        yield json.dumps({"certname": certname} | catalog).encode()
    for day in reversed(range(days)):
        payloads = peer_reports.payloads(now - timedelta(days=day))
        for number, certname in enumerate(names):
            payload = payloads[KINDS[(number // 2 + day) % 3 if number % 10 == 0 else 0]][1]
            payload |= {"certname": certname, "type": "agent"}
            payload["transaction_uuid"] = f"68b08e2a-eeb1-4322-b241-{day:04x}{number:08x}"
            yield json.dumps(
                {"command": "store report", "version": 8, "certname": certname, "payload": payload}
            ).encode()


def service_of(certname: str) -> dict[str, Any]:
    """What a collector with a tag takes: few nodes export one."""
    return {
        "type": "Nagios_service",
        "title": f"http {certname}",
        "exported": True,
        "tags": ["nagios_service", "web", "service", "http"],
        "file": "/etc/puppet/code/modules/web/manifests/init.pp",
        "line": 12,
        "parameters": {"host_name": certname, "service_description": "http", "check_command": "check_http"},
    }


def store(conninfo: str, bodies: list[bytes]) -> float:
    start = time.perf_counter()
    with connect(conninfo) as connection:
        migrate(connection)
        pipeline = Pipeline(connection)
        for at in range(0, len(bodies), 50):
            pipeline.take(*bodies[at : at + 50], received_at=datetime.now(UTC))
        write_exported_texts(connection)  # as housekeeping does within an hour
    return time.perf_counter() - start


# The requests


def requests(certname: str, report: str, now: datetime) -> list[Asked]:
    return [*pages(certname, report, now), *collectors(certname), *exporter(report), *scripts(certname)]


def pages(certname: str, report: str, now: datetime) -> Iterator[Asked]:
    """What the pages of puppetboard send (its views, 7.0.4)."""
    env = ["=", "catalog_environment", "production"]
    count = [["function", "count"]]
    since = (now - timedelta(hours=2)).isoformat()
    one = "puppetboard"
    yield Asked(one, "every page: environments", "/environments")
    yield Asked(one, "index: nodes", "/nodes", {"query": env})
    yield Asked(one, "index: number of nodes", "/nodes", {"query": ["extract", count, env]})
    resources = ["extract", count, ["=", "environment", "production"]]
    yield Asked(one, "index: number of resources", "/resources", {"query": resources})
    latest = {"query": ["=", "latest_report?", True], "summarize_by": "certname"}
    yield Asked(one, "index: event counts", "/event-counts", latest)
    state = ["and", env, ["=", "latest_report_status", "failed"]]
    yield Asked(one, "nodes: failed", "/nodes", {"query": state})
    late = ["or", ["null?", "report_timestamp", True], ["<=", "report_timestamp", since]]
    yield Asked(one, "nodes: unreported", "/nodes", {"query": ["and", env, late]})
    yield Asked(one, "node", f"/nodes/{certname}")
    yield Asked(one, "node: facts", f"/nodes/{certname}/facts")
    own = {
        "query": ["=", "certname", certname],
        "limit": 10,
        "order_by": [{"field": "start_time", "order": "desc"}],
    }
    yield Asked(one, "node: reports", "/reports", own)
    day = (now - timedelta(days=1)).isoformat()
    where = ["and", [">=", "producer_timestamp", day], ["<", "producer_timestamp", now.isoformat()]]
    chart = ["extract", [*count, "status"], where, ["group_by", "status"]]
    yield Asked(one, "chart: a day", "/reports", {"query": chart})
    page = {
        "limit": 100,
        "offset": 0,
        "include_total": True,
        "order_by": [{"field": "end_time", "order": "desc"}],
    }
    yield Asked(one, "reports: first page", "/reports", page)
    found = [
        "or",
        ["~", "certname", "c1"],
        ["~", "puppet_version", "c1"],
        ["~", "configuration_version", "c1"],
    ]
    yield Asked(one, "reports: search", "/reports", page | {"query": found})
    either = ["or", ["=", "hash", report], ["=", "configuration_version", report]]
    yield Asked(one, "report", "/reports", {"query": ["and", ["=", "certname", certname], either]})
    yield Asked(one, "report: events", "/events", {"query": ["=", "report", report]})
    yield Asked(one, "report: logs", f"/reports/{report}/logs")
    yield Asked(one, "facts: names", "/fact-names")
    yield Asked(one, "facts: all", "/facts")
    yield Asked(one, "fact: of all nodes", "/facts/kernel")
    os = ["and", ["=", "value", "Debian"], ["=", "environment", "production"]]
    yield Asked(one, "fact: with a value", "/facts/osfamily", {"query": os})
    some = [
        "or",
        *(["=", "name", name] for name in ("fqdn", "ipaddress", "os", "kernelversion", "puppetversion")),
    ]
    yield Asked(one, "inventory", "/facts", {"query": ["and", some, ["=", "environment", "production"]]})
    listed = {
        "query": ["null?", "catalog_timestamp", False],
        "limit": 100,
        "include_total": True,
        "order_by": [{"field": "certname", "order": "asc"}],
    }
    yield Asked(one, "catalogs", "/nodes", listed)
    yield Asked(one, "catalog", f"/catalogs/{certname}")
    classes = ["extract", ["certname"], ["and", ["=", "type", "Class"], ["=", "title", "Ssh::Server"]]]
    yield Asked(
        one, "classes: nodes of one", "/nodes", {"query": ["in", "certname", ["from", "resources", classes]]}
    )
    named = ["extract", ["title"], ["=", "type", "Class"], ["group_by", "title"]]
    yield Asked(one, "classes: titles", "/resources", {"query": named})
    last = ["in", "hash", ["from", "nodes", ["extract", ["latest_report_hash"], env]]]
    yield Asked(one, "classes: latest reports", "/reports", {"query": last, "limit": 100})
    yield Asked(one, "query: PQL", "", {"query": 'nodes[certname]{facts{name="kernel" and value="Linux"}}'})
    yield Asked(
        one, "query: inventory", "", {"query": 'inventory[certname,facts.os.name]{facts.os.family="Debian"}'}
    )


def collectors(certname: str) -> Iterator[Asked]:
    """As a compile sends them: other nodes' exported resources of a type, by tag, title and parameter."""

    def of(type_: str, *more: Any) -> dict[str, Any]:
        others = ["not", ["=", "certname", certname]]
        return {"query": ["and", ["=", "type", type_], ["=", "exported", True], others, *more]}

    yield Asked("collector", "collector: type", "/resources", of("Sshkey"))
    yield Asked("collector", "collector: tag", "/resources", of("Nagios_service", ["=", "tag", "web"]))
    yield Asked("collector", "collector: title", "/resources", of("Sshkey", ["=", "title", certname]))
    yield Asked(
        "collector", "collector: parameter", "/resources", of("Sshkey", ["=", ["parameter", "type"], "rsa"])
    )
    yield Asked("collector", "compile: facts of a node", f"/nodes/{certname}/facts")
    yield Asked("collector", "compile: puppetdb_query", "", {"query": "nodes[certname]{}"}, is_post=True)


def exporter(report: str) -> Iterator[Asked]:
    either = ["or", ["=", ["node", "active"], False], ["=", ["node", "active"], True]]
    yield Asked("exporter", "exporter: nodes", "/nodes", {"query": either})
    yield Asked("exporter", "exporter: metrics of a report", f"/reports/{report}/metrics")


def scripts(certname: str) -> Iterator[Asked]:
    """What pypuppetdb, bolt and people's own programs ask and no page does."""
    latest = {"query": ["=", "latest_report?", True]}
    yield Asked("scripts", "fact paths", "/fact-paths")
    yield Asked("scripts", "fact paths: by pattern", "/fact-paths", {"query": ["~>", "path", ["os", ".*"]]})
    family = ["=", "path", ["os", "family"]]
    yield Asked("scripts", "fact contents: of a path", "/fact-contents", {"query": family})
    yield Asked("scripts", "factset", f"/factsets/{certname}")
    yield Asked("scripts", "inventory of a node", "/inventory", {"query": ["=", "certname", certname]})
    yield Asked("scripts", "edges", f"/catalogs/{certname}/edges")
    for group in ("certname", "resource", "containing_class"):
        by = {"summarize_by": group}
        yield Asked("scripts", f"event counts: by {group}", "/event-counts", by)
        yield Asked("scripts", f"event counts: latest by {group}", "/event-counts", latest | by)
    nodes = latest | {"summarize_by": "resource", "count_by": "certname"}
    yield Asked("scripts", "event counts: nodes by resource", "/event-counts", nodes)
    groups = {"summarize_by": "certname,resource,containing_class"}
    yield Asked("scripts", "aggregate event counts", "/aggregate-event-counts", groups)
    yield Asked("scripts", "aggregate event counts: latest", "/aggregate-event-counts", latest | groups)


# Measuring


def measure(asked: Asked, ports: dict[str, int]) -> dict[str, Any]:
    """Both in turn, so that what else happens on the machine meets both."""
    connections = {name: _open(port) for name, port in ports.items()}
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in connections}
    for name, connection in connections.items():
        _ask(connection, asked)  # of a compiler that has seen it, and pages that are cached
        ends = time.perf_counter() + SECONDS_MAX
        while len(found[name]) < TIMES_MIN or (time.perf_counter() < ends and len(found[name]) < TIMES_MAX):
            found[name].append(_ask(connection, asked))
        connection.close()
    medians = {name: statistics.median(one[1] for one in times) * 1000 for name, times in found.items()}
    row: dict[str, Any] = {"group": asked.group, "name": asked.name}
    if "puppetdb" in medians:
        row["ratio"] = medians["puppetdb"] / medians["ingest"]
    for name, times in found.items():
        row[f"{name}_ms"] = medians[name]
        row[f"{name}_first_byte_ms"] = statistics.median(one[0] for one in times) * 1000
        row[f"{name}_bytes"] = times[0][2]
        row[f"{name}_times"] = len(times)
    return row


def _open(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=600)


def _ask(connection: http.client.HTTPConnection, asked: Asked) -> tuple[float, float, int]:
    """(seconds to the first byte, to the last, bytes)."""
    path, body, headers = V4 + quote(asked.path), None, {"Accept": "application/json"}
    if asked.is_post:
        body, headers["Content-Type"] = json.dumps(asked.parameters), "application/json"
    elif asked.parameters:
        texts = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in asked.parameters.items()
        }
        path += "?" + urlencode(texts)
    start = time.perf_counter()
    connection.request("POST" if body else "GET", path, body, headers)
    answer = connection.getresponse()
    first = answer.read(1)
    first_s = time.perf_counter() - start
    size = len(first) + len(answer.read())
    if answer.status != 200:
        raise RuntimeError(f"{asked.name}: {answer.status}")
    return first_s, time.perf_counter() - start, size


def _get(port: int, path: str) -> bytes:
    connection = _open(port)
    connection.request("GET", path)
    found = connection.getresponse().read()
    connection.close()
    return found


def line(row: dict[str, Any]) -> str:
    if "ratio" in row:
        return "{name:<44}{puppetdb_ms:>10.1f}{ingest_ms:>10.1f}{ratio:>8.2f}".format(**row)
    return "{name:<44}{ingest_ms:>10.1f}{ingest_first_byte_ms:>10.1f}{ingest_bytes:>12}".format(**row)


def show(rows: list[dict[str, Any]]) -> None:
    """Each group with its geometric mean, and what is slower than PuppetDB."""
    table = Table(title=f"beside PuppetDB 7.12, one PostgreSQL, one run; goal: {GOAL:g}x faster, none slower")
    for column in ("requests", "of them slower", "times faster, geometric mean"):
        table.add_column(column, justify="left" if column == "requests" else "right")
    groups = sorted({row["group"] for row in rows})
    for group in (*groups, "all"):
        ratios = [row["ratio"] for row in rows if group in ("all", row["group"])]
        slower = sum(ratio < 1 for ratio in ratios)
        table.add_row(group, str(slower), f"{statistics.geometric_mean(ratios):.2f}")
    Console().print(table)
    for row in sorted(rows, key=lambda row: float(row["ratio"])):
        if row["ratio"] < 1:
            print("slower: {name}, {ingest_ms:.1f} ms and not {puppetdb_ms:.1f}".format(**row))


if __name__ == "__main__":
    main()
