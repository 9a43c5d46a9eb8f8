"""The engine's numbers and its health for others: Prometheus text, and JSON for ``ingest status``.

The numbers come from the table of metrics (``ipc.process_metrics``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ingest.core.metrics import METRICS, Declared
from ingest.ipc.names import kind_of
from ingest.ipc.process_metrics import MetricsTable
from ingest.observe.http import Page
from ingest.observe.server import Server, listen


class MetricsCollector(Collector):
    """The table of metrics for prometheus_client, one sample a process; ``names`` are those of its rows, in order."""

    def __init__(self, metrics: MetricsTable, names: Sequence[str]) -> None:
        self._metrics = metrics
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
                    total, counts = self._metrics.histogram(process, number)
                    family.add_metric(values, _cumulative(metric.buckets, counts), total)
                else:
                    family.add_metric(values, self._metrics.value(process, number))
        yield from families.values()


def snapshot(metrics: MetricsTable, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The numbers by process and metric, for /status.json: outcomes by their own names, of a histogram its
    count and its sum."""
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for number, metric in enumerate(METRICS):
        for process, name in _of_stage(names, metric):
            if metric.kind == "histogram":
                total, counts = metrics.histogram(process, number)
                base = metric.name if metric.outcome is None else f"{metric.name}_{metric.outcome}"
                found[name] |= {f"{base}_count": sum(counts), f"{base}_sum": total}
            else:
                found[name][_short_name(metric)] = metrics.value(process, number)
    return found


def _short_name(metric: Declared) -> str:
    if metric.outcome is None:
        return metric.name
    return metric.outcome if metric.label == "outcome" else f"{metric.name}_{metric.outcome}"


def _of_stage(names: Sequence[str], metric: Declared) -> Iterator[tuple[int, str]]:
    """The rows that have this metric."""
    for process, name in enumerate(names):
        if kind_of(name) == metric.stage:
            yield process, name


def _family(metric: Declared) -> Any:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    labels = ["process"] if metric.outcome is None else ["process", metric.label]
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


class Usage(msgspec.Struct, frozen=True):
    """Cores that the engine may have, and CPU seconds by process: a successor begins at 0."""

    cores: int
    cpu_s: dict[str, float]


class UsageCollector(Collector):
    def __init__(self, usage: Callable[[], Usage]) -> None:
        self._usage = usage

    def collect(self) -> Iterator[Any]:
        found = self._usage()
        cpu = CounterMetricFamily(
            "ingest_cpu_seconds",
            "CPU time of each process. How to read it: the rate of one kind near 1 for each of its processes: it is the limit.",
            labels=["process"],
        )
        for name, seconds in found.cpu_s.items():
            cpu.add_metric([name], seconds)
        yield cpu
        yield GaugeMetricFamily(
            "ingest_cores",
            "Cores that this engine may use. How to read it: of its container or unit, not of the host.",
            value=found.cores,
        )


# Serving them


class Health(msgspec.Struct, frozen=True):
    healthy: bool
    ready: bool
    reasons: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        return "ready" if self.ready else f"not ready: {'; '.join(self.reasons)}"


def serve(
    host: str,
    port: int,
    metrics: MetricsTable,
    names: Sequence[str],
    health: Callable[[], Health],
    hosts: Sequence[str] = (),
    more: Sequence[Collector] = (),
    usage: Callable[[], Usage] | None = None,
) -> Server:
    """Serves /metrics, /healthz, /readyz and /status.json from a daemon thread, at an address or ``unix:/PATH``;
    ``hosts`` are names, beside addresses and localhost, under which it may be asked; ``more`` stands behind ours in /metrics;
    ``usage`` tells what processes take of the machine.

    Raises OSError when the port is taken.
    """
    server = Server(listen(host, port), pages(metrics, names, health, more, usage), hosts)
    server.start()
    return server


def pages(
    metrics: MetricsTable,
    names: Sequence[str],
    health: Callable[[], Health],
    more: Sequence[Collector] = (),
    usage: Callable[[], Usage] | None = None,
) -> Callable[[str], Page]:
    """What is answered to a path."""
    registry = CollectorRegistry()
    for collector in (MetricsCollector(metrics, names), *more, *([UsageCollector(usage)] if usage else [])):
        registry.register(collector)

    def page(path: str) -> Page:
        state = health()
        if path == "/metrics":
            return Page(200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))
        if path == "/healthz":
            return Page(200 if state.healthy else 503, "application/json", msgspec.json.encode(state))
        if path == "/readyz":
            return Page(200 if state.ready else 503, "application/json", msgspec.json.encode(state))
        if path == "/status.json":
            document = {"health": msgspec.to_builtins(state), "processes": snapshot(metrics, names)}
            document["usage"] = None if usage is None else msgspec.to_builtins(usage())
            return Page(200, "application/json", json.dumps(document).encode())
        return Page(404, "text/plain", b"/metrics /healthz /readyz /status.json\n")

    return page
