"""What receiver and writers measure by kind of message: how much waits, for how long, and how late it is stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ingest.config.settings import Config
from ingest.core.delivery.ledger import Ledger
from ingest.core.delivery.work import UNPLACED, Outcome
from ingest.core.metrics import Metric
from ingest.ipc.process_metrics import ProcessMetrics

# By rank (core.delivery.importance).
_UNSETTLED = (
    (Metric.UNSETTLED_CATALOGS, Metric.OLDEST_CATALOG),
    (Metric.UNSETTLED_FACTS, Metric.OLDEST_FACTS),
    (Metric.UNSETTLED_REPORTS, Metric.OLDEST_REPORT),
)
_OUTCOMES: dict[Outcome, Metric] = {
    outcome: Metric[outcome.name] for outcome in Outcome if outcome is not Outcome.REDO
}
_SETTLED = (Metric.SETTLE_SECONDS, Metric.SETTLE_FACTS, Metric.SETTLE_REPORT)
_LAGS = (Metric.CATALOG_LAG, Metric.FACTS_LAG, Metric.REPORT_LAG)


def measure_ledger(row: ProcessMetrics, ledger: Ledger, now_s: float) -> None:
    row.set(Metric.WINDOW_MESSAGES, ledger.messages)
    row.set(Metric.WAITING, ledger.waiting)
    age_s_max = 0.0
    for rank, (unsettled, age) in enumerate(_UNSETTLED):
        count, oldest = ledger.unsettled(rank)
        age_s = now_s - oldest.received_s if oldest is not None else 0.0
        row.set(unsettled, count)
        row.set(age, age_s)
        age_s_max = max(age_s_max, age_s)
    row.set(Metric.OLDEST_SECONDS, age_s_max)


def measure_window(row: ProcessMetrics, config: Config, used_bytes: int, *, connected: bool) -> None:
    row.set(Metric.CONNECTED, int(connected))
    row.set(Metric.WINDOW_BYTES, used_bytes)
    row.set(Metric.WINDOW_MESSAGES_LIMIT, config.window_messages_max)
    row.set(Metric.WINDOW_BYTES_LIMIT, config.window_bytes_max)


def measure_settled(row: ProcessMetrics, outcome: Outcome, rank: int, after_s: float) -> None:
    """One message, so long after it came."""
    row.add(_OUTCOMES[outcome])
    row.observe(_SETTLED[rank], after_s)


class Lags:
    """Of what one batch has stored: from the producer's time to the commit, at ``now``."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._catalogs_s: list[float] = []
        self._largest_s: dict[int, float] = {}  # by rank

    def stored(self, work: Any, rank: int, *, is_catalog: bool) -> None:
        made_at = getattr(work, "producer_timestamp", UNPLACED)  # kinds of others need not have one
        if made_at == UNPLACED:
            return
        lag_s = max(0.0, (self._now - made_at).total_seconds())
        self._largest_s[rank] = max(lag_s, self._largest_s.get(rank, 0.0))
        if is_catalog:
            self._catalogs_s.append(lag_s)

    def tell(self, row: ProcessMetrics) -> None:
        for lag_s in self._catalogs_s:
            row.observe(Metric.LAG_SECONDS, lag_s)
        if self._catalogs_s:
            row.set(Metric.BATCH_LAG_SECONDS, max(self._catalogs_s))
        for rank, lag_s in self._largest_s.items():
            row.set(_LAGS[rank], lag_s)
