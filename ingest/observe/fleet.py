"""The fleet's numbers for Prometheus: what the database says of all nodes, as it was when it was asked last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

STATUSES = ("changed", "unchanged", "failed", "no report")  # what else a report may say counts as "other"


class FleetCollector(Collector):
    """``fleet`` gives (its numbers, the quarantine by reason, how old they are), or None as long as there are none."""

    def __init__(
        self, fleet: Callable[[], tuple[Mapping[str, Any], Sequence[Mapping[str, Any]], float] | None]
    ) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Any]:
        found = self._fleet()
        if found is not None:
            numbers, quarantine, age_s = found
            yield from _nodes(numbers)
            yield from _times(numbers)
            rows = GaugeMetricFamily(
                "ingest_quarantine_rows",
                "Rows in quarantine, by reason. How to read it: any: 'ingest quarantine list' shows them.",
                labels=["reason"],
            )
            for row in quarantine:
                rows.add_metric([row["reason"]], row["rows"])
            yield rows
            yield _gauge(
                "ingest_database_bytes",
                "Size of the database. How to read it: grows with deploys, and is flat between them.",
                numbers["database_bytes"],
            )
            yield _gauge(
                "ingest_fleet_age_seconds",
                "How old the fleet's numbers are. How to read it: over two minutes: the database does not answer.",
                age_s,
            )


def _nodes(numbers: Mapping[str, Any]) -> Iterator[Any]:
    states = GaugeMetricFamily(
        "ingest_nodes",
        "Nodes by state. How to read it: active ones are the fleet; expired ones fell silent for node_ttl_s.",
        labels=["state"],
    )
    for state, name in (("active", "nodes"), ("deactivated", "deactivated"), ("expired", "expired")):
        states.add_metric([state], numbers[name])
    yield states
    yield _gauge(
        "ingest_nodes_overdue",
        "Active nodes silent for more than twice their usual interval and ten minutes. How to read it: many at once: look at "
        "Puppet servers and broker; a few: 'ingest nodes --overdue'.",
        numbers["overdue"],
    )
    reports = GaugeMetricFamily(
        "ingest_nodes_by_report",
        "Active nodes by the status of their last report. How to read it: failed ones: 'ingest nodes --failed'.",
        labels=["status"],
    )
    counts = dict.fromkeys((*STATUSES, "other"), 0)
    for status, count in numbers["statuses"].items():
        counts[status if status in STATUSES else "other"] += count
    for status, count in counts.items():
        reports.add_metric([status], count)
    yield reports
    yield _gauge(
        "ingest_fleet_catalogs_expected_per_second",
        "Catalogs that the fleet sends by its learnt intervals. How to read it: compare with what is received.",
        float(numbers["pace_per_s"]),
    )


def _times(numbers: Mapping[str, Any]) -> Iterator[Any]:
    yield _histogram(
        "ingest_node_silence_ratio",
        "Active nodes by the time since they were heard of, in usual intervals. How to read it: even up to 1, and next to "
        "none beyond 2.",
        numbers["silence_limits"],
        numbers["silence"],
        float(numbers["silence_sum"]),
    )
    yield _histogram(
        "ingest_node_catalog_lag_seconds",
        "Active nodes by the time from their catalog's producer_timestamp to its being stored. How to read it: seconds.",
        numbers["lag_limits"],
        numbers["lag"],
        float(numbers["lag_sum"]),
    )


def _gauge(name: str, text: str, value: float) -> Any:
    return GaugeMetricFamily(name, text, value=value)


def _histogram(name: str, text: str, limits: Sequence[float], counts: Sequence[int], total: float) -> Any:
    running, buckets = 0, []
    for limit, count in zip([*map(str, limits), "+Inf"], counts, strict=True):
        running += count
        buckets.append((limit, float(running)))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
