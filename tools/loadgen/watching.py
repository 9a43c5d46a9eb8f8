"""Sees when a catalog can be queried: asks PostgreSQL every few milliseconds which nodes are newer now."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg

from tools.loadgen.results import Lines, Stored

POLL_S = 0.05
# Receivers on other machines may have another idea of the time.
CLOCKS_DIFFER = timedelta(seconds=5)
NEWER = "SELECT certname, producer_timestamp FROM node_catalogs WHERE received_at >= %s"


class Watcher:
    """A thread with a connection of its own. ``expect`` tells it what to look for."""

    def __init__(self, database: str, nodes: Mapping[str, int], lines: Lines, start_s: float) -> None:
        self._connection: psycopg.Connection[Any] = psycopg.connect(database, autocommit=True)
        self._nodes = nodes
        self._lines = lines
        self._start_s = start_s
        self._lock = threading.Lock()
        # By node: (producer_timestamp, run, since when it can be at the engine), in order.
        self._expected: dict[int, deque[tuple[datetime, int, datetime]]] = {}
        self._stop = threading.Event()
        self.seen = 0
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._thread.start()

    def expect(self, node: int, run: int, at: datetime, now: datetime) -> None:
        with self._lock:
            self._expected.setdefault(node, deque()).append((at, run, now))

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(map(len, self._expected.values()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _watch(self) -> None:
        try:
            while not self._stop.wait(POLL_S):
                self._look()
        except psycopg.Error as error:
            self.failure = " ".join(str(error).split())

    def _look(self) -> None:
        with self._lock:
            oldest = min((queue[0][2] for queue in self._expected.values() if queue), default=None)
        if oldest is None:
            return
        rows = self._connection.execute(NEWER, [oldest - CLOCKS_DIFFER]).fetchall()
        seen_s = time.monotonic() - self._start_s
        with self._lock:
            for certname, timestamp in rows:
                node = self._nodes.get(certname)
                queue = self._expected.get(node) if node is not None else None
                while queue and queue[0][0] <= timestamp:
                    _, run, _ = queue.popleft()
                    self._lines.write(Stored(node, run, seen_s))  # type: ignore[arg-type]
                    self.seen += 1
        self._lines.flush()
