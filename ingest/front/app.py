"""The application: which part of the interface a path belongs to, and that every error becomes an answer."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ingest.config.settings import Config
from ingest.core.query.pql import parse_pql
from ingest.errors import IngestError
from ingest.front.accepting import require_json
from ingest.front.admission import Admission
from ingest.front.answering import Answerer, ast_answer, refusal_of
from ingest.front.archive import Archive
from ingest.front.commands import Commands
from ingest.front.live import Live
from ingest.front.meta import Meta
from ingest.front.patience import ClientGone
from ingest.front.planning import Planner
from ingest.front.readers import Readers
from ingest.front.refusal import Refusal
from ingest.front.replica import Replica
from ingest.front.spooling import Spools


class Front:
    """An ASGI application; ``startup`` and ``shutdown`` are its lifespan."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._readers: Readers | None = None
        self._parts: dict[str, Any] = {}

    def startup(self) -> None:
        parse_pql(
            "nodes{}"
        )  # the parser takes a quarter of a second to make: not at the cost of who asks first
        self._admission = Admission(self._config)
        self._readers = Readers(self._config)
        self._planner = Planner(self._config, self._readers)
        self._replica = Replica(self._config)
        spools = Spools()
        self._answerer = Answerer(self._config, self._readers, self._replica, spools)
        self._commands = Commands(self._config, self._readers, self._admission)
        self._live_page = Live(self._config, self._readers)
        self._meta = Meta(self._config, self._readers, self._commands)
        self._archive = Archive(
            self._config, self._readers, self._commands.publishing, self._admission, spools
        )

    async def shutdown(self) -> None:
        await self._commands.close()
        assert self._readers is not None
        self._readers.close()
        self._replica.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        started = _Started(send)
        try:
            await self._serve(request, started)
        except ClientGone:
            scope.get("abort", lambda: None)()  # or what it has not taken would wait for it
        except (Refusal, IngestError) as error:
            await self._refuse(request, started, refusal_of(error))
        except Exception as error:
            structlog.get_logger().exception("request_failed", path=scope["path"][:200])
            await self._refuse(request, started, refusal_of(error))

    async def _refuse(self, request: Request, send: _Started, refusal: Refusal) -> None:
        if not send.started:
            await refusal.response()(request.scope, request.receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.startup()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, request: Request, send: Send) -> None:
        self._admission.require(request)
        parts = _parts(request.scope)
        match parts:
            case ["pdb", "query", "v4", *rest]:
                require_json(request)
                await self._query(request, send, rest)
            case ["pdb", "query", ("v1" | "v2" | "v3") as old, *_]:
                raise Refusal(404, f"The {old} API has been retired; please use v4")
            case ["pdb", "cmd", "v1"]:
                require_json(request)
                response = await self._commands.take(request)
                await response(request.scope, request.receive, send)
            case ["pdb", "admin", "v1", "archive"]:
                await self._archive.answer(request, send)
            case _:
                found = await self._live_page.answer(request, parts) or await self._meta.answer(
                    request, parts
                )
                if found is None:
                    raise Refusal(404, "Not Found")
                await found(request.scope, request.receive, send)

    async def _query(self, request: Request, send: Send, parts: list[str]) -> None:
        planned = await self._planner.plan(request, parts)
        if planned.asked.ast_only:
            await ast_answer(planned.asked)(request.scope, request.receive, send)
            return
        await self._answerer.answer(request, send, planned)


class _Started:
    """Knows whether anything has been sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Any) -> None:
        self.started = True
        await self._send(message)


def _parts(scope: Scope) -> list[str]:
    """Of the path, each decoded by itself: a title may hold slashes."""
    raw = scope.get("raw_path") or scope["path"].encode()
    parts = [unquote(part, errors="replace") for part in raw.decode("latin-1").split("/")[1:]]
    if parts[:2] == ["pdb", "query"]:
        return parts  # /facts/NAME/ asks for an empty value
    while parts and not parts[-1]:
        parts.pop()
    return parts
