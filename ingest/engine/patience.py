"""When the receiver takes messages from the broker at all, and when it lets go of those that it has held for too long."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from ingest.config.settings import Config
from ingest.core.delivery.intake import LIMIT_NOTE, Intake, Pause, delivery_count
from ingest.core.delivery.ledger import Ledger
from ingest.core.metrics import Metric
from ingest.engine.process import process_names
from ingest.engine.subscription import Subscription
from ingest.ipc.names import WRITER, kind_of
from ingest.ipc.process_metrics import MetricsTable, ProcessMetrics


class Patience:
    def __init__(
        self, config: Config, subscription: Subscription, metrics: MetricsTable, row: ProcessMetrics
    ) -> None:
        self._config = config
        self._subscription = subscription
        self._metrics = metrics
        self._row = row
        self._log = structlog.get_logger()
        self._writers = [at for at, name in enumerate(process_names(config)) if kind_of(name) == WRITER]
        self._intake = Intake()
        self._pause: Pause | None = None  # not looked yet

    @property
    def is_paused(self) -> bool:
        return bool(self._pause)

    def reload(self, config: Config) -> None:
        self._config = config

    def subscribe_if_allowed(self, unsettled: int) -> None:
        """Not while it is known that nothing can be settled: each subscription costs a delivery of what it brings.
        ``unsettled`` is how many deliveries are in the book."""
        if self._subscription.is_connected:
            return
        up = (bool(self._metrics.value(writer, Metric.DATABASE_UP)) for writer in self._writers)
        pause = self._intake.pause(up, unsettled)
        if pause is not self._pause:
            self._pause = pause
            self._row.set(Metric.PAUSED, pause)
            if self._subscription.epoch:  # at the start it only means that the writers are not there yet
                self._log.info("paused", reason=pause.reason) if pause else self._log.info("resumed")
        if not pause:
            self._subscription.connect_if_due()

    def let_go_if_too_long(self, ledger: Ledger, now_s: float) -> None:
        """Brokers lose patience with unacknowledged messages (RabbitMQ: 30 minutes, and then the channel is
        closed). Before that the engine lets go by itself, once. What it has is settled all the same, as after any lost
        connection, and only then it takes them again."""
        subscription = self._subscription
        oldest = ledger.oldest_of(subscription.epoch) if subscription.is_connected else None
        if oldest is None or now_s - oldest.received_s < self._config.hold_s:
            return
        self._log.warning("deliveries_let_go", deliveries=ledger.messages, held_s=self._config.hold_s)
        self._intake.let_go()
        subscription.let_go()

    def look_at_delivery_count(self, headers: Mapping[str, str]) -> None:
        """Of a message that comes again: a broker that counts its deliveries may drop it one day."""
        count, largest = delivery_count(headers), self._row.value(Metric.DELIVERY_COUNT)
        if count > largest:
            self._row.set(Metric.DELIVERY_COUNT, count)
            if not largest:
                self._log.warning("broker_counts_deliveries", delivery_count=count, note=LIMIT_NOTE)
