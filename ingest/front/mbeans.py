"""/metrics/v2: the numbers that puppetboard and monitors read by the names that they have in PuppetDB, as Jolokia shows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from ingest.config.settings import Config
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
        match parts:
            case [] | ["version"]:
                return _answer(
                    {"type": "version"}, {"agent": "1.7.1", "protocol": "7.2", "config": {}, "info": {}}
                )
            case ["list", *rest]:
                return self._list(rest)
            case ["read", name, *attribute] if len(attribute) <= 1:
                return await self._read(_unescaped(name), attribute)
        if parts:
            raise Refusal(403, f"of /metrics/v2, list and read are served, not {parts[0][:100]}")
        return None

    def _list(self, parts: list[str]) -> Response:
        attribute = {
            "attr": {
                "Value": {"rw": False, "type": "java.lang.Object", "desc": "Attribute exposed for management"}
            }
        }
        domains: dict[str, Any] = {}
        for name in self._names():
            domain, _, property_ = name.partition(":")
            domains.setdefault(domain, {})[property_] = attribute
        found: Any = domains
        for part in parts:
            found = found.get(_unescaped(part), {}) if isinstance(found, dict) else {}
        return _answer({"type": "list"}, found)

    def _names(self) -> list[str]:
        return [
            *(f"{POPULATION}:name={name}" for name in _OF_POPULATION),
            f"{QUEUE}:name=global.depth",
            f"{POOL}:name=PDBReadPool.pool.MaxConnections",
            *(f"{MIRROR}:name={name}" for name in _OF_MIRROR if self._commands.mirror is not None),
        ]

    async def _read(self, name: str, attribute: list[str]) -> Response:
        request = {"mbean": name, "type": "read"} | ({"attribute": attribute[0]} if attribute else {})
        value = await self._value(name)
        if value is None:
            kind = "javax.management.InstanceNotFoundException"
            return json_response(
                {"request": request, "error_type": kind, "error": f"{kind} : {name[:500]}", "status": 404}
            )
        return _answer(request, value if attribute else {"Value": value})

    async def _value(self, name: str) -> float | None:
        domain, _, property_ = name.partition(":name=")
        if domain == POPULATION and property_ in _OF_POPULATION:
            async with self._readers.connection() as connection:
                return _OF_POPULATION[property_](
                    _Population(*await self._readers.step(count_population, connection))
                )
        if domain == MIRROR and property_ in _OF_MIRROR and self._commands.mirror is not None:
            return int(getattr(self._commands.mirror, property_))
        return {
            f"{QUEUE}:name=global.depth": self._commands.publishing.depth,
            f"{POOL}:name=PDBReadPool.pool.MaxConnections": self._config.http_queries_max,
        }.get(name)


def _unescaped(name: str) -> str:
    """Jolokia's own escapes within a path: ``!/`` for a slash, ``!!`` for an exclamation mark."""
    return name.replace("!!", "\0").replace("!/", "/").replace("\0", "!")


def _answer(request: dict[str, Any], value: object) -> Response:
    return json_response({"request": request, "value": value, "timestamp": int(time.time()), "status": 200})
