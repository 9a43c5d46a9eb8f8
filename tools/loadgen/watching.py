"""Sees when a message can be queried: asks PostgreSQL every few milliseconds which nodes are newer now."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg

from tools.loadgen.results import Lines, Stored

POLL_S = 0.05
RECONNECT_S = 0.5
# Receivers on other machines may have another idea of the time.
CLOCKS_DIFFER = timedelta(seconds=5)
# A row for each node with (certname, producer_timestamp, received_at) of its newest.
NEWEST = {
    "facts": "SELECT certname, producer_timestamp, received_at FROM node_facts JOIN nodes ON id = node_id",
    "catalog": "SELECT certname, producer_timestamp, received_at FROM node_catalogs",
    "report": "SELECT certname, producer_timestamp, received_at FROM node_latest_reports JOIN nodes ON id = node_id",
}


class Watcher:
    """A thread with a connection of its own. ``expect`` tells it what to look for; a database that goes away is
    waited for, as the engine does."""

    def __init__(self, database: str, nodes: Mapping[str, int], lines: Lines, start_s: float) -> None:
        self._database = database
        self._nodes = nodes
        self._lines = lines
        self._start_s = start_s
        self._lock = threading.Lock()
        # By kind and node: (producer_timestamp, run, since when it can be at the engine), in order.
        self._expected: dict[str, dict[int, deque[tuple[datetime, int, datetime]]]] = {
            what: {} for what in NEWEST
        }
        self._stop = threading.Event()
        self.seen = 0
        self.failure: str | None = None  # why it cannot look just now
        self.looked_s = 0.0  # when it looked for the last time
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._thread.start()

    def expect(self, what: str, node: int, run: int, at: datetime, now: datetime) -> None:
        with self._lock:
            self._expected[what].setdefault(node, deque()).append((at, run, now))

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(len(queue) for nodes in self._expected.values() for queue in nodes.values())

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._database, autocommit=True, connect_timeout=5) as connection:
                    self.failure = None
                    while not self._stop.wait(POLL_S):
                        for what in NEWEST:
                            self._look(connection, what)
            except psycopg.Error as error:
                self.failure = " ".join(str(error).split())
                self._stop.wait(RECONNECT_S)

    def _look(self, connection: psycopg.Connection[Any], what: str) -> None:
        with self._lock:
            oldest = min((queue[0][2] for queue in self._expected[what].values() if queue), default=None)
        # Only rows written since the oldest message that is waited for: few, while the engine keeps up.
        rows = (
            []
            if oldest is None
            else connection.execute(
                f"SELECT certname, producer_timestamp FROM ({NEWEST[what]}) newest WHERE received_at >= %s",
                [oldest - CLOCKS_DIFFER],
                prepare=True,
            ).fetchall()
        )
        self.looked_s = time.monotonic() - self._start_s
        for certname, timestamp in rows:
            with contextlib.suppress(KeyError):
                self._note(what, self._nodes[certname], timestamp)
        if rows:
            self._lines.flush()

    def _note(self, what: str, node: int, timestamp: datetime) -> None:
        with self._lock:
            queue = self._expected[what][node]
            while queue and queue[0][0] <= timestamp:
                at, run, _ = queue.popleft()
                self._lines.write(Stored(node, run, self.looked_s, at != timestamp, what))
                self.seen += 1
