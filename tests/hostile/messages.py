"""Hostile messages of every kind that was tried on the engine, each a few, made from a number.

Nothing of it is aimed at a program's bug: all are what a broken or malicious producer can put on a queue. None of them may
stop, kill or starve the engine; most of them end in quarantine, the others are stored under names of their own.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from lab.store_model import resource, wire_body

MIB = 1024 * 1024


class Message(NamedTuple):
    body: bytes
    headers: dict[str, str]


def catalog(certname: str, resources: list[dict[str, Any]], **payload: Any) -> bytes:
    document = json.loads(wire_body(certname, 1, resources))
    document["payload"] |= payload
    return json.dumps(document).encode()


def with_value(certname: str, value: str) -> bytes:
    """The value is JSON, put in as it is."""
    body = catalog(certname, [resource("/x", parameters={"p": "@"})])
    return body.replace(b'"@"', value.encode("utf-8", "surrogatepass"))


def native(certname: str, value: str) -> bytes:
    body = json.dumps({
        "name": certname, "version": 1, "environment": "production", "catalog_format": 2, "edges": [], "tags": [],
        "resources": [{"type": "File", "title": "/x", "tags": [], "parameters": {"p": "@"}}],
    })  # fmt: skip
    return body.replace('"@"', value).encode("utf-8", "surrogatepass")


def nested(levels: int) -> str:
    return '{"__ptype":"X","k":' * levels + '"\\""' + "}" * levels


def legacy(certname: str, content: bytes) -> bytes:
    text = {"type": "File", "title": "/m", "tags": [], "parameters": {"content": "@"}}
    data = {"name": certname, "version": 1, "tags": [], "classes": [], "edges": [], "resources": [text]}
    return json.dumps({"document_type": "Catalog", "data": data}).encode().replace(b"@", content)


def many(body: Callable[[int], bytes], count: int) -> Callable[[int], list[Message]]:
    return lambda n: [Message(body(n * count + at), {}) for at in range(count)]


def one(body: Callable[[int], bytes]) -> Callable[[int], list[Message]]:
    return many(body, 1)


def typed(levels: int, value: Any) -> Any:
    """A type that is an object itself, whose type is one, and so on."""
    for _ in range(levels):
        value = {"__ptype": value}
    return value


def report(n: int, steps: int, events: int) -> bytes:
    """Of one resource, with a long path to it and many events."""
    at = "2026-01-01T00:00:00Z"
    payload = {
        "certname": name(n), "start_time": at, "end_time": at, "metrics": [], "logs": [],
        "resources": [{
            "resource_type": "File", "resource_title": "/x", "containment_path": [f"a[{n}]"] * steps,
            "events": [{"status": "success", "message": str(event)} for event in range(events)],
        }],
    }  # fmt: skip
    return json.dumps({"command": "store report", "version": 8, "payload": payload}).encode()


def name(n: int) -> str:
    return f"hostile{n % 50}.example.com"


def _wide(n: int, **member: Any) -> bytes:
    return catalog(name(n), [resource(f"/{n}") | member])


KINDS: dict[str, Callable[[int], list[Message]]] = {
    # What is no message of ours
    "one byte": many(lambda n: b"%c" % (33 + n % 90), 60),
    "nothing": many(lambda _: b"", 20),
    "gzip": one(lambda n: gzip.compress(wire_body(name(n), 1, [resource("/x")]))),
    "noise": one(lambda n: bytes((n * 37 + at * at) % 256 for at in range(5000))),
    "NULs": one(lambda _: bytes(100_000)),
    "truncated": one(lambda n: wire_body(name(n), 1, [resource("/x")])[: 40 + n % 200]),
    "not an object": one(lambda n: [b"17", b'"x"', b"null", b"[1,2]", b"1e999"][n % 5]),
    "16 MB that is no catalog": one(lambda _: b'{"a":[' + b"{}," * (5 * MIB) + b"{}]}"),
    "16 MB of quotes": one(lambda _: b'"' * (16 * MIB)),
    "16 MB of quotes and backslashes": one(lambda _: b'\\"' * (8 * MIB)),
    "16 MB of lone surrogates": one(lambda n: with_value(name(n), '"' + "\\ud800" * (2 * MIB) + '"')),
    "16 MB of one string": one(lambda n: with_value(name(n), '"' + "x" * (16 * MIB) + '"')),
    "16 MB unreadable": one(lambda n: b'{"certname":"%s","x":"' % name(n).encode() + b"abcdefg\n" * (2 * MIB)),
    "blanks": many(lambda n: b" " * (9000 + n), 30),
    "strings without an end": many(lambda n: b'{"x%d":"' % n + b'\\"' * 5000, 60),
    "names that are not UTF-8": many(
        lambda n: b'{"command":"deactivate node","version":3,"payload":{"certname":"n%d","\xff":1}}' % n, 10
    ),
    "brackets": one(lambda n: [b"[", b'{"a":'][n % 2] * 500_000),
    # Commands
    "facts without values": many(lambda n: b'{"command":"replace facts","version":5,"payload":{"certname":"n%d"}}' % n, 30),
    "reports": many(lambda n: b'{"command":"store report","version":8,"payload":{"certname":"n%d"}}' % n, 30),
    "unknown commands": many(lambda n: b'{"command":"c%d","version":1,"payload":{}}' % n, 30),
    "odd versions": one(lambda n: b'{"command":"replace catalog","version":1%s,"payload":{}}' % (b"0" * (n % 400))),
    # Catalogs
    "the same twice": one(lambda n: catalog(name(n), [resource("/x"), resource("/x")])),
    "23 levels of __ptype": one(lambda n: native(name(n), nested(23))),
    "40 levels of __ptype": one(lambda n: native(name(n), nested(40))),
    "60 levels of __ptype": one(lambda n: native(name(n), nested(60))),
    "300 levels of lists": one(lambda n: with_value(name(n), "[" * 300 + "]" * 300)),
    "numbers": one(lambda n: with_value(name(n), ["1e999", "-" + "9" * 5000, "1" + "0" * 400, "1e-400"][n % 4])),
    "tags of 1 MB": one(lambda n: _wide(n, tags=[f"{n}" + "t" * MIB])),
    "types of 1 MB": one(lambda n: _wide(n, type=f"T{n}" + "t" * MIB)),
    "titles of 1 MB": one(lambda n: _wide(n, title=f"{n}" + "t" * MIB)),
    "files of 1 MB": one(lambda n: _wide(n, file=f"/{n}" + "f" * MIB, line=n)),
    "names of parameters of 1 MB": one(lambda n: _wide(n, parameters={f"{n}" + "p" * MIB: 1})),
    "100 000 tags": one(lambda n: _wide(n, tags=[f"t{n}x{at}" for at in range(100_000)])),
    "40 000 sensitive tags": one(
        lambda n: _wide(
            n, tags=[f"t{at}" for at in range(40_000)], sensitive_parameters=["tag"],
            parameters={"tag": [f"t{n}x{at}" for at in range(40_000)]},
        )
    ),
    "types of types": one(
        lambda n: with_value(name(n), json.dumps(["Sensitive", typed(190, [1] * (1 + n % 3) * 1_000_000)]))
    ),
    "a report with a long path": one(lambda n: report(n, 40_000, 1200)),
    "ever new environments": many(
        lambda n: catalog(name(n), [resource("/x")], environment=f"e{n}" + "e" * 1000, producer=f"p{n}" + "p" * 1000), 50
    ),
    "ever new nodes": many(lambda n: catalog(f"new{n}" + "n" * 200, [resource("/x")]), 50),
    "a certname of 1 MB": one(lambda n: catalog(f"{n}" + "n" * MIB, [resource("/x")])),
    "certnames that are JSON": many(
        lambda n: catalog(
            ['before', 'contains', 'x","type":"Class', '{"a":1}', "a\\", "],[", "null", "\u202egnp", "\x9b2J", "a\nb"][n % 10],
            [resource(f"/{at}") for at in range(3)],
            edges=[{"source": {"type": "File", "title": f"/{at}"}, "target": {"type": "File", "title": "/2"},
                    "relationship": "contains"} for at in range(2)],
        ), 10,
    ),
    "far dates": many(
        lambda n: catalog(
            name(n), [resource("/x")], producer_timestamp=datetime(1 + n * 199 % 9998, 1, 1, tzinfo=UTC).isoformat()
        ), 10,
    ),
    "Latin-1": one(lambda n: legacy(name(n), b"gr\xfc\xdf dich %d" % n)),
    "secrets, and refused": one(lambda n: catalog(name(n), [resource("/x") | {"sensitive_parameters": ["ensure"]}] * 2)),
    # Headers, as far as the embedded broker takes them; tests/hostile/test_frames.py has the others
    "30 kB of headers": lambda n: [Message(b"x%d" % n, {f"x-{at}": "v" * 900 for at in range(32)})],
    "headers that are long": lambda n: [
        Message(b"y%d" % n, {"certname": f"{n}" * 3000, "producer": "\U0001f600" * 2000})
    ],
    "ever new producers": lambda n: [Message(b"z%d" % at, {"producer": f"p{n}-{at}"}) for at in range(50)],
}  # fmt: skip
