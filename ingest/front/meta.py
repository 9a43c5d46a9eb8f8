"""What is asked about the service itself: its version, its time, its state, and the few numbers that dashboards read.

The version is that of the interface, which clients compare with what they need; our own is in the ``Server`` header.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ingest.config.settings import Config
from ingest.errors import IngestError
from ingest.front.accepting import require_json
from ingest.front.commands import Commands
from ingest.front.mbeans import MBeans
from ingest.front.readers import Readers
from ingest.front.refusal import Refusal, json_response, text_response
from ingest.store.query.running import count_population

INTERFACE_VERSION = "7.12.1"
DATABASE_ANSWERS_S = 2.0  # PuppetDB waits a second; a monitor waits longer than this
SERVICE, OF_STATUS = "puppetdb-status", "status-service"
LEVELS = ("critical", "info", "debug")
_OF_STATUS = {
    "service_version": "1.1.1", "service_status_version": 1, "detail_level": "info", "state": "running", "status": {},
    "active_alerts": [],
}  # fmt: skip


class Meta:
    """Of one process."""

    def __init__(self, config: Config, readers: Readers, commands: Commands) -> None:
        self._readers = readers
        self._commands = commands
        self._mbeans = MBeans(config, readers, commands)

    async def answer(self, request: Request, parts: list[str]) -> Response | None:
        """None: there is no such path. Raises Refusal."""
        match parts:
            case ["pdb", "meta", "v1", *rest]:
                return self._meta(request, rest)
            case ["status", "v1", "simple", *names] if request.method in ("GET", "HEAD"):
                _require_timeout(request)
                return await self._simple(names)
            case ["status", "v1", "services", *names] if request.method in ("GET", "HEAD"):
                return await self._services(request, names)
            case ["metrics", "v2", *rest]:
                return await self._mbeans.answer(request, rest)
        return None

    def _meta(self, request: Request, parts: list[str]) -> Response | None:
        require_json(request)
        answers: dict[tuple[str, ...], Any] = {
            ("version",): {"version": INTERFACE_VERSION},
            ("version", "latest"): {"newer": False, "version": INTERFACE_VERSION, "link": None},
            ("server-time",): {"server_time": _now()},
        }
        found = answers.get(tuple(parts))
        if found is None:
            return None
        if request.query_params:
            raise Refusal(400, f"Unsupported query parameter '{next(iter(request.query_params))[:200]}'")
        return json_response(found)

    async def _simple(self, names: list[str]) -> Response | None:
        if len(names) > 1:
            return None
        if names and names[0] != SERVICE:
            return text_response(f"not found: {names[0][:200]}", 404)
        state = (await self._state())["state"]
        return text_response(state, 200 if state == "running" else 503)

    async def _services(self, request: Request, names: list[str]) -> Response | None:
        """By all of its names, as PuppetDB's has it: the service itself, and the one that tells of it."""
        if len(names) > 1:
            return None
        level = request.query_params.get("level", "info")
        if level not in LEVELS:
            return _invalid(f"Invalid level: :{level[:200]}")
        timeout = request.query_params.get("timeout", "1")
        if not (timeout.isascii() and timeout.isdigit()):
            return _invalid(f"Invalid timeout. Should be an integer but was {timeout[:200]}")
        if names and names[0] not in (SERVICE, OF_STATUS):
            text = f"No status information found for service {names[0][:200]}"
            return json_response({"kind": "service-not-found", "msg": text}, 404)
        found = {SERVICE: await self._state(), OF_STATUS: _OF_STATUS}
        found = {name: state | {"detail_level": level} for name, state in found.items()}
        is_running = found[names[0] if names else SERVICE]["state"] == "running"
        answer = found if not names else found[names[0]] | {"service_name": names[0]}
        return json_response(answer, 200 if is_running else 503)

    async def _state(self) -> dict[str, Any]:
        """The database is asked; of the broker it counts what the last command told."""
        reads = await self._reads()
        writes = self._commands.publishing.is_up
        return {
            "service_version": INTERFACE_VERSION,
            "service_status_version": 1,
            "detail_level": "info",
            "state": "running" if reads and writes else "error",
            "status": {
                "maintenance_mode?": False,
                "queue_depth": self._commands.publishing.depth,
                "read_db_up?": reads,
                "write_db_up?": writes,
                "write_dbs_up?": writes,
                "write_db": {"default": {"up?": writes}},
            },
            "active_alerts": [],
        }

    async def _reads(self) -> bool:
        try:
            async with asyncio.timeout(DATABASE_ANSWERS_S), self._readers.connection() as connection:
                await self._readers.step(count_population, connection)
        except (TimeoutError, IngestError, Refusal):
            return False
        return True


def _require_timeout(request: Request) -> None:
    timeout = request.query_params.get("timeout", "1")
    if not (timeout.isascii() and timeout.isdigit()):
        raise Refusal(400, f"Invalid timeout. Should be an integer but was {timeout[:200]}")


def _invalid(text: str) -> Response:
    return json_response({"kind": "data-invalid", "msg": text}, 400)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
