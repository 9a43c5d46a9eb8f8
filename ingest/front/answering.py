"""Answers a query: the first rows before the status line, so that an error is still one; then all as the client takes them.

A client that leaves, at whatever moment, has its query cancelled. One that takes nothing is let go, and one that takes its time
keeps no connection waiting: what PostgreSQL still has for it is put away (spooling.py).
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Send

from ingest.config.settings import Config
from ingest.core.query import ast
from ingest.core.query.ast import BadQuery
from ingest.errors import Unavailable
from ingest.front.asking import Asked
from ingest.front.client import Client
from ingest.front.paths import Target
from ingest.front.patience import ClientGone, Patience
from ingest.front.planning import Planned
from ingest.front.readers import Readers, away
from ingest.front.refusal import JSON, Refusal, json_response, unknown
from ingest.front.replica import Header, Replica
from ingest.front.spooling import Spool, Spools, give_or_put_away, part
from ingest.store.connection import Connection, hang_up
from ingest.store.query.running import PIECE_BYTES, RunningQuery, TooSlow, cancel

TYPE, TOTAL, LENGTH = b"content-type", b"x-records", b"content-length"
END: Message = {"type": "http.response.body", "body": b"]"}
GIVEN_UP_S = 5.0  # until a cancelled statement has ended; then its connection is of no use


class Answerer:
    """Of one process."""

    def __init__(self, config: Config, readers: Readers, replica: Replica, spools: Spools) -> None:
        self._config = config
        self._readers = readers
        self._replica = replica
        self._spools = spools

    async def answer(self, request: Request, send: Send, planned: Planned) -> None:
        """Sends the whole answer. Raises Refusal or BadQuery while nothing has been sent."""
        client = Client(request.scope, send, self._config.client_timeout_s)
        await client.ready()  # who asks again before he has taken his last answer waits without a connection
        with Spool(self._spools) as spool:
            try:
                rest = await self._ask(request, planned, client, spool)
            except _TurnsOutLong:
                planned.is_long = True
                rest = await self._ask(request, planned, client, spool)
            for message in rest:  # the connection is another's now, and he may take his time
                await client.give(message)

    async def _ask(
        self, request: Request, planned: Planned, client: Client, spool: Spool
    ) -> Iterable[Message]:
        """What is left to be sent, without a connection. Raises _TurnsOutLong while nothing has been sent."""
        usual_s = self._config.query_timeout_s
        timeout_s = min(planned.asked.timeout_s or usual_s, usual_s)
        is_long = planned.is_long
        async with self._readers.connection(is_long=is_long) as connection:
            running = RunningQuery(connection, timeout_s, is_usual=timeout_s == usual_s)
            with ExitStack() as held, Patience(request.scope["leaving"], connection) as patience:
                lengthen = None if is_long else functools.partial(self._readers.lengthen, held)
                try:
                    said = await self._replica.look(request, patience, running)
                    return await _Answer(patience, running, client, spool, said, lengthen).give(planned)
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


class _TurnsOutLong(Exception):
    """The answer is long, and as many long ones are under way as may be: ask again as one of those."""


class _Answer:
    """To one client. What ``give`` returns is to be sent yet, and needs no connection."""

    def __init__(
        self,
        patience: Patience,
        running: RunningQuery,
        client: Client,
        spool: Spool,
        headers: list[Header],
        lengthen: Callable[[], Awaitable[bool]] | None,
    ) -> None:
        self._patience, self._running, self._client, self._spool = patience, running, client, spool
        self._headers = headers
        self._lengthen = lengthen  # None: it is known to be long
        self._size = 0

    async def give(self, planned: Planned) -> Iterable[Message]:
        target, asked, compiled = planned.target, planned.asked, planned.compiled
        if asked.explain or _counts(asked.query):  # which has rows where nothing is found
            await self._require(target)
        if asked.explain:
            plan = await self._patience.carry_out(self._running.explain(compiled))
            return _whole(b'[{"query plan":' + plan + b"}]", *self._headers)
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
            return _whole(_pretty(piece[0]) if asked.pretty else piece[0], *self._headers)
        headers = self._headers
        if self._running.total is not None:
            headers = [*headers, (TOTAL, b"%d" % self._running.total)]
        if self._lengthen is not None and not self._running.is_over:
            await self._require_short(piece)
        body = b"[" + _joined(piece, asked.pretty)
        if self._running.is_over:
            planned.is_long = False
            return _whole(body + b"]", *headers)
        with _too_late():
            return await self._rows(_start(*headers), body, planned)

    async def _require(self, target: Target) -> None:
        """Raises Refusal, 404, for a parent of which nothing is known."""
        if target.parent is not None and not await self._patience.carry_out(
            self._running.find(*target.parent)
        ):
            raise unknown(*target.parent)

    async def _require_short(self, piece: list[bytes]) -> None:
        """Adds to the first piece until it is clear that the answer is long. Raises _TurnsOutLong."""
        assert self._lengthen is not None
        while sum(map(len, piece)) < PIECE_BYTES and not self._running.is_over:
            piece += await self._patience.carry_out(self._running.next_piece())
        if not self._running.is_over and not await self._lengthen():
            raise _TurnsOutLong

    async def _rows(self, start: Message, body: bytes, planned: Planned) -> Iterable[Message]:
        self._size = len(body)
        await self._client.give(start)
        await give_or_put_away(self._client, self._spool, body, functools.partial(self._next, planned))
        return chain(map(part, self._spool.take()), (END,))

    async def _next(self, planned: Planned, turn: asyncio.Semaphore | None) -> bytes:
        piece = await self._patience.carry_out(self._running.next_piece(), turn)
        body = b"," + _joined(piece, planned.asked.pretty) if piece else b""
        self._size += len(body)
        if self._size > PIECE_BYTES:  # how slowly it comes says nothing: others may be the cause of that
            planned.is_long = True
        return body


@contextmanager
def _too_late() -> Iterator[None]:
    """For a status: the connection breaks off in the middle, and the client sees that it is not all."""
    try:
        yield
    except (BadQuery, TooSlow, Unavailable) as error:
        structlog.get_logger().warning("query_broke_off", reason=str(error))
        raise ClientGone from error


def _start(*headers: Header) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": [(TYPE, JSON.encode()), *headers]}


def _whole(body: bytes, *headers: Header) -> tuple[Message, Message]:
    return (
        _start((LENGTH, b"%d" % len(body)), *headers),
        {"type": "http.response.body", "body": body},
    )


def _joined(piece: list[bytes], is_pretty: bool) -> bytes:
    return b",\n".join(map(_pretty, piece)) if is_pretty else b",".join(piece)


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
