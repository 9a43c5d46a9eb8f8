"""Numbers and events about the engine itself.

Each process has a row of numbers in shared memory that only it writes; whoever serves /metrics reads all rows.
METRICS is the one list of what there is, each with a line on how to read it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mmap import mmap
from typing import Any, NamedTuple

import msgspec
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


class Declared(NamedTuple):
    """One metric: ``kind`` is counter, gauge or histogram; ``read`` tells a person what a value means."""

    name: str
    kind: str
    stage: str
    help: str
    read: str
    labels: dict[str, str]
    buckets: tuple[float, ...]


_declared: list[Declared] = []


def _declare(
    name: str,
    kind: str,
    stage: str,
    help: str,
    read: str,
    labels: dict[str, str] | None = None,
    buckets: tuple[float, ...] = (),
) -> int:
    """Adds a metric to the list; its place there is its number."""
    _declared.append(Declared(name, kind, stage, help, read, labels or {}, buckets))
    return len(_declared) - 1


def _outcome(outcome: str, read: str) -> int:
    return _declare(
        "ingest_settled_total",
        "counter",
        "receiver",
        "Messages settled, by outcome.",
        read,
        {"outcome": outcome},
    )


class Metric:
    """Every metric there is, as its number."""

    RECEIVED = _declare(
        "ingest_received_total", "counter", "receiver", "Messages received.", "its rate is the load"
    )
    RECEIVED_BYTES = _declare(
        "ingest_received_bytes_total",
        "counter",
        "receiver",
        "Bytes of bodies received.",
        "divide by received: the mean size",
    )
    REDELIVERED = _declare(
        "ingest_redelivered_total",
        "counter",
        "receiver",
        "Messages that the broker marked as redelivered.",
        "grows after reconnects and restarts; steadily: something acknowledges too late",
    )
    ACKNOWLEDGED = _declare(
        "ingest_acknowledged_total",
        "counter",
        "receiver",
        "Acknowledgements sent.",
        "lags behind settled only while the broker is away",
    )
    STORED = _outcome("stored", "catalogs with new content")
    UNCHANGED = _outcome("unchanged", "usually nine of ten")
    STALE = _outcome("stale", "older than what is stored: harmless, frequent only after an outage")
    SUPERSEDED = _outcome("superseded", "a newer one stood in the same batch: the engine was behind")
    QUARANTINED = _outcome("quarantined", "any: look with 'ingest quarantine list'")
    REDONE = _declare(
        "ingest_redone_total",
        "counter",
        "receiver",
        "Deliveries decoded once more with every content.",
        "rare; steadily: decoders and database disagree about what is known",
    )
    SETTLE_SECONDS = _declare(
        "ingest_settle_seconds",
        "histogram",
        "receiver",
        "From receipt to settled.",
        "what the engine itself adds to freshness",
        {},
        SECONDS,
    )
    WINDOW_MESSAGES = _declare(
        "ingest_window_messages",
        "gauge",
        "receiver",
        "Unsettled messages.",
        "at window_messages_max the broker holds the rest back",
    )
    WINDOW_BYTES = _declare(
        "ingest_window_bytes",
        "gauge",
        "receiver",
        "Shared memory used by unsettled bodies.",
        "at window_bytes_max reading stops",
    )
    WAITING = _declare(
        "ingest_waiting",
        "gauge",
        "receiver",
        "Messages that no decoder has taken.",
        "over zero all the time: decoders are the limit",
    )
    CONNECTED = _declare(
        "ingest_broker_connected",
        "gauge",
        "receiver",
        "1 while subscribed.",
        "0: look at the log for the reason",
    )
    CONNECTIONS = _declare(
        "ingest_broker_connections_total",
        "counter",
        "receiver",
        "Connection epochs.",
        "grows: the broker or the network drops us",
    )
    OLDEST_SECONDS = _declare(
        "ingest_oldest_unsettled_seconds",
        "gauge",
        "receiver",
        "Age of the oldest unsettled message.",
        "grows with the clock: a writer waits for the database",
    )
    DECODED = _declare(
        "ingest_decoded_total",
        "counter",
        "decoder",
        "Messages decoded.",
        "compare with received: the decoders' share",
    )
    DECODE_CPU_SECONDS = _declare(
        "ingest_decode_cpu_seconds_total",
        "counter",
        "decoder",
        "CPU time spent decoding.",
        "its rate: how many decoders are busy",
    )
    CACHE_HITS = _declare(
        "ingest_decoder_cache_hits",
        "gauge",
        "decoder",
        "Resources that a decoder had met before.",
        "over misses: the hit ratio",
    )
    CACHE_MISSES = _declare(
        "ingest_decoder_cache_misses",
        "gauge",
        "decoder",
        "Resources normalised.",
        "high all the time: raise decoder_cache_bytes_max",
    )
    BATCH_MESSAGES = _declare(
        "ingest_batch_messages",
        "histogram",
        "writer",
        "Messages in one transaction.",
        "near batch_messages_max: the writers are the limit",
        {},
        SIZES,
    )
    BATCH_SECONDS = _declare(
        "ingest_batch_seconds",
        "histogram",
        "writer",
        "Time of one transaction.",
        "over a second: look at the database",
        {},
        SECONDS,
    )
    ROWS_WRITTEN = _declare(
        "ingest_rows_written_total",
        "counter",
        "writer",
        "Rows inserted, updated or deleted.",
        "about one for each unchanged catalog",
    )
    BYTES_COPIED = _declare(
        "ingest_copy_bytes_total",
        "counter",
        "writer",
        "Bytes sent by COPY.",
        "far below received bytes, or everything is new",
    )
    RESOURCES_NEW = _declare(
        "ingest_resources_new_total",
        "counter",
        "writer",
        "Distinct resources stored for the first time.",
        "rises with a deploy",
    )
    DATABASE_UP = _declare(
        "ingest_database_up", "gauge", "writer", "1 while connected.", "0: look at the log for the reason"
    )
    DATABASE_CONNECTIONS = _declare(
        "ingest_database_connections_total",
        "counter",
        "writer",
        "Connections made.",
        "grows: the database drops us",
    )
    RESTARTS = _declare(
        "ingest_child_restarts_total",
        "counter",
        "supervisor",
        "Children replaced.",
        "any: the log says which one died and how",
    )
    COLLECTED = _declare(
        "ingest_collected_total",
        "counter",
        "supervisor",
        "Rows of unused content deleted.",
        "about what deploys left behind",
    )


METRICS: tuple[Declared, ...] = tuple(_declared)


def _layout() -> tuple[tuple[int, ...], int]:
    """The first column of each metric, and how many columns there are. A histogram has its sum and a count for
    each bucket, the last one without a limit."""
    places, at = [], 0
    for metric in METRICS:
        places.append(at)
        at += len(metric.buckets) + 2 if metric.kind == "histogram" else 1
    return tuple(places), at


_PLACES, _COLUMNS = _layout()


class Row:
    """One process's numbers; only that process writes them."""

    def __init__(self, cells: memoryview[float]) -> None:
        self._cells = cells

    def add(self, metric: int, n: float = 1) -> None:
        self._cells[_PLACES[metric]] += n

    def set(self, metric: int, value: float) -> None:
        self._cells[_PLACES[metric]] = value

    def observe(self, metric: int, value: float) -> None:
        at = _PLACES[metric]
        self._cells[at] += value
        self._cells[at + 1 + bisect_left(METRICS[metric].buckets, value)] += 1


