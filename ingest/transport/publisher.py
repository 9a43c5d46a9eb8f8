"""``ingest publish``: sends messages to the queues of their kinds, persistent, and waits for the broker's receipt of each."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from ingest.config.kinds import importance
from ingest.config.settings import Config
from ingest.core.catalog.formats import Command, skim
from ingest.core.delivery.importance import FIRST_BYTES
from ingest.errors import Rejected, Unavailable
from ingest.transport.protocol import connect_first

HEADERS = (
    "certname",
    "producer",
    "producer_timestamp",
    "transaction_uuid",
    "environment",
    "job_id",
    "command",
)
IN_FLIGHT_MAX = 64  # messages without a receipt; enough to hide the broker's round trip


class Publisher:
    """A connection that only sends."""

    def __init__(self, config: Config) -> None:
        # No heart-beats: nobody would send them while the next body is made.
        self._connection = connect_first(config, heartbeats=False)
        self._destinations = config.destinations
        self._rank_of = importance().of_message
        self.used: dict[str, int] = {}  # the queues, and how many messages went to each
        self._timeout_s = config.connect_timeout_s + 25  # a broker that syncs to disk takes its time
        self._sent = self._receipted = 0

    def publish(
        self,
        bodies: Iterable[tuple[bytes | memoryview, dict[str, str]]],
        receipted: Callable[[int], None] = lambda n: None,
    ) -> int:
        """Sends each body with its headers; returns how many got a receipt, which is all of them. A view
        must hold until the next one is asked for.

        Raises Unavailable when the broker goes away or keeps a receipt back: what was sent without one may
        be there or not.
        """
        connection = self._connection
        before = self._receipted
        for body, headers in bodies:
            self._sent += 1
            destination = self._destinations[self._rank_of(headers, bytes(body[:FIRST_BYTES]))]
            self.used[destination] = self.used.get(destination, 0) + 1
            connection.send_message(destination, body, headers | {"receipt": f"m{self._sent}"})
            self._collect(IN_FLIGHT_MAX)
            receipted(self._receipted - before)
        self._collect(0)
        receipted(self._receipted - before)
        return self._receipted - before

    def close(self) -> None:
        self._connection.close()

    def _collect(self, allowed: int) -> None:
        """Waits until at most ``allowed`` messages lack a receipt."""
        connection = self._connection
        deadline = time.monotonic() + self._timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            while True:
                connection.flush()
                for _ in connection.read():
                    pass  # nobody subscribed: only receipts come
                if connection.receipts:
                    self._receipted += len(connection.receipts)
                    connection.receipts.clear()
                    deadline = time.monotonic() + self._timeout_s
                if self._sent - self._receipted <= allowed and not connection.wants_write:
                    return
                if time.monotonic() > deadline:
                    raise Unavailable(f"{connection.server or 'the broker'} sends no receipts")
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
                selector.modify(connection, events)
                selector.select(0.5)


def headers_of(body: bytes) -> dict[str, str]:
    """What the message's headers can say of a catalog, so that a broker's tools show whose it is.

    A body that nobody can read is sent as it is: telling that is the engine's task.
    """
    found = {"content-type": "application/json"}
    nobody = datetime.min.replace(tzinfo=UTC)
    try:
        skimmed = skim(body, {}, nobody)
    except Rejected:
        return found
    said = skimmed if isinstance(skimmed, Command) else skimmed.header
    for name in HEADERS:
        value = getattr(said, name, None)
        if isinstance(value, datetime):
            value = None if value == nobody else value.isoformat()
        # STOMP 1.0 cannot escape a line end: what might be one stays in the body alone.
        if value and value.isascii() and value.isprintable():
            found[name] = value
    return found
