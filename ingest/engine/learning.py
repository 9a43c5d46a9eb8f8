"""What is stored of each node, for the decoders: all of it at the start, then what other engines on the database have stored.

A decoder that does not know it decodes a catalog that is unchanged as a whole, at three times the cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ingest.store.catalog.reading import StoredDigest, stored_digests, written_until
from ingest.store.connection import Connection
from ingest.store.engines import at_work

# After work, at most so often, and for so much of the time: to look takes longer where there are more nodes. A node's next run is
# half an hour away.
LOOKS_EVERY_S = 2.0
LOOKING_SHARE = 0.01
COUNTS_EVERY_S = 10.0  # whether there are other engines


class Learning:
    """Of one instance."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: str | None = None  # the oldest transaction that was not seen whole the last time
        self._looks_at_s = self._counts_at_s = 0.0
        self._is_owed = True  # somebody has been at work since

    def worked(self) -> None:
        """A batch has been settled; others have had as many, if there are others."""
        self._is_owed = True

    def due_in_s(self) -> float | None:
        """None: not before there is work again."""
        return max(0.0, self._looks_at_s - self._now()) if self._is_owed else None

    def news(self, connection: Connection) -> list[StoredDigest]:
        """All the first time; then what is new, where others are at work. Raises IngestError."""
        begun_s, self._is_owed = self._now(), False
        if self._since is not None and begun_s >= self._counts_at_s:
            self._counts_at_s = begun_s + COUNTS_EVERY_S
            if sum(at_work(connection).values()) < 2:
                self._looks_at_s = self._counts_at_s
                return []
        until = written_until(connection)
        found = stored_digests(connection, self._since)
        self._since = until
        took_s = self._now() - begun_s
        self._looks_at_s = begun_s + max(LOOKS_EVERY_S, took_s / LOOKING_SHARE)
        return found
