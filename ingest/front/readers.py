"""The connections that queries are carried out on: so many and no more, and a queue with a limit before them.

A query is carried out by the event loop (patience.py); what blocks, as opening a connection does, by a thread (``step``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import TypeVar

from ingest.config.settings import Config
from ingest.errors import Unavailable
from ingest.front.refusal import Refusal
from ingest.store.connection import Connection, hang_up
from ingest.store.query.running import open_reader

T = TypeVar("T")


class Readers:
    """Of one process, to one database: that of queries where none is named."""

    def __init__(self, config: Config, conninfo: str | None = None) -> None:
        self._config = config
        self._conninfo = conninfo or config.http_database or config.database
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(config.http_queries_max)
        self._long = asyncio.Semaphore(max(1, config.http_queries_max // 2))
        self._waiting = 0
        self._threads = ThreadPoolExecutor(config.http_queries_max, "query")

    async def step(self, function: Callable[..., T], *arguments: object) -> T:
        """Carries out what blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    @asynccontextmanager
    async def connection(self, *, is_long: bool = False) -> AsyncIterator[Connection]:
        """One that nobody else has. ``is_long``: for an answer that took long to give before: half of them are kept for others.
        Raises Refusal when too many wait, Unavailable when the database is away."""
        async with AsyncExitStack() as held:
            for slots in (self._long, self._slots) if is_long else (self._slots,):
                await self._take_slot(slots)
                held.callback(slots.release)
            # The last one is left to whoever asks briefly: to open another takes long while long answers are given.
            is_there = len(self._idle) > is_long
            opened = self._idle.pop() if is_there else await self.step(self._open)
            try:
                yield opened
            except asyncio.CancelledError:
                hang_up(opened)  # a thread may be at work on it: it shall be nobody else's
                opened.close()
                raise
            finally:
                if opened.closed or opened.broken:
                    self._drop_idle()  # the others were opened to the same server
                else:
                    self._idle.append(opened)

    async def lengthen(self, held: ExitStack) -> bool:
        """Whether an answer that turns out to be long may go on as one; ``held`` is closed when it has been given."""
        if self._long.locked():
            return False
        await self._long.acquire()
        held.callback(self._long.release)
        return True

    async def _take_slot(self, slots: asyncio.Semaphore) -> None:
        if slots.locked():
            if self._waiting >= self._config.http_waiting_max:
                raise Refusal(503, f"{self._waiting} queries wait already: try again later")
            self._waiting += 1
            try:
                await asyncio.wait_for(slots.acquire(), self._config.http_waiting_s)
            except TimeoutError:
                raise Refusal(503, "too many queries are under way: try again later") from None
            finally:
                self._waiting -= 1
        else:
            await slots.acquire()

    def _open(self) -> Connection:
        return open_reader(
            self._conninfo,
            connect_timeout_s=self._config.connect_timeout_s,
            timeout_s=self._config.query_timeout_s,
        )

    def _drop_idle(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._drop_idle()


def away(error: Unavailable) -> Refusal:
    """Puppet's termini try the next server on it."""
    return Refusal(503, f"the database is away: {error}")
