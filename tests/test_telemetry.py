"""Numbers and events: what is counted is shown, and nothing secret or harmful is written."""

from __future__ import annotations

import io
import json
import mmap
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ingest.core.metrics import METRICS, Metric
from ingest.core.printable import escape_unprintable
from ingest.ipc.process_metrics import MetricsTable
from ingest.observe.exposition import Health, serve, snapshot
from ingest.observe.log import configure

NAMES = ["receiver", "decoder-0", "decoder-1", "writer-0", "supervisor"]
WELL = Health(healthy=True, ready=True)


@pytest.fixture
def table() -> MetricsTable:
    return MetricsTable(bytearray(MetricsTable.size(len(NAMES))))


@contextmanager
def _served(table: MetricsTable, health: Callable[[], Health] = lambda: WELL) -> Iterator[str]:
    server = serve("127.0.0.1", 0, table, NAMES, health)
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.close()


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def _samples(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, text = _get(f"{url}/metrics")
    assert status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# The table


def test_rows_never_touch_each_other(table: MetricsTable) -> None:
    """Filling every cell of one row leaves all others at zero."""
    row = table.row(1)
    for metric in Metric:
        if metric.declared.kind == "histogram":
            for value in (-1.0, *metric.declared.buckets, 1e9):
                row.observe(metric, value)
        else:
            row.add(metric, 2.5)
    for metric in Metric:
        for other in (0, 2, 3, 4):
            assert table.value(other, metric) == 0
        expected = len(metric.declared.buckets) + 2
        if metric.declared.kind == "histogram":
            assert sum(table.histogram(1, metric)[1]) == expected
        else:
            assert table.value(1, metric) == 2.5


def test_a_row_is_seen_by_another_process() -> None:
    """What a child counts in shared memory, its parent reads."""
    memory = mmap.mmap(-1, MetricsTable.size(len(NAMES)))
    child = os.fork()
    if not child:
        try:
            MetricsTable(memory).row(2).add(Metric.DECODED, 7)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert MetricsTable(memory).value(2, Metric.DECODED) == 7


@given(st.lists(st.floats(0, 1e6)))
def test_a_histogram_counts_each_value_once_in_its_bucket(values: list[float]) -> None:
    """A bucket's count is the number of values up to its limit and above the one before."""
    table = MetricsTable(bytearray(MetricsTable.size(1)))
    limits = Metric.BATCH_SECONDS.declared.buckets
    for value in values:
        table.row(0).observe(Metric.BATCH_SECONDS, value)
    total, counts = table.histogram(0, Metric.BATCH_SECONDS)
    assert total == pytest.approx(sum(values))
    for place, (low, high) in enumerate(zip((-1.0, *limits), (*limits, float("inf")), strict=True)):
        assert counts[place] == sum(low < value <= high for value in values)


# The list


def test_every_metric_is_declared_whole() -> None:
    """Name, kind, a stage that exists, a help text and a line on how to read it; no two alike."""
    stages = {name.partition("-")[0] for name in NAMES}
    for metric in METRICS:
        assert metric.name.startswith("ingest_")
        assert metric.kind in ("counter", "gauge", "histogram")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "histogram") == bool(metric.buckets)
        assert metric.stage in stages
        assert metric.help.endswith(".")
        assert metric.read
    assert len({(metric.name, metric.outcome) for metric in METRICS}) == len(METRICS)
    assert [int(metric) for metric in Metric] == list(range(len(METRICS)))


# What is served


def test_every_metric_is_served_by_process_and_says_how_to_read_it(table: MetricsTable) -> None:
    """/metrics has each metric for each process of its stage, and its line in HELP."""
    table.row(0).add(Metric.STORED, 3)
    table.row(2).add(Metric.DECODED, 4)
    table.row(3).observe(Metric.BATCH_MESSAGES, 7)
    with _served(table) as url:
        samples = _samples(url)
        _, text = _get(f"{url}/metrics")
    outcome = frozenset({("process", "receiver"), ("outcome", "stored")})
    assert samples["ingest_settled_total", outcome] == 3
    assert samples["ingest_decoded_total", frozenset({("process", "decoder-1")})] == 4
    assert samples["ingest_decoded_total", frozenset({("process", "decoder-0")})] == 0
    assert samples["ingest_batch_messages_sum", frozenset({("process", "writer-0")})] == 7
    assert samples["ingest_batch_messages_bucket", frozenset({("process", "writer-0"), ("le", "5.0")})] == 0
    assert samples["ingest_batch_messages_bucket", frozenset({("process", "writer-0"), ("le", "10.0")})] == 1
    assert samples["ingest_batch_messages_count", frozenset({("process", "writer-0")})] == 1
    assert ("ingest_decoded_total", frozenset({("process", "receiver")})) not in samples
    for metric in METRICS:
        assert metric.read in text
        assert f"# TYPE {metric.name} {metric.kind}" in text


