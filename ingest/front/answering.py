"""Answers a query: the first rows before the status line, so that an error is still one; then all as the client takes them.

A client that leaves, at whatever moment, has its query cancelled. One that takes nothing is let go.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Send

from ingest.config.settings import Config
from ingest.core.query.ast import BadQuery
from ingest.errors import Unavailable
from ingest.front.asking import Asked
from ingest.front.paths import Target
from ingest.front.readers import Readers, away
from ingest.front.refusal import JSON, Refusal, json_response, unknown
from ingest.store.connection import Connection
from ingest.store.query.asked import gives_one_row
from ingest.store.query.compiling import Compiled
from ingest.store.query.running import RunningQuery, TooSlow, cancel, object_exists

TOTAL_HEADER = b"x-records"
GIVEN_UP_S = 5.0  # until a cancelled statement has ended; then its connection is of no use


class ClientGone(Exception):
    """The client has left, or takes nothing: nobody is to be told."""


class Answerer:
    """Of one process."""

    def __init__(self, config: Config, readers: Readers) -> None:
        self._config = config
        self._readers = readers

    async def answer(
        self, request: Request, send: Send, target: Target, asked: Asked, compiled: Compiled
    ) -> None:
        """Sends the whole answer. Raises Refusal or BadQuery while nothing has been sent."""
        usual_s = self._config.query_timeout_s
        timeout_s = min(asked.timeout_s or usual_s, usual_s)
        async with self._readers.connection() as connection, _present(request, connection) as client:
            if target.parent is not None and not await client.wait(
                self._readers.step(object_exists, connection, *target.parent)
            ):
                raise unknown(*target.parent)
            running = RunningQuery(connection, timeout_s, is_usual=timeout_s == usual_s)
            try:
                await self._run(client, running, send, target, asked, compiled)
            finally:
                await asyncio.shield(self._readers.step(running.close))

    async def _run(
        self,
        client: _Client,
        running: RunningQuery,
        send: Send,
        target: Target,
        asked: Asked,
        compiled: Compiled,
    ) -> None:
        if asked.explain:
            plan = await client.wait(self._readers.step(running.explain, compiled))
            await _send_whole(client.request, send, b'[{"query plan":' + plan + b"}]")
            return
        is_alone = target.single is not None or target.is_first_value
        is_one_row = is_alone or gives_one_row(asked.query)
        piece = await client.wait(
            self._readers.step(
                lambda: running.begin(compiled, with_total=asked.include_total, is_one_row=is_one_row)
            )
        )
        if is_alone:
            if not piece:
                raise unknown(*(target.single or target.parent or ("", "")))
            row = _first_value(piece[0]) if target.is_first_value else piece[0]
            await _send_whole(client.request, send, _pretty(row) if asked.pretty else row)
            return
        await self._stream(client, running, send, asked, piece)

    async def _stream(
        self, client: _Client, running: RunningQuery, send: Send, asked: Asked, piece: list[bytes]
    ) -> None:
        headers = [(b"content-type", JSON.encode())]
        if running.total is not None:
            headers.append((TOTAL_HEADER, str(running.total).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        opening = b"["
        try:
            while piece:
                rows = map(_pretty, piece) if asked.pretty else piece
                body = opening + (b",\n" if asked.pretty else b",").join(rows)
                message: Message = {"type": "http.response.body", "body": body, "more_body": True}
                # PostgreSQL makes the next piece while the client takes this one.
                coming = asyncio.ensure_future(self._readers.step(running.next_piece))
                try:
                    await self._give(client, send, message)
                except BaseException:
                    await client.end(coming)
                    raise
                opening = b","
                piece = await client.wait(coming)
        except (BadQuery, TooSlow, Unavailable) as error:
            # Too late for a status: the connection breaks off in the middle, and the client sees that it is not all.
            structlog.get_logger().warning("query_broke_off", reason=str(error))
            raise ClientGone from error
        end = b"[]" if opening == b"[" else b"]"
        await self._give(client, send, {"type": "http.response.body", "body": end})

    async def _give(self, client: _Client, send: Send, message: Message) -> None:
        """Waits until the client has taken what was sent before."""
        try:
            await asyncio.wait_for(client.wait(send(message)), self._config.client_timeout_s)
        except TimeoutError:
            raise ClientGone from None


class _Client:
    """Whoever asks: what is waited for ends when he leaves."""

    def __init__(self, request: Request, connection: Connection) -> None:
        self.request = request
        self._connection = connection
        self._left = asyncio.ensure_future(leaves(request))

    async def wait(self, work: Awaitable[Any]) -> Any:
        doing = asyncio.ensure_future(work)
        try:
            await asyncio.wait({doing, self._left}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise ClientGone
            return doing.result()
        finally:
            if not doing.done():
                await self.end(doing)

    async def end(self, doing: asyncio.Future[Any]) -> None:
        """Not before its thread has let go of the connection."""
        if not doing.done():
            await asyncio.shield(asyncio.to_thread(cancel, self._connection))
            await asyncio.wait({doing}, timeout=GIVEN_UP_S)
            doing.cancel()
        if doing.done() and not doing.cancelled():
            doing.exception()  # nobody else will ask for it

    def close(self) -> None:
        self._left.cancel()


@asynccontextmanager
async def _present(request: Request, connection: Connection) -> AsyncIterator[_Client]:
    client = _Client(request, connection)
    try:
        yield client
    finally:
        client.close()


async def leaves(request: Request) -> None:
    """Its body has been read: what comes now is that it has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _send_whole(request: Request, send: Send, body: bytes) -> None:
    await Response(body, media_type=JSON)(request.scope, request.receive, send)


def _first_value(row: bytes) -> bytes:
    found = next(iter(json.loads(row).values()))
    return json.dumps(found, ensure_ascii=False).encode()


def _pretty(row: bytes) -> bytes:
    return json.dumps(json.loads(row), ensure_ascii=False, indent=2).encode()


def refusal_of(error: Exception) -> Refusal:
    """What the client is told of an error."""
    match error:
        case Refusal():
            return error
        case BadQuery():
            return Refusal(400, str(error))
        case TooSlow():
            return Refusal(503, f"{error} (query_timeout_s)")
        case Unavailable():
            return away(error)
    return Refusal(500, "An unexpected error occurred: the log of 'ingest serve' tells more")


def ast_answer(asked: Asked) -> Response:
    """``ast_only``: the query as it was understood."""
    return json_response(asked.given)
