"""The live page: one file, and a stream of what it shows. Nothing is asked while nobody looks; all who look share one query."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ingest.config.planned import load_plan
from ingest.config.settings import Config
from ingest.core.overview import Sample, overview
from ingest.core.planned import Planned
from ingest.errors import IngestError
from ingest.front.bodies import read_body
from ingest.front.readers import Readers
from ingest.front.refusal import Refusal, text_response
from ingest.observe.asking import read_status
from ingest.store.connection import Connection
from ingest.store.node.freshness import fleet_freshness, quarantine_summary

EVERY_S = 2.0
FLEET_S_PART = 0.02  # asking the database takes at most so much of the time
VIEWERS_MAX = 50  # each is a connection
RETRY_BYTES_MAX = 4096
LEAVING = threading.Event()  # this process is told to stop: its streams end with the next event


class Live:
    """Of one process."""

    def __init__(self, config: Config, readers: Readers) -> None:
        self._config = config
        self._readers = readers
        self._viewers: set[asyncio.Queue[bytes]] = set()
        self._asking: asyncio.Task[None] | None = None
        self._last: bytes | None = None
        self._page, self._policy = _page()
        self._planned = load_plan(config.plan_file)

    async def answer(self, request: Request, parts: list[str]) -> Response | None:
        """None: there is no such path. Raises Refusal."""
        match parts:
            case [] if request.method in ("GET", "HEAD"):
                headers = {"Content-Security-Policy": self._policy, "Cache-Control": "no-cache"}
                return Response(self._page, media_type="text/html; charset=utf-8", headers=headers)
            case ["page", "events"] if request.method == "GET":
                if len(self._viewers) >= VIEWERS_MAX:
                    raise Refusal(503, f"{VIEWERS_MAX} look at this page already")
                headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
                return StreamingResponse(
                    self._events(request), media_type="text/event-stream", headers=headers
                )
            case ["page", "retry"] if request.method == "POST":
                return await self._retry(request)
        return None

    # What is shown

    async def _events(self, request: Request) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._viewers.add(queue)
        try:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask())
            elif self._last is not None:
                yield self._last
            # Nobody is told of one who leaves: what is sent to him goes nowhere.
            while not (LEAVING.is_set() or await request.is_disconnected()):
                yield await queue.get()
        finally:
            self._viewers.discard(queue)

    async def _ask(self) -> None:
        """For as long as somebody looks."""
        before: Sample | None = None
        fleet: dict[str, Any] = {"fleet": None, "quarantine": []}
        fleet_until_s = 0.0
        while self._viewers:
            began_s = time.monotonic()
            sample = await self._sample()
            if began_s >= fleet_until_s:
                fleet = await self._fleet()
                took_s = time.monotonic() - began_s
                fleet_until_s = began_s + max(EVERY_S, took_s / FLEET_S_PART)
            self._tell(_event(sample, before, fleet, self._planned))
            before = sample
            await asyncio.sleep(max(0.1, EVERY_S - (time.monotonic() - began_s)))
        self._last = None

    def _tell(self, event: bytes) -> None:
        self._last = event
        for queue in self._viewers:
            if queue.full():
                queue.get_nowait()  # whoever is slow sees the newest
            queue.put_nowait(event)

    async def _sample(self) -> Sample | None:
        try:
            return Sample(time.monotonic(), await asyncio.to_thread(read_status, self._config, 2.0))
        except IngestError:
            return None

    async def _fleet(self) -> dict[str, Any]:
        found: dict[str, Any] = {"fleet": None, "quarantine": []}
        try:
            async with self._readers.connection() as connection:
                found["fleet"] = await self._readers.step(fleet_freshness, connection)
                try:
                    found["quarantine"] = await self._readers.step(quarantine_summary, connection)
                except IngestError:
                    found["quarantine_away"] = "this role may not read it: ingest migrate --grant-serve-to"
        except (IngestError, Refusal) as error:
            found["away"] = str(error)
        return found

    # What may be done

    async def _retry(self, request: Request) -> Response:
        """Gives back to the queue what is in quarantine for one reason."""
        self._require_own_page(request)
        body = await read_body(request, bytes_max=RETRY_BYTES_MAX, silence_s=self._config.client_timeout_s)
        try:
            reason = str(json.loads(body)["reason"])
        except (ValueError, KeyError, TypeError):
            raise Refusal(400, 'a JSON object with a "reason" is needed') from None
        try:
            given = await asyncio.to_thread(_give_back, self._config, reason)
        except IngestError as error:
            return text_response(
                f"{error} ('ingest quarantine retry --reason {reason}' as a role that may)", 503
            )
        structlog.get_logger().info("quarantine_given_back", reason=reason, messages=given)
        return text_response(
            f"{given} given back to {self._config.destination}"
            if given
            else "none can be given back as it came: 'ingest quarantine list' says why"
        )

    def _require_own_page(self, request: Request) -> None:
        """Not what somebody else's page has a visitor's browser do. Raises Refusal."""
        person = request.scope.get("person")
        if self._config.bind_submitters or (person is not None and not person.sends_commands):
            raise Refusal(
                403, "whoever may speak for no other node gives nothing back: 'ingest quarantine retry' does"
            )
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if request.headers.get("x-puppet-ingest") != "page" or (
            origin is not None and origin.partition("://")[2] != host
        ):
            raise Refusal(403, "only this program's own page may ask for that")
        if request.url.scheme != "https" and not self._config.plain_http and not _is_of_this_machine(host):
            raise Refusal(421, "ask for the page by an address or by this machine's name")


def _give_back(config: Config, reason: str) -> int:
    from ingest.engine.giving_back import give_back
    from ingest.engine.run import open_database
    from ingest.transport.publisher import Publisher

    connection: Connection = open_database(config)
    try:
        publisher = Publisher(config)
        try:
            return give_back(connection, publisher, reason=reason).given
        finally:
            publisher.close()
    finally:
        connection.close()


def _is_of_this_machine(host: str) -> bool:
    name = re.sub(r":\d+$", "", host).strip("[]").lower()
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name in ("localhost", socket.gethostname().lower())


def _event(
    sample: Sample | None, before: Sample | None, fleet: dict[str, Any], planned: Planned | None
) -> bytes:
    try:
        found = overview(sample, before if sample else None, fleet["fleet"], fleet["quarantine"], planned)
    except (KeyError, TypeError, AttributeError, ValueError):  # whoever answers there is no engine
        found = overview(None, None, fleet["fleet"], fleet["quarantine"], planned)
    found |= {name: fleet[name] for name in ("away", "quarantine_away") if name in fleet}
    return b"data: " + json.dumps(found, default=str).encode() + b"\n\n"


def _page() -> tuple[bytes, str]:
    """The file, and a policy that lets in nothing but what is in it."""
    page = files(__package__).joinpath("page.html").read_bytes()
    hashes = {}
    for tag in (b"script", b"style"):
        found = re.search(b"<%s>(.*?)</%s>" % (tag, tag), page, re.DOTALL)
        assert found is not None
        hashes[tag] = base64.b64encode(hashlib.sha256(found[1]).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes[b'script']}'; style-src 'sha256-{hashes[b'style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy
