"""Numbers and events about the engine itself.

Each process has a row of numbers in shared memory that only it writes; whoever serves /metrics reads all of
them. What there is to measure stands in ``metrics.py``.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mmap import mmap
from typing import Any, TextIO

import msgspec
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ingest.core.passwords import hide_passwords
from ingest.core.visible import visible
from ingest.metrics import METRICS, Declared
from ingest.metrics import Metric as Metric  # who counts needs Row and Metric together

REQUEST_TIMEOUT_S = 10.0  # of a scraper that says nothing; Prometheus gives up after 10 s itself
LOGGED_CHARACTERS_MAX = 2000  # of one value; a line must stay readable, and short of a body


_level = 0


# Numbers


def _layout() -> tuple[tuple[int, ...], int]:
    """The first column of each metric, and how many columns there are.

    A histogram has its sum and a count for each bucket, the last one without a limit.
    """
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
    """All rows, in shared memory that the caller supplies."""

    def __init__(self, memory: mmap | bytearray) -> None:
        self._cells: memoryview[float] = memoryview(memory).cast("d")

    @staticmethod
    def size(processes: int) -> int:
        """Bytes for so many rows."""
        return processes * _COLUMNS * 8

    def row(self, process: int) -> Row:
        return Row(self._cells[process * _COLUMNS : (process + 1) * _COLUMNS])

    def value(self, process: int, metric: int) -> float:
        return self._cells[process * _COLUMNS + _PLACES[metric]]

    def histogram(self, process: int, metric: int) -> tuple[float, list[float]]:
        """(sum, count of each bucket)."""
        at = process * _COLUMNS + _PLACES[metric]
        return self._cells[at], list(self._cells[at + 1 : at + 2 + len(METRICS[metric].buckets)])


class BoardCollector(Collector):
    """The board for prometheus_client, one sample a process; ``names`` are those of its rows, in order."""

    def __init__(self, board: Board, names: Sequence[str]) -> None:
        self._board = board
        self._names = names

    def collect(self) -> Iterator[Any]:
        families: dict[str, Any] = {}
        for number, metric in enumerate(METRICS):
            if metric.name not in families:
                families[metric.name] = _family(metric)
            family = families[metric.name]
            for process, name in _of_stage(self._names, metric):
                values = [name] if metric.outcome is None else [name, metric.outcome]
                if metric.kind == "histogram":
                    total, counts = self._board.histogram(process, number)
                    family.add_metric(values, _cumulative(metric.buckets, counts), total)
                else:
                    family.add_metric(values, self._board.value(process, number))
        yield from families.values()


def snapshot(board: Board, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The numbers by process and metric, for /status.json: outcomes by their own names, of a histogram its
    count and its sum."""
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for number, metric in enumerate(METRICS):
        for process, name in _of_stage(names, metric):
            if metric.kind == "histogram":
                total, counts = board.histogram(process, number)
                found[name] |= {f"{metric.name}_count": sum(counts), f"{metric.name}_sum": total}
            else:
                found[name][metric.outcome or metric.name] = board.value(process, number)
    return found


def _of_stage(names: Sequence[str], metric: Declared) -> Iterator[tuple[int, str]]:
    """The rows that have this metric."""
    for process, name in enumerate(names):
        if name.partition("-")[0] == metric.stage:
            yield process, name


def _family(metric: Declared) -> Any:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    labels = ["process"] if metric.outcome is None else ["process", "outcome"]
    read = metric.read
    if metric.outcome is not None:
        read = "; ".join(f"{other.outcome}: {other.read}" for other in METRICS if other.name == metric.name)
    text = f"{metric.help} How to read it: {read}."
    return kinds[metric.kind](metric.name.removesuffix("_total"), text, labels=labels)


def _cumulative(limits: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    running = 0.0
    found = []
    for limit, count in zip((*map(str, limits), "+Inf"), counts, strict=True):
        running += count
        found.append((limit, running))
    return found


# Serving them


class Health(msgspec.Struct, frozen=True):
    healthy: bool
    ready: bool
    reasons: tuple[str, ...] = ()


def serve(
    host: str, port: int, board: Board, names: Sequence[str], health: Callable[[], Health]
) -> ThreadingHTTPServer:
    """Serves /metrics, /healthz, /readyz and /status.json from a daemon thread.

    Raises OSError when the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(BoardCollector(board, names))

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            state = health()
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))
            elif path == "/healthz":
                self._answer(200 if state.healthy else 503, "application/json", msgspec.json.encode(state))
            elif path == "/readyz":
                self._answer(200 if state.ready else 503, "application/json", msgspec.json.encode(state))
            elif path == "/status.json":
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

    server = _Server((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's own: it asks the resolver for the host's name, which may take its time.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # a scraper that left is no event
            structlog.get_logger().error("metrics_failed", reason=f"{type(error).__name__}: {error}")


# Events


def configure(log_format: str, level: str, *, process: str = "", stream: TextIO | None = None) -> None:
    """One line an event on standard error, for a person (console) or a machine (json)."""
    stream = stream or sys.stderr
    set_level(level)
    renderer: Any
    if resolve_format(log_format) == "json":
        renderer = structlog.processors.JSONRenderer(sort_keys=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)
    structlog.configure(
        processors=[
            _important_enough,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _process(process),
            _presentable,
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(_Lines(stream)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )


def set_level(level: str) -> None:
    """The least important events to show, from now on: also for loggers that exist already."""
    global _level  # noqa: PLW0603  the log is one for the process
    _level = structlog.processors.NAME_TO_LEVEL[level]


def _important_enough(_: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if structlog.processors.NAME_TO_LEVEL[method] < _level:
        raise structlog.DropEvent
    return event


def resolve_format(log_format: str) -> str:
    """What "auto" means here and now."""
    if log_format == "auto":
        return "console" if sys.stderr.isatty() else "json"
    return log_format


class _Lines:
    """A stream that may break: a log reader that left, or a full disk, does not end the engine."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _process(name: str) -> Callable[[Any, str, Any], Any]:
    def add(_: Any, __: str, event: Any) -> Any:
        if name:
            event["process"] = name
        return event

    return add


def _presentable(_: Any, __: str, event: Any) -> Any:
    """No password and no body in a line, and nothing that breaks it or speaks to the terminal."""
    for key, value in event.items():
        if isinstance(value, bytes | bytearray | memoryview):
            event[key] = f"<{len(value)} bytes>"
        elif isinstance(value, str):
            event[key] = visible(hide_passwords(value)[:LOGGED_CHARACTERS_MAX])
    return event
