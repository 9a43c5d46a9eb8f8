"""The engine's numbers and its health for others: Prometheus text, and JSON for ``ingest status``.

The numbers come from the board (``board.py``).
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ingest.core.metrics import METRICS, Declared
from ingest.ipc.names import kind_of
from ingest.ipc.process_metrics import MetricsTable

REQUEST_TIMEOUT_S = 10.0  # of a scraper that says nothing; Prometheus gives up after 10 s itself


class MetricsCollector(Collector):
    """The board for prometheus_client, one sample a process; ``names`` are those of its rows, in order."""

    def __init__(self, board: MetricsTable, names: Sequence[str]) -> None:
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


def snapshot(board: MetricsTable, names: Sequence[str]) -> dict[str, dict[str, float]]:
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
        if kind_of(name) == metric.stage:
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
    host: str, port: int, board: MetricsTable, names: Sequence[str], health: Callable[[], Health]
) -> ThreadingHTTPServer:
    """Serves /metrics, /healthz, /readyz and /status.json from a daemon thread.

    Raises OSError when the port is taken.
    """
    registry = CollectorRegistry()
    registry.register(MetricsCollector(board, names))

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
