"""From a request to the statement that answers it. What is asked again, as dashboards do, is not read and compiled again."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from ingest.config.settings import Config
from ingest.core.bounded_cache import BoundedCache
from ingest.core.query.ast import BadQuery
from ingest.front.asking import Asked, parameters_of, understand
from ingest.front.bodies import has_body, read_body
from ingest.front.paths import Target, find_target
from ingest.front.readers import Readers
from ingest.front.refusal import Refusal
from ingest.store.query.asked import compile_asked
from ingest.store.query.compiling import Compiled

PLANNED_APART_BYTES = 4096  # the query of a person; a longer one shall not hold up what others wait for
KNOWN_BYTES = 4 * 1024 * 1024  # some hundred requests
READ_FACTOR = 30  # bytes that a byte of a query takes when it has been read

Key = tuple[str, bytes, bytes, str, bytes]


class Planned(msgspec.Struct):
    target: Target
    asked: Asked
    compiled: Compiled
    is_long: bool = False  # its answer was, the last time: then others have half of the connections


class Planner:
    """Of one process."""

    def __init__(self, config: Config, readers: Readers) -> None:
        self._config, self._readers = config, readers
        self._known: BoundedCache[Key, Planned] = BoundedCache(KNOWN_BYTES, _size)

    async def plan(self, request: Request, parts: list[str]) -> Planned:
        """Raises Refusal or BadQuery."""
        scope = request.scope
        body = b""
        if has_body(request):
            body = await read_body(request, self._config.query_bytes_max, self._config.client_timeout_s)
        kind = request.headers.get("content-type", "")
        key = (scope["method"], scope["raw_path"], scope["query_string"], kind, body)
        if (found := self._known.get(key)) is not None:
            return found
        target = find_target(parts)
        if target is None:
            raise Refusal(404, "Not Found")
        parameters = parameters_of(request.method, scope["query_string"].decode("latin-1"), kind, body)
        if len(str(parameters.get("query", ""))) > PLANNED_APART_BYTES:
            return await self._readers.step(self._plan, target, parameters)
        found = self._plan(target, parameters)
        self._known.put(key, found)
        return found

    def _plan(self, target: Target, parameters: dict[str, Any]) -> Planned:
        asked = understand(target, parameters)
        try:
            compiled = compile_asked(asked.query, asked.counts, self._config.node_purge_ttl_s)
        except RecursionError as error:
            raise BadQuery("the query is nested too deeply") from error
        return Planned(target, asked, compiled)


def _size(key: Key, planned: Planned) -> int:
    asked = sum(map(len, key))
    return 2 * (len(planned.compiled.rows) + len(planned.compiled.total)) + READ_FACTOR * asked
