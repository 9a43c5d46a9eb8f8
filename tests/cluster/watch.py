"""A plain client of the database: when it can write again, and what is stored when it looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import psycopg

from ingest.store.connection import hang_up
from tests.cluster.stream import Outages

EVERY_S = 0.3
PATIENCE_S = 2.0  # with one host; a COMMIT that waits for a standby which is gone would take for ever
LATE_S = 3.0  # from receipt to being stored: on a busy machine it takes one without any fault
# What there is, and the number of the message that brought it.
CATALOGS = (
    "SELECT certname, right(transaction_uuid::text, 12)::bigint FROM catalogs JOIN nodes ON id = node_id"
)


class Sent(Protocol):
    """What was published, by number."""

    @property
    def receipts(self) -> dict[int, float]: ...  # when
    def key(self, number: int) -> str: ...


class Watch(threading.Thread):
    """Goes round the hosts until one takes a row, and then reads there. ``conninfos`` are one a host."""

    def __init__(self, conninfos: Sequence[str], stream: Sent, states: str = CATALOGS) -> None:
        super().__init__(daemon=True)
        self._conninfos = conninfos
        self._stream = stream
        self._query = states.encode()
        self._place = 0
        self._connection: psycopg.Connection[Any] | None = None
        self._ended = threading.Event()
        self._states: dict[str, int] = {}
        self.stored: dict[int, float] = {}  # when a message was seen stored, or superseded
        self.went_back: list[str] = []
        self.outages = Outages()

    def run(self) -> None:
        worked_s = time.monotonic()
        while not self._ended.wait(EVERY_S):
            states = self._attempt()
            if states is None:
                self._place += 1
                continue
            self.outages.note(worked_s, time.monotonic())
            worked_s = time.monotonic()
            self._take(states, worked_s)
        if self._connection is not None:
            self._connection.close()

    def end(self) -> None:
        self._ended.set()
        self.join()

    def all_stored(self) -> bool:
        return not (self._stream.receipts.keys() - self.stored.keys())

    def settled_after(self, since_s: float) -> float:
        """From that moment until the last message that was late was stored."""
        receipts = self._stream.receipts
        late = [
            at_s - since_s
            for number, at_s in self.stored.items()
            if at_s > since_s and at_s - receipts.get(number, at_s) > LATE_S
        ]
        return max(late, default=0.0)

    def _attempt(self) -> dict[str, int] | None:
        timer = None
        try:
            if self._connection is None:
                at = self._conninfos[self._place % len(self._conninfos)]
                self._connection = psycopg.connect(at, connect_timeout=2, autocommit=True)
            timer = threading.Timer(PATIENCE_S, hang_up, [self._connection])
            timer.daemon = True
            timer.start()
            self._connection.execute("INSERT INTO faults.watch DEFAULT VALUES")
            return dict(self._connection.execute(self._query).fetchall())
        except psycopg.Error:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            return None
        finally:
            if timer is not None:
                timer.cancel()

    def _take(self, states: dict[str, int], now_s: float) -> None:
        for key, number in self._states.items():
            if states.get(key, 0) < number:
                self.went_back.append(f"{key}: from {number} to {states.get(key, 0)}")
        self._states = states
        for number in self._stream.receipts.keys() - self.stored.keys():
            if states.get(self._stream.key(number), 0) >= number:
                self.stored[number] = now_s
