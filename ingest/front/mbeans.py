"""/metrics/v2: the numbers that puppetboard and monitors read by the names that they have in PuppetDB, as Jolokia shows them.

By GET with what is asked for in the path, or by POST with one request or many as JSON, as agents of monitors send it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from ingest.config.settings import Config
from ingest.core.query.ast import BadQuery
from ingest.front.asking import parse_json
from ingest.front.bodies import read_body
from ingest.front.commands import Commands
from ingest.front.readers import Readers
from ingest.front.refusal import Refusal, json_response
from ingest.store.query.running import count_population

POPULATION, QUEUE, POOL = (
    "puppetlabs.puppetdb.population",
    "puppetlabs.puppetdb.mq",
    "puppetlabs.puppetdb.database",
)
MIRROR = "puppet-ingest.mirror"  # ours: no name of PuppetDB's is meant
_OF_MIRROR = ("passed", "waiting", "refused", "dropped")
NAMES_MAX = 50  # of one POST
BODY_BYTES_MAX = 64 * 1024
VERSION = {"agent": "1.7.1", "protocol": "7.2", "config": {}, "info": {}}
ARGUMENT = "java.lang.IllegalArgumentException"
NO_INSTANCE = "javax.management.InstanceNotFoundException"
NO_ATTRIBUTE = "javax.management.AttributeNotFoundException"
Asked = Mapping[str, Any]


class _Population(NamedTuple):
    active: int
    inactive: int
    resources: int


_OF_POPULATION: dict[str, Callable[[_Population], float]] = {
    "num-nodes": lambda found: found.active,
    "num-active-nodes": lambda found: found.active,
    "num-inactive-nodes": lambda found: found.inactive,
    "num-resources": lambda found: found.resources,
    "avg-resources-per-node": lambda found: found.resources / max(1, found.active + found.inactive),
}


class MBeans:
    """Of one process."""

    def __init__(self, config: Config, readers: Readers, commands: Commands) -> None:
        self._config = config
        self._readers = readers
        self._commands = commands

    async def answer(self, request: Request, parts: list[str]) -> Response | None:
        """None: there is no such path. Raises Refusal."""
        if request.method == "POST" and not parts:
            return json_response(await self._posted(request))
        asked: dict[str, Any]
        match [_unescaped(part) for part in parts]:
            case [] | ["version"]:
                asked = {"type": "version"}
            case ["list", *path]:
                asked = {"type": "list"} | ({"path": "/".join(path)} if path else {})
                return json_response(self._list(asked, path))
            case ["read", name, *attribute] if len(attribute) <= 1:
                asked = {"mbean": name, "type": "read"} | ({"attribute": attribute[0]} if attribute else {})
            case ["search", pattern]:
                asked = {"mbean": pattern, "type": "search"}
            case [other, *_]:
                raise Refusal(403, f"of /metrics/v2, list, read and search are served, not {other[:100]}")
        return json_response(await self._answered(asked))

    async def _posted(self, request: Request) -> Any:
        body = await read_body(request, BODY_BYTES_MAX, self._config.client_timeout_s)
        try:
            asked = parse_json(body.decode("utf-8", "replace"))
        except BadQuery:
            return _failed({}, 400, ARGUMENT, "Invalid JSON request")
        if not isinstance(asked, list):
            return await self._answered(asked)
        if len(asked) > NAMES_MAX:
            return _failed({}, 400, ARGUMENT, f"more than {NAMES_MAX} requests")
        return [await self._answered(one) for one in asked]

    async def _answered(self, asked: Any) -> dict[str, Any]:
        if not isinstance(asked, dict):
            return _failed({}, 400, ARGUMENT, "a request is a JSON object")
        match str(asked.get("type", "")).lower():
            case "version":
                return _found(asked, VERSION)
            case "list":
                return self._list(asked, [part for part in str(asked.get("path") or "").split("/") if part])
            case "search":
                return _found(asked, self._matching(str(asked.get("mbean"))))
            case "read":
                return await self._read(asked)
        return _failed({}, 400, ARGUMENT, f"No type with name '{str(asked.get('type'))[:100]}' exists")

    def _list(self, asked: Asked, path: list[str]) -> dict[str, Any]:
        domains: dict[str, Any] = {}
        for name in self._names():
            attribute = {"rw": False, "type": "java.lang.Object", "desc": "Attribute exposed for management"}
            domain, _, property_ = name.partition(":")
            domains.setdefault(domain, {})[property_] = {"attr": {_attribute_of(name): attribute}}
        found: Any = domains
        for part in path:
            found = found.get(part, {}) if isinstance(found, dict) else {}
        return _found(asked, found)

    def _names(self) -> list[str]:
        return [
            *(f"{POPULATION}:name={name}" for name in _OF_POPULATION),
            f"{QUEUE}:name=global.depth",
            f"{POOL}:name=PDBReadPool.pool.MaxConnections",
            *(f"{MIRROR}:name={name}" for name in _OF_MIRROR if self._commands.mirror is not None),
        ]

    def _matching(self, pattern: str) -> list[str]:
        if pattern.count("*") + pattern.count("?") > 10:  # each of them is tried at every place
            return []
        return [name for name in self._names() if fnmatchcase(name, pattern.replace("[", "[[]"))]

    async def _read(self, asked: Asked) -> dict[str, Any]:
        name, attribute = str(asked.get("mbean") or ""), asked.get("attribute")
        if ":" not in name:
            return _failed(
                asked, 400, ARGUMENT, "an MBean has a domain and a name, such as java.lang:type=Memory"
            )
        is_pattern = "*" in name or "?" in name
        names = self._matching(name) if is_pattern else [one for one in self._names() if one == name]
        if not names:
            return _failed(asked, 404, NO_INSTANCE, name[:500])
        if attribute is not None and attribute != _attribute_of(names[0]):
            return _failed(asked, 404, NO_ATTRIBUTE, f"No such attribute: {str(attribute)[:500]}")
        values = {one: {_attribute_of(one): await self._value(one)} for one in names}
        if is_pattern:
            return _found(asked, values)
        value = values[name]
        return _found(asked, value if attribute is None else value[_attribute_of(name)])

    async def _value(self, name: str) -> float:
        domain, _, property_ = name.partition(":name=")
        if domain == POPULATION:
            async with self._readers.connection() as connection:
                return _OF_POPULATION[property_](
                    _Population(*await self._readers.step(count_population, connection))
                )
        if domain == MIRROR:
            return int(getattr(self._commands.mirror, property_))
        return self._commands.publishing.depth if domain == QUEUE else self._config.http_queries_max


def _attribute_of(name: str) -> str:
    """A counter of PuppetDB's has its number under another name than a gauge."""
    return "Count" if name.startswith(QUEUE) else "Value"


def _unescaped(name: str) -> str:
    """Jolokia's own escapes within a path: ``!/`` for a slash, ``!!`` for an exclamation mark."""
    return name.replace("!!", "\0").replace("!/", "/").replace("\0", "!")


def _found(asked: Asked, value: object) -> dict[str, Any]:
    return {"request": dict(asked), "value": value, "timestamp": int(time.time()), "status": 200}


def _failed(asked: Asked, status: int, kind: str, text: str) -> dict[str, Any]:
    about = {"request": dict(asked)} if asked else {}
    return about | {"error_type": kind, "error": f"{kind} : {text}", "status": status}
