"""Asks the database about the fleet for whoever scrapes: in a thread of its own, and only while somebody does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from ingest.config.settings import Config
from ingest.errors import IngestError
from ingest.store.connection import connect
from ingest.store.node.freshness import fleet_freshness, quarantine_summary

EVERY_S = 15.0  # Prometheus scrapes as often, or less
ANSWER_TIMEOUT_S = 10.0

Found = tuple[Mapping[str, Any], Sequence[Mapping[str, Any]], float]


class FleetNumbers:
    """``current`` never waits: it gives what was found last, and has it asked again when that is old."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._wanted = threading.Event()
        self._found: tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]] | None = None
        self._found_s = 0.0

    def current(self) -> Found | None:
        found, age_s = self._found, time.monotonic() - self._found_s
        if found is None or age_s > EVERY_S:
            self._wanted.set()
        return None if found is None else (*found, age_s)

    def run(self, stop: threading.Event) -> None:
        """The thread's."""
        log = structlog.get_logger()
        while not stop.is_set():
            if not self._wanted.wait(1.0):
                continue
            self._wanted.clear()
            try:
                self._found, self._found_s = self._ask(), time.monotonic()
            except IngestError as error:
                log.debug("fleet_not_known", reason=str(error))
                stop.wait(EVERY_S)

    def _ask(self) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        config = self._config()
        connection = connect(
            config.database,
            application_name="ingest fleet",
            connect_timeout_s=config.connect_timeout_s,
            statement_timeout_s=ANSWER_TIMEOUT_S,
        )
        try:
            return fleet_freshness(connection), quarantine_summary(connection)
        finally:
            connection.close()
