"""Answers a query: the first rows before the status line, so that an error is still one; then all as the client takes them.

A client that leaves, at whatever moment, has its query cancelled. One that takes nothing is let go.
"""

from __future__ import annotations

import asyncio
import json

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Send

from ingest.config.settings import Config
from ingest.core.query import ast
from ingest.core.query.ast import BadQuery
from ingest.errors import Unavailable
from ingest.front.asking import Asked
from ingest.front.paths import Target
from ingest.front.patience import ClientGone, Patience
from ingest.front.readers import Readers, away
from ingest.front.refusal import JSON, Refusal, json_response, unknown
from ingest.front.replica import Headers, Replica
from ingest.store.connection import Connection, hang_up
from ingest.store.query.compiling import Compiled
from ingest.store.query.running import RunningQuery, TooSlow, cancel, find_object

TYPE, TOTAL, LENGTH = b"content-type", b"x-records", b"content-length"
GIVEN_UP_S = 5.0  # until a cancelled statement has ended; then its connection is of no use


class Answerer:
    """Of one process."""

    def __init__(self, config: Config, readers: Readers, replica: Replica) -> None:
        self._config = config
        self._readers = readers
        self._replica = replica

    async def answer(
        self, request: Request, send: Send, target: Target, asked: Asked, compiled: Compiled
    ) -> None:
        """Sends the whole answer. Raises Refusal or BadQuery while nothing has been sent."""
        usual_s = self._config.query_timeout_s
        timeout_s = min(asked.timeout_s or usual_s, usual_s)
        async with self._readers.connection() as connection:
            running = RunningQuery(connection, timeout_s, is_usual=timeout_s == usual_s)
            with Patience(request.scope["leaving"], connection) as patience:
                try:
                    headers = await self._replica.look(request, patience, running)
                    await _Answer(self._config, patience, running, send, headers).give(
                        target, asked, compiled
                    )
                finally:
                    if running.is_under_way:
                        await asyncio.shield(self._end(connection, running))

    async def _end(self, connection: Connection, running: RunningQuery) -> None:
        """The connection is nobody else's before PostgreSQL has ended."""
        try:
            if running.is_carried_out:
                await self._readers.step(cancel, connection)
            with Patience(None, connection) as patience:
                async with asyncio.timeout(GIVEN_UP_S):
                    await patience.carry_out(running.close())
        except TimeoutError:
            hang_up(connection)
            connection.close()


class _Answer:
    """To one client."""

    def __init__(
        self, config: Config, patience: Patience, running: RunningQuery, send: Send, headers: Headers
    ) -> None:
        self._config, self._patience, self._running, self._send = config, patience, running, send
        self._headers = headers

    async def give(self, target: Target, asked: Asked, compiled: Compiled) -> None:
        if asked.explain or _counts(asked.query):  # which has rows where nothing is found
            await self._require(target)
        if asked.explain:
            plan = await self._patience.carry_out(self._running.explain(compiled))
            await self._whole(b'[{"query plan":' + plan + b"}]")
            return
        try:
            piece = await self._patience.carry_out(
                self._running.begin(compiled, with_total=asked.include_total)
            )
        except BadQuery:
            await self._require(target)
            raise
        if not piece:  # rows are of a parent that is there
            await self._require(target)
        if target.single is not None or target.is_first_value:
            if not piece:
                raise unknown(*(target.single or target.parent or ("", "")))
            await self._whole(_pretty(piece[0]) if asked.pretty else piece[0])
            return
        await self._rows(piece, is_pretty=asked.pretty)

    async def _require(self, target: Target) -> None:
        """Raises Refusal, 404, for a parent of which nothing is known."""
        if target.parent is not None and not await self._patience.carry_out(
            find_object(self._patience.connection, *target.parent)
        ):
            raise unknown(*target.parent)

    async def _rows(self, piece: list[bytes], *, is_pretty: bool) -> None:
        running = self._running
        total = [] if running.total is None else [(TOTAL, b"%d" % running.total)]
        between = b",\n" if is_pretty else b","
        body = b"[" + between.join(map(_pretty, piece) if is_pretty else piece)
        if running.is_over:
            await self._whole(body + b"]", *total)
            return
        await self._give(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(TYPE, JSON.encode()), *self._headers, *total],
            }
        )
        try:
            while piece:
                await self._give({"type": "http.response.body", "body": body, "more_body": True})
                await asyncio.sleep(0)  # whoever else waits, however fast the rows come
                piece = await self._patience.carry_out(running.next_piece())
                body = b"," + between.join(map(_pretty, piece) if is_pretty else piece)
        except (BadQuery, TooSlow, Unavailable) as error:
            # Too late for a status: the connection breaks off in the middle, and the client sees that it is not all.
            structlog.get_logger().warning("query_broke_off", reason=str(error))
            raise ClientGone from error
        await self._give({"type": "http.response.body", "body": b"]"})

    async def _whole(self, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        shown = [(TYPE, JSON.encode()), (LENGTH, b"%d" % len(body)), *self._headers, *headers]
        await self._give({"type": "http.response.start", "status": 200, "headers": shown})
        await self._give({"type": "http.response.body", "body": body})

    async def _give(self, message: Message) -> None:
        """Waits until the client has taken what was sent before."""
        try:
            async with asyncio.timeout(self._config.client_timeout_s):
                await self._send(message)
        except TimeoutError:
            raise ClientGone from None


def _counts(query: ast.Query) -> bool:
    return any(isinstance(column, ast.Function) for column in query.columns or ())


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
