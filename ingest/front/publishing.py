"""A thread that gives commands to the broker: it alone has the connection, and tells of each receipt.

What it cannot get rid of fails at once; nothing is tried again and nothing kept: who sent a command does that better.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import NamedTuple

import structlog

from ingest.config.settings import Config
from ingest.errors import IngestError, Unavailable
from ingest.transport.publisher import IN_FLIGHT_MAX, Publisher


class _Sending(NamedTuple):
    body: bytes | memoryview
    headers: dict[str, str]
    receipt: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class PublishingThread:
    """Of one process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._queue: queue.Queue[_Sending | None] = queue.Queue()
        self._publisher: Publisher | None = None
        self._thread = threading.Thread(target=self._run, name="publishing", daemon=True)
        self._thread.start()
        self.is_up = True  # as far as the last command told

    async def publish(self, body: bytes | memoryview, headers: dict[str, str]) -> None:
        """Until the broker has given a receipt. Raises Unavailable or Misconfigured."""
        loop = asyncio.get_running_loop()
        receipt: asyncio.Future[None] = loop.create_future()
        self._queue.put(_Sending(body, headers, receipt, loop))
        await receipt

    @property
    def depth(self) -> int:
        """Commands that wait for their turn."""
        return self._queue.qsize()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(self._config.connect_timeout_s)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while len(batch) < IN_FLIGHT_MAX:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._queue.put(None)
                    break
                batch.append(more)
            wanted = [one for one in batch if not one.receipt.cancelled()]
            if wanted:
                self._send(wanted)
        if self._publisher is not None:
            self._publisher.close()

    def _send(self, batch: list[_Sending]) -> None:
        """A connection may have died while nothing was sent: then a fresh one is tried, once."""
        receipted = 0
        for is_fresh in (self._publisher is None, True):
            rest, before = batch[receipted:], receipted

            def told(count: int, rest: list[_Sending] = rest, before: int = before) -> None:
                nonlocal receipted
                for one in rest[receipted - before : count]:
                    one.loop.call_soon_threadsafe(_resolve, one.receipt, None)
                receipted = before + count

            try:
                if self._publisher is None:
                    self._publisher = Publisher(self._config)
                self._publisher.publish(((one.body, one.headers) for one in rest), told)
                self.is_up = True
                return
            except (IngestError, OSError) as error:
                self._drop()
                failure = error if isinstance(error, IngestError) else Unavailable(f"the broker: {error}")
                if is_fresh or receipted:
                    break
        self.is_up = False
        structlog.get_logger().warning("broker_away", reason=str(failure), commands=len(batch) - receipted)
        for one in batch[receipted:]:
            one.loop.call_soon_threadsafe(_resolve, one.receipt, failure)

    def _drop(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None


def _resolve(receipt: asyncio.Future[None], failure: Exception | None) -> None:
    if receipt.done():
        return
    if failure is None:
        receipt.set_result(None)
    else:
        receipt.set_exception(failure)