@pytest.mark.parametrize(
    ("health", "healthz", "readyz"),
    [
        (WELL, 200, 200),
        (Health(healthy=True, ready=False, reasons=("no connection to the broker",)), 200, 503),
        (Health(healthy=False, ready=False, reasons=("writer-0 is not running",)), 503, 503),
    ],
)
def test_health_is_a_status_code_with_its_reasons(
    table: MetricsTable, health: Health, healthz: int, readyz: int
) -> None:
    """Probes see 200 or 503, people see why."""
    with _served(table, lambda: health) as url:
        for path, expected in (("/healthz", healthz), ("/readyz?verbose", readyz)):
            status, text = _get(url + path)
            assert status == expected
            assert tuple(json.loads(text)["reasons"]) == health.reasons
        assert json.loads(_get(f"{url}/status.json")[1])["processes"] == snapshot(table, NAMES)
        assert _get(f"{url}/elsewhere")[0] == 404


def test_a_scraper_that_leaves_early_is_no_event(
    table: MetricsTable, capfd: pytest.CaptureFixture[str]
) -> None:
    """A connection that is reset in the middle of an answer writes nothing, and the next one is served."""
    asked, gone = threading.Event(), threading.Event()

    def health() -> Health:
        asked.set()
        gone.wait(10)
        return WELL

    with _served(table, health) as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as scraper:
            scraper.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close means reset
            scraper.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert asked.wait(10)
        gone.set()
        assert _get(f"{url}/healthz")[0] == 200
    assert "".join(capfd.readouterr()) == ""


# Events


@pytest.fixture
def _plain_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_plain_structlog")
@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    ("value", "absent", "present"),
    [
        ("no broker at stomp://u:geheim@h:1", "geheim", "stomp://u:"),
        ("host=h password=geheim", "geheim", "host=h"),
        (b'{"parameters": "geheim"}', "geheim", "24 bytes"),
        (memoryview(b"geheim"), "geheim", "6 bytes"),
        ("x" * 100_000, "x" * 2001, "x" * 2000),
        ("two\nlines\x1b[2J", "\x1b[2J", "lines"),
        ("\ud800", "\ud800", "ud800"),
    ],
)
def test_an_event_is_one_harmless_line(log_format: str, value: Any, absent: str, present: str) -> None:
    """No password, no body, no line end and nothing that a terminal obeys comes out of a value."""
    stream = io.StringIO()
    configure(log_format, "info", process="writer-1", stream=stream)
    structlog.get_logger().info("batch_stored", reason=value)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert absent not in text
    assert present in text
    assert "writer-1" in text


@pytest.mark.usefixtures("_plain_structlog")
def test_json_lines_hold_what_machines_look_for() -> None:
    """Event, level, time and process each under their name."""
    stream = io.StringIO()
    configure("json", "info", process="decoder-0", stream=stream)
    structlog.get_logger().debug("not_shown")
    structlog.get_logger().warning("child_died", child="decoder-0", how="exit 1")
    event = json.loads(stream.getvalue())
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "child_died",
        "level": "warning",
        "process": "decoder-0",
        "child": "decoder-0",
        "how": "exit 1",
    }


@pytest.mark.usefixtures("_plain_structlog")
def test_a_broken_log_does_not_end_the_engine() -> None:
    """A log reader that left, or a full disk, is nobody's reason to stop."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    configure("json", "info", stream=Broken())
    structlog.get_logger().info("running")


@given(st.text(st.characters(codec=None)))
def test_visible_text_has_nothing_that_breaks_a_line(text: str) -> None:
    """Every character that comes out is printable, and printable text comes out as it is."""
    assert escape_unprintable(text).isprintable()
    if text.isprintable():
        assert escape_unprintable(text) == text
    escape_unprintable(text).encode("utf-8")
