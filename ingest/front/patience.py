"""Waits for PostgreSQL in the event loop, and no longer than the client waits."""

from __future__ import annotations

import asyncio
import select
from types import TracebackType
from typing import TypeVar

from ingest.store.connection import Connection
from ingest.store.query.wire import Steps

T = TypeVar("T")


class ClientGone(Exception):
    """The client has left, or takes nothing: nobody is to be told."""


class Patience:
    """Carries out what a connection does for a client. ``leaving`` is done when he has left; None: he cannot."""

    def __init__(self, leaving: asyncio.Future[None] | None, connection: Connection) -> None:
        self.connection = connection
        self._leaving = leaving
        self._loop = asyncio.get_running_loop()
        self._awaited: asyncio.Future[None] | None = None

    def __enter__(self) -> Patience:
        if self._leaving is not None:
            self._leaving.add_done_callback(self._left)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leaving is not None:
            self._leaving.remove_done_callback(self._left)

    async def carry_out(self, steps: Steps[T], turn: asyncio.Semaphore | None = None) -> T:
        """Raises ClientGone as soon as he leaves; the statement is then still under way. ``turn``: of those who have it, one
        is at work whenever the event loop comes round, and not all of them."""
        while True:
            try:
                wanted = next(steps)
            except StopIteration as end:
                found: T = end.value
                return found
            await self._ready(wanted)
            if turn is not None:
                async with turn:
                    await asyncio.sleep(0)

    async def _ready(self, wanted: int) -> None:
        if self._leaving is not None and self._leaving.done():
            raise ClientGone
        awaited = self._awaited = self._loop.create_future()
        socket = self.connection.fileno()
        self._loop.add_reader(socket, _wake, awaited)
        if wanted & select.POLLOUT:
            self._loop.add_writer(socket, _wake, awaited)
        try:
            await awaited
        finally:
            self._loop.remove_reader(socket)
            if wanted & select.POLLOUT:
                self._loop.remove_writer(socket)

    def _left(self, _: object) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_exception(ClientGone())


def _wake(awaited: asyncio.Future[None]) -> None:
    if not awaited.done():
        awaited.set_result(None)
