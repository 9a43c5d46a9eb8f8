"""Requests of every kind that a client may send and many that none should: all of the surface, from one seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from ingest.store.query.entities import ENTITIES

V4 = "/pdb/query/v4"
ENTITY_NAMES = (
    *sorted(ENTITIES),
    "event_counts",
    "fact-names",
    "fact-paths",
    "fact-contents",
    "event-counts",
    "aggregate-event-counts",
    "package-inventory",
    "catalog-inputs",
    "nowhere",
)
FIELDS = sorted({name for entity in ENTITIES.values() for name in entity.fields})
BELOW = (
    "",
    "n0",
    "n0/facts",
    "n0/facts/a",
    "n0/resources",
    "n0/resources/File",
    "n0/resources/File/%2Fa",
    "n0/edges",
    "a",
    "a/1",
    "File",
    "File/%2Fa",
    "production",
    "production/nodes",
    "00ff/events",
    "00ff/logs",
    "00ff/metrics",
    "%00",
    "..",
    "%2e%2e/x",
)
OTHER = (
    "/",
    "/pdb",
    "/pdb/meta/v1/version",
    "/pdb/meta/v1/version/latest",
    "/pdb/meta/v1/server-time",
    "/status/v1/services",
    "/status/v1/simple",
    "/status/v1/services/puppetdb-status",
    "/metrics/v2/list",
    "/metrics/v2/read/java.lang:type=Memory",
    "/metrics/v2/read/puppetlabs.puppetdb.population:name=num-nodes",
    "/metrics/v2/read/%00",
    "/pdb/admin/v1/summary-stats",
    "/pdb/query/v3/nodes",
    "/pdb/ext/v1",
    "//",
    "/pdb/query/v4/%ff%fe",
)
OPERATORS = (
    "=",
    "~",
    "~>",
    ">",
    "<",
    ">=",
    "<=",
    "null?",
    "and",
    "or",
    "not",
    "in",
    "extract",
    "from",
    "subquery",
    "array",
    "function",
    "group_by",
    "order_by",
    "limit",
    "offset",
    "select_resources",
    "select-facts",
    "parameter",
    "fact",
    "node",
    "AND",
    "",
)
TEXTS = (
    "n0",
    "",
    "*",
    "(",
    "(a*)*b",
    "\\",
    "'",
    '"',
    "%s",
    "\0",
    "\ud800",
    "\u2028",
    "x" * 3000,
    "2026-01-01",
    "true",
    "9" * 400,
    "active",
    "facts.a.b",
    'facts.match("a").b',
    "parameters.mode",
    "certname",
    "nodes{}",
    "[[[",
    "{}",
    "00ff",
    "any",
    "resource",
    "to_string",
)
PARAMETERS = (
    "query",
    "order_by",
    "limit",
    "offset",
    "include_total",
    "pretty",
    "explain",
    "timeout",
    "ast_only",
    "summarize_by",
    "count_by",
    "counts_filter",
    "distinct_resources",
    "distinct_start_time",
    "distinct_end_time",
    "nonsense",
    "command",
    "version",
)
PQL = (
    "nodes",
    "facts",
    "resources",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "certname",
    "value",
    "=",
    "~",
    "!",
    "and",
    "or",
    "in",
    "is null",
    "'x'",
    '"y"',
    "1",
    "1.5",
    "true",
    "limit 1",
    "order by",
    "group by",
    "count()",
    ",",
    ".",
    "\\",
    "\0",
)
COMMANDS = (
    "replace_catalog",
    "replace catalog",
    "replace_facts",
    "store_report",
    "deactivate_node",
    "configure_expiration",
    "replace_catalog_inputs",
    "drop_table",
    "",
)
HEADERS: tuple[dict[str, str], ...] = (
    *[{}] * 30,
    {"Accept": "text/html"},
    {"Accept": "application/json;q=0"},
    {"Content-Type": "text/plain"},
    {"Content-Encoding": "gzip"},
    {"X-Authentication": "x"},
    {"Connection": "close"},
    {"Accept": "\xff"},
    {"Content-Type": "application/json; charset=x"},
)
METHODS = ("GET",) * 6 + ("POST",) * 5 + ("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")


class Sent(NamedTuple):
    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]


def requests(seed: int) -> Iterator[Sent]:
    """Without end, and the same for the same seed."""
    random = Random(seed)
    while True:
        yield _request(random)


def _request(random: Random) -> Sent:
    method, headers = random.choice(METHODS), dict(random.choice(HEADERS))
    kind = random.random()
    if kind < 0.1:
        return Sent(method, random.choice(OTHER), None, headers)
    if kind < 0.25:
        return _command(random, headers)
    path = V4
    if random.random() < 0.8:
        path += f"/{random.choice(ENTITY_NAMES)}"
        if random.random() < 0.5:
            path += f"/{random.choice(BELOW)}"
    parameters = {random.choice(PARAMETERS): _parameter(random) for _ in range(random.randrange(3))}
    if random.random() < 0.7:
        parameters["query"] = _query(random)
    if method == "POST":
        headers.setdefault("Content-Type", "application/json")
        body = json.dumps(parameters).encode()
        return Sent(method, path, _broken(random, body), headers)
    texts = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()
    }
    return Sent(method, f"{path}?{urlencode(texts, errors='replace')}"[:60_000], None, headers)


def _command(random: Random, headers: dict[str, str]) -> Sent:
    parameters = {
        "command": random.choice(COMMANDS),
        "version": random.choice(("9", "5", "1", "x", "-1", "9" * 50)),
        "certname": random.choice(TEXTS),
    }
    if random.random() < 0.2:
        parameters.pop(random.choice(sorted(parameters)))
    if random.random() < 0.2:
        parameters[random.choice(("checksum", "producer-timestamp", "x"))] = random.choice(TEXTS)
    body = json.dumps(
        random.choice(({}, {"certname": "n0"}, [], 1, {"command": "x", "version": 1, "payload": {}}))
    ).encode()
    path = "/pdb/cmd/v1" + ("" if random.random() < 0.2 else f"?{urlencode(parameters, errors='replace')}")
    return Sent("POST", path, _broken(random, body), headers)


def _broken(random: Random, body: bytes) -> bytes:
    if random.random() < 0.9:
        return body
    at = random.randrange(len(body) + 1)
    return random.choice(
        (body[:at], body[:at] + b"\xff\0" + body[at:], body * 2, b"", bytes(random.randbytes(50)))
    )


def _parameter(random: Random) -> Any:
    return random.choice(
        (
            _value,
            _query,
            lambda random: [{"field": random.choice(FIELDS), "order": random.choice(("asc", "desc", "x"))}],
        )
    )(random)


def _query(random: Random) -> Any:
    if random.random() < 0.3:
        return " ".join(random.choice(PQL) for _ in range(random.randrange(1, 14)))
    if random.random() < 0.3:
        return [
            "from",
            random.choice(ENTITY_NAMES),
            _node(random, 4),
            *([["limit", _value(random)]] if random.random() < 0.3 else []),
        ]
    return _node(random, 4)


def _node(random: Random, depth: int) -> Any:
    """Often of a form that makes sense, so that it gets as far as PostgreSQL."""
    if depth == 0 or random.random() < 0.1:
        return _value(random)
    kind = random.random()
    if kind < 0.45:
        return [random.choice(OPERATORS[:7]), random.choice((*FIELDS, *TEXTS)), _value(random)]
    if kind < 0.6:
        return [
            random.choice(("and", "or", "not")),
            *(_node(random, depth - 1) for _ in range(random.randrange(1, 4))),
        ]
    if kind < 0.7:
        inner = ["extract", random.choice(FIELDS), _node(random, depth - 1)]
        return ["in", random.choice(FIELDS), ["from", random.choice(ENTITY_NAMES), inner]]
    if kind < 0.8:
        columns = [
            random.choice(
                (
                    random.choice(FIELDS),
                    [
                        "function",
                        random.choice(("count", "avg", "max", "to_string", "x")),
                        random.choice(FIELDS),
                    ],
                )
            )
            for _ in range(random.randrange(1, 4))
        ]
        return [
            "extract",
            columns,
            _node(random, depth - 1),
            *([["group_by", *columns]] if random.random() < 0.5 else []),
        ]
    return [random.choice(OPERATORS), *(_node(random, depth - 1) for _ in range(random.randrange(4)))]


def _value(random: Random) -> Any:
    kind = random.random()
    if kind < 0.6:
        return random.choice((*TEXTS, *FIELDS))
    plain: tuple[Any, ...] = (
        None,
        True,
        False,
        0,
        1,
        -1,
        2**63,
        -(2**70),
        1.5,
        1e308,
        [],
        {},
        ["a", 1],
        {"a": 1},
        [[]],
        10**400,
    )
    return random.choice(plain)


def shown(sent: Sent) -> str:
    return f"{sent.method} {quote(sent.path[:500], safe='/?&=%')} {(sent.body or b'')[:500]!r} {sent.headers}"
