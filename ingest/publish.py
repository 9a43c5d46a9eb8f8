"""``ingest publish``: sends catalogs to the queue, persistent, and waits for the broker's receipt of each."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable

from ingest.config import Config
from ingest.connection import Connection
from ingest.errors import Misconfigured, Unavailable
from ingest.receiver import open_connection
from ingest.transports import endpoints

IN_FLIGHT_MAX = 64  # messages without a receipt; enough to hide the broker's round trip


class Publisher:
    """A connection that only sends."""

    def __init__(self, config: Config) -> None:
        failure: Exception | None = None
        self._connection: Connection | None = None
        for endpoint in endpoints(config):
            try:
                self._connection = open_connection(config, endpoint, None)
                break
            except (Unavailable, Misconfigured) as error:
                failure = failure or error
        if self._connection is None:
            raise failure or Misconfigured("--queue-source", "it names no broker")
        self._destination = config.destination
        self._timeout_s = config.connect_timeout_s + 25  # a broker that syncs to disk takes its time
        self._sent = 0

    def publish(
        self, bodies: Iterable[tuple[bytes, dict[str, str]]], receipted: Callable[[int], None] = lambda n: None
    ) -> int:
        """Sends each body with its headers; returns how many got a receipt, which is all of them.

        Raises Unavailable when the broker goes away or keeps a receipt back: what was sent without one may
        be there or not.
        """
        connection = self._connection
        assert connection is not None
        done = 0
        for body, headers in bodies:
            self._sent += 1
            connection.send_message(self._destination, body, headers | {"receipt": f"m{self._sent}"})
            done += self._collect(IN_FLIGHT_MAX, receipted, done)
        done += self._collect(0, receipted, done)
        return done

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _collect(self, allowed: int, receipted: Callable[[int], None], before: int) -> int:
        """Waits until at most ``allowed`` messages lack a receipt; returns how many came."""
        connection = self._connection
        assert connection is not None
        got = 0
        deadline = time.monotonic() + self._timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            while True:
                connection.flush()
                for _ in connection.read():
                    pass
                if connection.receipts:
                    got += len(connection.receipts)
                    connection.receipts.clear()
                    receipted(before + got)
                    deadline = time.monotonic() + self._timeout_s
                if self._in_flight(before + got) <= allowed and not connection.wants_write:
                    return got
                if time.monotonic() > deadline:
                    raise Unavailable(f"{connection.endpoint} sends no receipts")
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
                selector.modify(connection, events)
                selector.select(0.5)

    def _in_flight(self, done: int) -> int:
        return self._sent - done
