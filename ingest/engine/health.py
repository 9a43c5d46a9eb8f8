"""What the supervisor answers when it is asked how the tree is."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.core.delivery.intake import Pause
from ingest.core.metrics import Metric
from ingest.ipc.names import RECEIVER, WRITER, kind_of
from ingest.ipc.process_metrics import MetricsTable
from ingest.observe.exposition import Health


def tree_health(
    metrics: MetricsTable, names: Sequence[str], missing: Sequence[str], *, is_draining: bool
) -> Health:
    """Healthy: no process of ``names`` is ``missing``. Ready: connected to broker and database, and not draining."""
    reasons = [f"{name} is not running" for name in missing]
    receiver = names.index(RECEIVER)
    pause = Pause(int(metrics.value(receiver, Metric.PAUSED)))
    if pause:
        reasons.append(f"paused: {pause.reason}; nothing is taken from the broker")
    elif not metrics.value(receiver, Metric.CONNECTED):
        reasons.append("no connection to the broker")
    for at, name in enumerate(names):
        if kind_of(name) == WRITER and not metrics.value(at, Metric.DATABASE_UP):
            reasons.append(f"{name} has no connection to the database")
    if is_draining:
        reasons.append("draining")
    return Health(healthy=not missing, ready=not reasons, reasons=tuple(reasons))
