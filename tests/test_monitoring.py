"""What others read of us: metrics as Prometheus wants them, rules that call when they should, a dashboard that answers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from ingest.config.settings import Config
from ingest.core.metrics import Metric
from ingest.engine.fleet import FleetNumbers
from ingest.ipc.process_metrics import MetricsTable
from ingest.observe.exposition import Health, serve
from ingest.observe.fleet import FleetCollector
from lab.servers import free_port

DOCS = Path(__file__).parent.parent / "docs"
RULES = DOCS / "monitoring" / "rules.yml"
NAMES = ["receiver", "decoder-0", "decoder-1", "writer-0", "supervisor"]
FLEET = {
    "nodes": 10, "deactivated": 1, "expired": 0, "overdue": 2, "statuses": {"changed": 4, "failed": 1, "odd \n\"": 5},
    "pace_per_s": 0.01, "silence_limits": [0.5, 1.0, 2.0], "silence": [4, 4, 0, 2], "silence_sum": 12.5,
    "lag_limits": [1.0, 60.0], "lag": [9, 0, 1], "lag_sum": 100.0, "database_bytes": 10**9,
}  # fmt: skip
MAY_BE_EMPTY = re.compile("backlog_gone")  # there is none
needs_prometheus = pytest.mark.skipif(shutil.which("promtool") is None, reason="prometheus is not installed")


@pytest.fixture(scope="module")
def metrics() -> Iterator[int]:
    """The port of an engine that has some of everything."""
    table = MetricsTable(bytearray(MetricsTable.size(len(NAMES))))
    for process in range(len(NAMES)):
        for metric in Metric:
            if metric.declared.kind == "histogram":
                table.row(process).observe(metric, 1.5)
            else:
                table.row(process).set(metric, 5.0)
    fleet = FleetCollector(lambda: (FLEET, [{"reason": "unreadable", "rows": 3}], 1.0))
    server = serve("127.0.0.1", 0, table, NAMES, lambda: Health(True, True), (), [fleet])
    yield server.server_port
    server.close()


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        found: bytes = answer.read()
    return found


def _promtool(*arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(
        ["promtool", *arguments], input=stdin, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (done.stdout + done.stderr).decode()


@needs_prometheus
def test_prometheus_has_nothing_against_our_metrics(metrics: int) -> None:
    """promtool's rules for names, types and HELP; and no label holds what a producer wrote."""
    text = _get(f"http://127.0.0.1:{metrics}/metrics")
    assert _promtool("check", "metrics", stdin=text) == ""
    assert b"odd" not in text
    assert b'ingest_nodes_by_report{status="other"} 5.0' in text
    assert b'ingest_node_silence_ratio_bucket{le="1.0"} 8.0' in text


@needs_prometheus
def test_rules_call_when_they_should_and_name_a_page() -> None:
    """Each alert is in the tests of rules, and its runbook is a section of the document."""
    _promtool("check", "rules", str(RULES))
    _promtool("test", "rules", str(RULES.with_name("rules_test.yml")))
    tested = RULES.with_name("rules_test.yml").read_text()
    sections = {
        line[3:].lower() for line in (DOCS / "alerts.md").read_text().splitlines() if line[:3] == "## "
    }
    alerts = re.findall(r"alert: (\w+)", RULES.read_text())
    assert {alert.lower() for alert in alerts} == sections
    assert len(re.findall(r"runbook_url: docs/alerts.md#(\w+)", RULES.read_text())) == len(alerts)
    assert [alert for alert in alerts if alert not in tested] == []


def test_the_database_is_asked_only_for_who_scrapes(database: str) -> None:
    """Nothing is known before the first scrape, which waits for nothing; the next ones have it, and its age."""
    numbers = FleetNumbers(lambda: Config(database=database))
    stop = threading.Event()
    thread = threading.Thread(target=numbers.run, args=(stop,))
    thread.start()
    try:
        assert list(FleetCollector(numbers.current).collect()) == []
        deadline_s = time.monotonic() + 60
        while (found := numbers.current()) is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    finally:
        stop.set()
        thread.join(30)
    assert (found[0]["nodes"], found[1]) == (0, [])
    text = generate_latest(FleetCollector(numbers.current)).decode()
    assert 'ingest_nodes{state="active"} 0.0' in text


@pytest.fixture(scope="module")
def prometheus(metrics: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that scrapes that engine, with our rules."""
    directory = tmp_path_factory.mktemp("prometheus")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "ingest", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]}],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    process = subprocess.Popen(
        ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


def _query(url: str, expression: str) -> list[Any]:
    """Raises OSError as long as nobody answers, and for what is no PromQL."""
    answer = json.loads(_get(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
    assert answer["status"] == "success"
    found: list[Any] = answer["data"]["result"]
    return found


def _until_found(url: str, expression: str, deadline_s: float) -> None:
    while True:
        assert time.monotonic() < deadline_s, f"never anything for {expression}"
        try:
            if _query(url, expression):
                return
        except urllib.error.HTTPError as error:
            if error.code != 503:  # it starts
                raise
        except OSError:
            pass
        time.sleep(0.1)


@needs_prometheus
def test_every_query_of_the_dashboard_answers(prometheus: str) -> None:
    """Of a running Prometheus that scraped us: each finds something, but for what there is none of."""
    dashboard = json.loads((DOCS / "monitoring" / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 20
    deadline_s = time.monotonic() + 90
    _until_found(prometheus, "rate(ingest_received_total[1m])", deadline_s)
    for expression in expressions:
        asked = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
        assert "$" not in asked
        if MAY_BE_EMPTY.search(asked):
            _query(prometheus, asked)
        else:
            _until_found(prometheus, asked, deadline_s)
