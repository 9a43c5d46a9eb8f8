"""Takes commands: reads the body, gives it to the broker in an envelope, and answers 200 when the broker has it for good.

The front keeps nothing: what the broker gave no receipt for is answered with 503, and its sender sends it again. To send a
command twice does no harm.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ingest.config.settings import Config
from ingest.core.times import parse_time
from ingest.errors import Misconfigured, Rejected, Unavailable
from ingest.front.admission import Admission, require_own
from ingest.front.asking import read_pairs
from ingest.front.bodies import Body, read_into
from ingest.front.command_rules import Command, read_command, refused
from ingest.front.mirror import Mirror
from ingest.front.publishing import PublishingThread
from ingest.front.readers import Readers
from ingest.front.refusal import Refusal, json_response
from ingest.store.query.running import is_stored

AT_ONCE_MAX = 64  # bodies that are large or being sent, as many as the publisher sends without a receipt; others wait unread
HEADER_LENGTH_MAX = 1024  # four times what a name of the DNS may have
POLL_S = 0.05  # how often it is looked whether a command has been stored


class _Payload(msgspec.Struct):
    certname: Any = None
    producer_timestamp: Any = None


class _Envelope(msgspec.Struct):
    """The older form, everything in the body."""

    command: Any = None
    version: Any = None
    payload: msgspec.Raw = msgspec.Raw(b"")


class _Slot:
    """Of a request, once its body takes room or is complete: who sends a little and then nothing is in nobody's way."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._is_taken = False

    async def take(self) -> None:
        if not self._is_taken:
            await self._slots.acquire()
            self._is_taken = True

    def release(self) -> None:
        if self._is_taken:
            self._slots.release()


class Commands:
    """Of one process."""

    def __init__(self, config: Config, readers: Readers, admission: Admission) -> None:
        self._config = config
        self._readers = readers
        self._admission = admission
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        self.publishing = PublishingThread(config)
        self.mirror = Mirror(config) if config.also else None

    async def take(self, request: Request) -> Response:
        """Raises Refusal."""
        if request.method != "POST":
            raise Refusal(405, "commands are sent by POST")
        self._admission.require_commands(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind and kind != "application/json":
            raise Refusal(415, f"content type {kind} not supported")
        parameters = read_pairs(request.scope["query_string"].decode("latin-1"))
        body, slot = Body(), _Slot(self._slots)
        try:
            if "command" in parameters:
                return await self._take_payload(request, body, slot, read_command(parameters))
            return await self._take_envelope(request, body, slot)
        finally:
            slot.release()
            body.close()

    async def _take_payload(self, request: Request, body: Body, slot: _Slot, command: Command) -> Response:
        head = {"command": command.name, "version": command.version, "certname": command.certname}
        body.write(json.dumps(head).encode()[:-1] + b',"payload":')
        begins_at = body.size
        await self._read(request, body, slot)
        is_empty = body.size == begins_at
        body.write(b"null}" if is_empty else b"}")
        view = body.view()
        payload = memoryview(view)[begins_at:-1]
        self._require_own(request, command, payload)
        return await self._publish(view, command, payload)

    async def _take_envelope(self, request: Request, body: Body, slot: _Slot) -> Response:
        await self._read(request, body, slot)
        view = body.view()
        found = _decode(_Envelope, view)
        if found is None or not (found.command and found.version and memoryview(found.payload).nbytes):
            raise refused(
                str(found.command or "") if found else "",
                None,
                "Command was submitted without query parameters (old format). "
                "The request body must be a JSON map with required keys: command, version, payload.",
            )
        payload = _decode(_Payload, found.payload)
        if payload is None:
            raise refused(str(found.command), None, "The payload value must be a JSON map.")
        given = {"command": found.command, "version": found.version, "certname": payload.certname}
        command = read_command(given)
        self._require_own(request, command, memoryview(found.payload))
        return await self._publish(view, command, memoryview(found.payload))

    def _require_own(self, request: Request, command: Command, payload: memoryview) -> None:
        """The engine reads the payload as we do here: of what stands there twice, the last counts."""
        if self._admission.submits_for_itself_alone(request):
            found = _decode(_Payload, payload)
            require_own(request, command.certname, found.certname if found else None)

    async def _read(self, request: Request, body: Body, slot: _Slot) -> None:
        await read_into(
            body,
            request,
            bytes_max=self._config.body_bytes_max,
            silence_s=self._config.client_timeout_s,
            before_large=slot.take,
        )
        await slot.take()

    async def _publish(self, view: bytes | memoryview, command: Command, payload: memoryview) -> Response:
        token = str(uuid.uuid4())
        try:
            await asyncio.wait_for(
                self.publishing.publish(view, _headers(command, token)), self._config.command_timeout_s
            )
        except TimeoutError:
            seconds = self._config.command_timeout_s
            raise Refusal(503, f"the broker gave no receipt within {seconds:g} s", is_json=True) from None
        except (Unavailable, Misconfigured) as error:
            raise Refusal(503, f"the broker is away: {error}", is_json=True) from error
        if self.mirror is not None:
            self.mirror.take(command, payload)
        if not command.wait_s:
            return json_response({"uuid": token})
        return await self._wait(token, command, _timestamp(command, payload))

    async def _wait(self, token: str, command: Command, timestamp: datetime | None) -> Response:
        """``secondsToWaitForCompletion``: until it is stored, and not only taken."""
        try:
            async with asyncio.timeout(command.wait_s):
                while timestamp is None or not await self._is_stored(command, timestamp):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return json_response({"uuid": token, "processed": False, "timed_out": True}, 503)
        return json_response({"uuid": token, "processed": True, "timed_out": False})

    async def _is_stored(self, command: Command, timestamp: datetime) -> bool:
        async with self._readers.connection() as connection:
            return await self._readers.step(is_stored, connection, command.name, command.certname, timestamp)

    async def close(self) -> None:
        await asyncio.to_thread(self.publishing.close)
        if self.mirror is not None:
            await asyncio.to_thread(self.mirror.close)


def _headers(command: Command, token: str) -> dict[str, str]:
    """So that a broker's tools show whose it is."""
    found = {"content-type": "application/json", "command": command.name, "command_uuid": token}
    for name, value in (("certname", command.certname), ("producer_timestamp", command.producer_timestamp)):
        # STOMP 1.0 cannot escape a line end: what might be one stays in the body alone. So does what is no name: a broker
        # ends the connection of all for a header that is too long.
        if value and len(value) <= HEADER_LENGTH_MAX and value.isascii() and value.isprintable():
            found[name] = value
    return found


def _timestamp(command: Command, payload: memoryview) -> datetime | None:
    found = _decode(_Payload, payload)
    for given in (found.producer_timestamp if found else None, command.producer_timestamp):
        try:
            if given:
                return parse_time(given, "producer_timestamp")
        except Rejected:
            continue
    return None


def _decode(type_: type[Any], raw: bytes | memoryview | msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
