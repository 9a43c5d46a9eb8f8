"""What people use against PuppetDB works against us: every method of pypuppetdb, every page of puppetboard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ingest.store.connection import Connection
from lab.front import Front
from lab.peer_fleet import fleet
from lab.stomp_client import Client
from tests.front.conftest import Serve
from tests.front.test_oracle import store

pypuppetdb = pytest.importorskip("pypuppetdb")
WEB = "web-1.example.com"


@pytest.fixture
def filled(serve: Serve, database: str, connection: Connection) -> Front:
    """The fleet that PuppetDB is compared with."""
    store(database, fleet(datetime.now(UTC)))
    return serve()


@pytest.fixture
def db(filled: Front) -> Iterator[Any]:
    with pypuppetdb.connect(host="127.0.0.1", port=filled.port, timeout=20) as opened:
        yield opened


def test_pypuppetdb_reads_nodes(db: Any) -> None:
    """With their status, their facts and resources, and paging with its total."""
    assert db.current_version() == "7.12.1"
    assert sorted(node.name for node in db.nodes()) == [
        "db-1.example.com",
        "facts-only.example.com",
        WEB,
        "web-2.example.com",
    ]
    assert {node.status for node in db.nodes(with_status=True, unreported=1000)} >= {
        "changed",
        "failed",
        "noop",
    }
    node = db.node(WEB)
    assert (node.catalog_environment, node.facts_environment, node.deactivated) == (
        "production",
        "production",
        False,
    )
    assert node.fact("kernel").value == "Linux"
    assert {fact.name for fact in node.facts()} >= {"os", "load", "trusted"}
    assert [one.name for one in node.resources("Service")] == ["apache2"]
    assert len(list(db.nodes(limit=2, include_total=True, order_by=json.dumps([{"field": "certname"}])))) == 2
    assert db.total == 4
    with pytest.raises(Exception, match="404"):
        db.node("nowhere")


def test_pypuppetdb_reads_facts(db: Any) -> None:
    """By name and value, as sets, as paths and contents."""
    assert {fact.node for fact in db.facts("kernel", "Linux")} >= {WEB, "db-1.example.com"}
    assert len(list(db.facts(query='["=", "certname", "web-1.example.com"]'))) == 17
    assert "os" in db.fact_names()
    assert {one["certname"] for one in db.factsets()} >= {WEB}
    contents = db.fact_contents(
        query='["and", ["=", "path", ["os", "family"]], ["=", "certname", "web-1.example.com"]]'
    )
    assert [one["value"] for one in contents] == ["Debian"]
    assert any(one["path"] == ["os", "release", "full"] for one in db.fact_paths())
    (inventory,) = db.inventory(query='["=", "certname", "web-1.example.com"]')
    assert (inventory.node, inventory.facts["kernel"], inventory.trusted["authenticated"]) == (
        WEB,
        "Linux",
        "remote",
    )


def test_pypuppetdb_reads_catalogs(db: Any) -> None:
    """Whole ones with their edges, resources of a type and title, edges, environments."""
    catalog = db.catalog(WEB)
    assert catalog.get_resource("Service", "apache2").parameters["enable"] is True
    assert catalog.get_resource("Class", "Main").relationships
    assert len(list(db.catalogs())) == 4
    assert [
        one.node for one in db.resources("Class", "Apache", query='["=", "certname", "web-1.example.com"]')
    ] == [WEB]
    assert len(list(db.resources("Sshkey"))) == 3
    assert len(list(db.edges())) == 6
    assert sorted(one["name"] for one in db.environments()) == ["production", "testing"]


def test_pypuppetdb_asks_in_pql_and_by_get_and_post(db: Any) -> None:
    """Rows become its own types."""
    assert [node.name for node in db.pql('nodes { certname = "web-1.example.com" }')] == [WEB]
    assert [one["certname"] for one in db.pql('nodes[certname] { certname ~ "^db" }')] == ["db-1.example.com"]
    assert {one.name for one in db.pql('facts { name = "kernel" }')} == {"kernel"}
    assert len(list(db.resources("Class", request_method="POST", query='["=", "title", "Main"]'))) == 3
    with pytest.raises(Exception, match="400"):
        list(db.pql("nodes {"))


def test_pypuppetdb_reads_reports_and_counts(db: Any) -> None:
    """Reports with their parts, events, counts by each group."""
    latest = list(db.reports(query='["=", "latest_report?", true]'))
    assert {one.node: one.status for one in latest}[WEB] == "changed"
    (mine,) = (one for one in latest if one.node == WEB)
    assert sorted(event.item["title"] for event in mine.events()) == [
        "/etc/motd",
        "/etc/motd",
        "apache2",
        "said",
    ]
    assert (mine.logs[0]["message"], mine.metrics[0]["name"]) == ("Applied \u00fc 2", "total")
    assert {one.status for one in db.events(query='["=", "certname", "web-2.example.com"]')} == {
        "failure",
        "skipped",
    }
    for group in ("certname", "resource", "containing_class"):
        assert list(db.event_counts(group, count_by="certname", query='["=", "latest_report?", true]'))
    counts = list(db.aggregate_event_counts("certname,resource", query='["=", "certname", "x"]'))
    assert counts[0] == {
        "summarize_by": "certname",
        "failures": 0,
        "skips": 0,
        "successes": 0,
        "noops": 0,
        "total": 0,
    }


def test_pypuppetdb_reads_the_service(db: Any) -> None:
    """Its status, its metrics."""
    assert db.status()["state"] == "running"
    assert db.metric("puppetlabs.puppetdb.population:name=num-nodes") == {"Value": 4}
    assert "puppetlabs.puppetdb.population" in db.metric()


def test_pypuppetdb_sends_commands(db: Any, filled: Front, broker: str) -> None:
    """Names with spaces, without a time."""
    with Client(int(urlsplit(broker).port or 0), "", "") as client:
        client.send("SUBSCRIBE", {"destination": "/queue/catalog", "id": "0", "ack": "auto"})
        payload = {"certname": WEB, "producer_timestamp": "2026-11-02T00:00:00Z"}
        assert db.command("deactivate node", payload)["uuid"]
        assert json.loads(client.frame(10).body)["payload"] == payload


PAGES: list[Any] = [
    "/", "/%2A/", "/testing/", "/nodes", "/%2A/nodes", "/nodes?status=unreported", f"/node/{WEB}",
    f"/%2A/node/{WEB}", "/facts", "/%2A/facts", "/fact/kernel", "/fact/kernel/Linux", "/fact/os", "/fact/kernel/json",
    "/fact/kernel/Linux/json", f"/node/{WEB}/facts/json", "/%2A/fact/processorcount/json", "/inventory", "/%2A/inventory",
    "/inventory/json", "/%2A/inventory/json", "/reports", f"/reports/{WEB}", "/reports/json?draw=1&start=0&length=10",
    "/%2A/reports/json?draw=1&start=0&length=10&order[0][column]=1&order[0][dir]=asc&search[value]=web",
    f"/reports/{WEB}/json?draw=1&start=0&length=10", "/failures", "/%2A/failures", "/failures/raw", "/catalogs", "/%2A/catalogs",
    "/catalogs/json?draw=1&start=0&length=10&order[0][column]=0&order[0][dir]=desc&search[value]=web",
    f"/catalogs/compare/{WEB}", f"/catalog/{WEB}", f"/%2A/catalog/{WEB}",
    f"/%2A/catalogs/compare/{WEB}...web-2.example.com", "/classes", "/%2A/classes",
    "/classes/json?draw=1&start=0&length=10", "/class_resource/Apache",
    "/class_resource/Apache/json?draw=1&start=0&length=10", "/daily_reports_chart.json",
    f"/daily_reports_chart.json?certname={WEB}", "/metrics", "/metric/puppetlabs.puppetdb.population%3Aname%3Dnum-nodes",
    "/radiator", "/%2A/radiator", "/query",
    ["/query", {"endpoints": "pql", "query": "nodes[certname]{}", "rawjson": "y"}],
    ["/query", {"endpoints": "facts", "query": '["=", "name", "kernel"]', "rawjson": "y"}],
    ["/query", {"endpoints": "resources", "query": '["=", "type", "Class"]'}],
]  # fmt: skip


def test_every_page_of_puppetboard_opens(filled: Front, tmp_path: Path) -> None:
    """With what it is about in it; and a query that is wrong shows our words."""
    pytest.importorskip("puppetboard")
    settings = tmp_path / "settings.py"
    settings.write_text(
        f"PUPPETDB_HOST = '127.0.0.1'\nPUPPETDB_PORT = {filled.port}\nSECRET_KEY = 'x' * 40\nENABLE_CATALOG = True\n"
        "ENABLE_CLASS = True\nWTF_CSRF_ENABLED = False\nLOGLEVEL = 'error'\nCACHE_TYPE = 'SimpleCache'\n"
        "CACHE_DEFAULT_TIMEOUT = 0\nSCHEDULER_ENABLED = False\n"
    )
    latest = filled.get("/pdb/query/v4/reports", {"query": ["=", "latest_report?", True]}).json
    pages_asked = (
        PAGES + [f"/%2A/report/{one['certname']}/{one['hash']}" for one in latest] + ["/nodes?status=failed"]
    )
    wrong = [
        ["/query", {"endpoints": "pql", "query": "nodes{certname = }", "rawjson": "y"}],
        ["/query", {"endpoints": "nodes", "query": '["=", "foo", "x"]', "rawjson": "y"}],
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.front.puppetboard_requests"],
        input=json.dumps(pages_asked + wrong + ["/node/nowhere"]),
        env=os.environ | {"PUPPETBOARD_SETTINGS": str(settings), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    pages = {json.dumps(path): text for path, _, text in shown}
    bad = [(path, status, text[-1500:]) for path, status, text in shown[: len(pages_asked)] if status != 200]
    assert not bad, bad
    assert shown[-1][1] == 404
    for path, held in (
        ("/nodes", WEB), (f"/node/{WEB}", WEB), ("/facts", "processorcount"), (f"/catalog/{WEB}", "apache2"),
        ("/fact/kernel/json", "db-1.example.com"), (f"/node/{WEB}/facts/json", "uptime_days"),
        ("/metric/puppetlabs.puppetdb.population%3Aname%3Dnum-nodes", "Value"), ("/catalogs/json?draw=1&start=0&length=10&"
        "order[0][column]=0&order[0][dir]=desc&search[value]=web", WEB), ("/inventory/json", WEB),
    ):  # fmt: skip
        assert held in pages[json.dumps(path)], path
    assert any("/etc/motd" in text for path, _, text in shown if str(path).startswith("/%2A/report/"))
    assert "web-2.example.com" in pages[json.dumps("/%2A/failures")]
    assert "PQL parse error at line 1, column 18" in shown[-3][2]
    assert "is not a queryable object for nodes" in shown[-2][2]
