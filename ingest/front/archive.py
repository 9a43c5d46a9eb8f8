"""/pdb/admin/v1/archive: all that is stored as a .tgz, and the way back, as ``puppet db export`` and ``import`` ask for it.

Both run as long as the client takes part, and keep a piece of the archive in memory. What comes in goes to the queue.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from ingest.config.settings import Config
from ingest.core.archive.anonymize import PROFILES
from ingest.core.archive.members import Command
from ingest.core.archive.tar import ArchiveReader, Broken, Member
from ingest.engine.archiving import Inspector, Problem, Tally, headers_of
from ingest.errors import IngestError, Misconfigured, Unavailable
from ingest.front.admission import Admission
from ingest.front.asking import read_pairs
from ingest.front.bodies import pieces
from ingest.front.client import Client
from ingest.front.multipart import PartReader, boundary_of
from ingest.front.patience import ClientGone
from ingest.front.publishing import PublishingThread
from ingest.front.readers import Readers
from ingest.front.refusal import Refusal, json_response
from ingest.front.spooling import Spool, Spools, give_or_put_away, part
from ingest.store.archive.exporting import Export

PART = "archive"
PIECE_BYTES = 128 * 1024  # what is sent at once
BATCH_MESSAGES, BATCH_BYTES = 32, 8 * 1024 * 1024  # with the broker and without its receipt
IMPORTS_MAX, EXPORTS_MAX = 1, 2  # of one process: each decodes, or compresses, as fast as a core can
NOTHING = b""


class Archive:
    """Of one process."""

    def __init__(
        self,
        config: Config,
        readers: Readers,
        publishing: PublishingThread,
        admission: Admission,
        spools: Spools,
    ) -> None:
        self._config, self._readers, self._publishing = config, readers, publishing
        self._admission, self._spools = admission, spools
        self._imports, self._exports = asyncio.Semaphore(IMPORTS_MAX), asyncio.Semaphore(EXPORTS_MAX)

    async def answer(self, request: Request, send: Send) -> None:
        """Raises Refusal, Unavailable, ClientGone."""
        if request.method == "GET":
            await self._send(request, send)
        elif request.method == "POST":
            self._require_import(request)
            async with _one_of(self._imports):
                response = await _Import(self._config, self._publishing).take(request)
                await response(request.scope, request.receive, send)
        else:
            raise Refusal(405, "an archive is asked for by GET, and sent by POST")

    def _require_import(self, request: Request) -> None:
        """Raises Refusal: an archive is commands, and for any node."""
        self._admission.require_commands(request)
        if self._admission.submits_for_itself_alone(request):
            raise Refusal(
                403,
                "an archive has commands for other nodes (submitters_allowlist has the exceptions)",
                is_json=True,
            )

    async def _send(self, request: Request, send: Send) -> None:
        profile = read_pairs(request.scope["query_string"].decode("latin-1")).get("anonymization_profile")
        profile = profile or "none"
        if profile not in PROFILES:
            raise Refusal(400, f"anonymization_profile is one of {', '.join(PROFILES)}")
        client = Client(request.scope, send, self._config.client_timeout_s)
        with Spool(self._spools) as spool:
            async with _one_of(self._exports), self._readers.connection(is_long=True) as connection:
                export = Export(profile, secrets.token_bytes(32), time.time())
                parts = _gathered(export.pieces(connection))
                try:
                    first = await self._readers.step(next, parts, NOTHING)
                    await send({"type": "http.response.start", "status": 200, "headers": _headers()})
                    await self._stream(client, spool, parts, first)
                finally:
                    await asyncio.shield(self._readers.step(parts.close))
            for piece in spool.take():  # nobody waits for him now
                await client.give(part(piece))
        await send({"type": "http.response.body", "body": b""})

    async def _stream(self, client: Client, spool: Spool, parts: Iterator[bytes], first: bytes) -> None:
        async def more(turn: object) -> bytes:
            client.require_here()
            return await self._readers.step(next, parts, NOTHING)

        try:
            await give_or_put_away(client, spool, first, more)
        except IngestError as error:
            # Too late for a status: the connection breaks off, and the client sees that it is not all.
            structlog.get_logger().warning("archive_broke_off", reason=str(error))
            raise ClientGone from error


@asynccontextmanager
async def _one_of(slots: asyncio.Semaphore) -> AsyncIterator[None]:
    """Raises Refusal where all are taken."""
    if slots.locked():
        raise Refusal(503, "another archive is under way: try again later", is_json=True)
    async with slots:
        yield


class _Import:
    """One that comes in."""

    def __init__(self, config: Config, publishing: PublishingThread) -> None:
        self._config, self._publishing = config, publishing
        self._tally = Tally()
        self._batch: list[Command] = []
        self._batch_bytes = 0

    async def take(self, request: Request) -> Response:
        """The answer when the broker has all of it. Raises Refusal."""
        part = PartReader(boundary_of(request.headers.get("content-type", "")), PART)
        reader, inspector = ArchiveReader(self._config.body_bytes_max), Inspector(self._config)
        broken: Broken | None = None
        async for piece in pieces(request, self._config.client_timeout_s):
            for plain in part.feed(piece) if broken is None else ():
                try:
                    await self._read(reader, inspector, plain)
                except Broken as error:
                    broken = error  # the rest is heard out: many read no answer before they have sent all
        if not part.found:
            raise Refusal(400, f"the multipart body has no part named '{PART}'", is_json=True)
        try:
            if broken is None:
                reader.finish(is_cut=not part.is_whole)
        except Broken as error:
            broken = error
        await self._publish()
        return self._told(broken)

    async def _read(self, reader: ArchiveReader, inspector: Inspector, plain: bytes) -> None:
        """In a thread: to unpack and to decode takes its time, and others shall have answers meanwhile."""
        members = reader.feed(plain)
        while True:
            member: Member | None = await asyncio.to_thread(next, members, None)
            if member is None:
                return
            found = await asyncio.to_thread(inspector.look, member, datetime.now(UTC))
            if isinstance(found, Problem):
                self._tally.miss(found)
            elif found is not None:
                self._batch.append(found)
                self._batch_bytes += len(found.body)
            if len(self._batch) >= BATCH_MESSAGES or self._batch_bytes >= BATCH_BYTES:
                await self._publish()

    async def _publish(self) -> None:
        """Raises Refusal: what has come in is harmless, and sent again it is so too."""
        sending = [self._publishing.publish(one.body, headers_of(one)) for one in self._batch]
        try:
            async with asyncio.timeout(self._config.command_timeout_s):
                await asyncio.gather(*sending)
        except (TimeoutError, Unavailable, Misconfigured) as error:
            in_already = self._tally.fit.total()
            reason = (
                str(error) or f"no receipt within {self._config.command_timeout_s:g} s (command_timeout_s)"
            )
            text = f"the broker is away: {reason}; {in_already} files are in: send the archive again"
            raise Refusal(503, text, is_json=True) from error
        for one in self._batch:
            self._tally.fit[one.folder] += 1
        self._batch.clear()
        self._batch_bytes = 0

    def _told(self, broken: Broken | None) -> Response:
        tally = self._tally
        answer: dict[str, Any] = {
            "ok": broken is None,
            "imported": dict(tally.fit),
            "unfit": dict(tally.unfit),
            "problems": [str(problem) for problem in tally.problems],
        }
        structlog.get_logger().info(
            "archive_imported", imported=tally.fit.total(), unfit=tally.missed, broken=str(broken or "")
        )
        if broken is not None:
            return json_response(answer | {"error": f"the archive is broken: {broken}"}, 400)
        return json_response(answer)


def _gathered(parts: Iterator[bytes]) -> Generator[bytes, None, None]:
    """In pieces of some size: a compressor gives a few bytes at a time."""
    found, size = [], 0
    for one in parts:
        found.append(one)
        size += len(one)
        if size >= PIECE_BYTES:
            yield b"".join(found)
            found, size = [], 0
    if found:
        yield b"".join(found)


def _headers() -> list[tuple[bytes, bytes]]:
    made_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name = f"puppetdb-export-{made_at}.tgz"
    return [
        (b"content-type", b"application/octet-stream"),
        (b"content-disposition", f'attachment; filename="{name}"'.encode()),
    ]