class Board:
    """All rows, in shared memory."""

    def __init__(self, memory: mmap | bytearray) -> None:
        self._cells = memoryview(memory).cast("d")

    @staticmethod
    def size(processes: int) -> int:
        """Bytes for so many rows."""
        return processes * _COLUMNS * 8

    def row(self, process: int) -> Row:
        return Row(self._cells[process * _COLUMNS : (process + 1) * _COLUMNS])

    def value(self, process: int, metric: int) -> float:
        value: float = self._cells[process * _COLUMNS + _PLACES[metric]]
        return value

    def histogram(self, process: int, metric: int) -> tuple[float, list[float]]:
        """(sum, count of each bucket)."""
        at = process * _COLUMNS + _PLACES[metric]
        return self._cells[at], list(self._cells[at + 1 : at + 2 + len(METRICS[metric].buckets)])


class BoardCollector(Collector):
    """The board for prometheus_client, one sample a process."""

    def __init__(self, board: Board, names: Sequence[str]) -> None:
        self._board = board
        self._names = names

    def collect(self) -> Iterator[Any]:
        families: dict[str, Any] = {}
        kinds = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        for number, metric in enumerate(METRICS):
            labels = ["process", *metric.labels]
            if metric.name not in families:
                text = f"{metric.help} How to read it: {metric.read}."
                families[metric.name] = kinds[metric.kind](
                    metric.name.removesuffix("_total"), text, labels=labels
                )
            family = families[metric.name]
            for process, name in enumerate(self._names):
                if name.partition("-")[0] != metric.stage:
                    continue
                values = [name, *metric.labels.values()]
                if metric.kind == "histogram":
                    total, counts = self._board.histogram(process, number)
                    family.add_metric(values, _cumulative(metric.buckets, counts), total)
                else:
                    family.add_metric(values, self._board.value(process, number))
        yield from families.values()


def snapshot(board: Board, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Counters and gauges by process and metric, for /status.json; outcomes by their own names."""
    found: dict[str, dict[str, float]] = {}
    for process, name in enumerate(names):
        found[name] = {
            metric.labels.get("outcome", metric.name): board.value(process, number)
            for number, metric in enumerate(METRICS)
            if metric.stage == name.partition("-")[0] and metric.kind != "histogram"
        }
    return found


class Health(msgspec.Struct, frozen=True):
    healthy: bool
    ready: bool
    reasons: tuple[str, ...] = ()


def serve(
    host: str, port: int, board: Board, names: Sequence[str], health: Callable[[], Health]
) -> ThreadingHTTPServer:
    """Serves /metrics, /healthz, /readyz and /status.json from a daemon thread; OSError when the port is taken."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(board, names))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            state = health()
            if self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))
            elif self.path == "/healthz":
                self._answer(200 if state.healthy else 503, "application/json", msgspec.json.encode(state))
            elif self.path == "/readyz":
                self._answer(200 if state.ready else 503, "application/json", msgspec.json.encode(state))
            elif self.path == "/status.json":
                document = {"health": msgspec.to_builtins(state), "processes": snapshot(board, names)}
                self._answer(200, "application/json", json.dumps(document).encode())
            else:
                self._answer(404, "text/plain", b"/metrics /healthz /readyz /status.json\n")

        def _answer(self, status: int, type_: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", type_)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass  # a scrape is no event

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def configure(log_format: str, level: str, *, process: str = "") -> None:
    """One line an event on standard error: for a person (console) or a machine (json); auto asks the terminal."""
    renderer: Any
    if resolve_format(log_format) == "json":
        renderer = structlog.processors.JSONRenderer(sort_keys=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _process(process),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def resolve_format(log_format: str) -> str:
    """What "auto" means here and now."""
    if log_format == "auto":
        return "console" if sys.stderr.isatty() else "json"
    return log_format


def _process(name: str) -> Callable[[Any, str, Any], Any]:
    def add(_: Any, __: str, event: Any) -> Any:
        if name:
            event["process"] = name
        return event

    return add


def _cumulative(limits: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    running = 0.0
    found = []
    for limit, count in zip((*map(str, limits), "+Inf"), counts, strict=True):
        running += count
        found.append((limit, running))
    return found
