"""A producer that sends each bad message under other names: what it may fill is bounded all the same, and others keep theirs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ingest.config.loading import load
from ingest.store.connection import Connection
from ingest.transport.publisher import Publisher
from lab.engine import Start, publish
from lab.store_model import expected, resource, stored, wire_body
from tests.engine.test_quarantine_limits import command

FLOOD = 400
ROWS_MAX = 100  # the least that may be set
GOOD = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(20)]
TWICE = [resource("/x"), resource("/x")]


def wire(certname: str, producer: str, **more: Any) -> bytes:
    document = json.loads(wire_body(certname, 1, TWICE))
    document["payload"] |= {"producer": producer, **more}
    return json.dumps(document).encode()


# How the n-th message is made: (body, headers)
Forge = Callable[[int], tuple[bytes, dict[str, str]]]
FORGERS: dict[str, Forge] = {
    "producers in headers": lambda n: (b"x%d" % n, {"producer": f"p{n}"}),
    "producers and nodes in headers": lambda n: (b"x", {"producer": f"p{n}", "certname": f"c{n}"}),
    "producers in bodies": lambda n: (b'{"producer":"p%d","resources":1}' % n, {}),
    "nodes in bodies": lambda n: (wire(f"c{n}", "puppet"), {}),
    "nodes and producers in bodies": lambda n: (wire(f"c{n}", f"p{n}"), {}),
    "a known node, ever new producers": lambda n: (wire("n0.example.com", f"p{n}", n=n), {}),
    "a known node, ever new commands": lambda n: (command(f"do this {n}", 1, "n1.example.com", n), {}),
    "a known node, ever new commands in headers": lambda n: (
        b"x%d" % n, {"certname": "n2.example.com", "command": f"c{n}"}
    ),
    "a known node, ever new versions": lambda n: (command("replace facts", 1000 + n, "n3.example.com", n), {}),
    "other header values": lambda n: (b"y", {"transaction_uuid": f"{n}" * 200, "environment": f"e{n}", "job_id": f"{n}"}),
    "names with controls": lambda n: (b"z%d" % n, {"producer": f"\x1b[{n}m\u202e", "certname": f"\x9b{n}J"}),
    "long names": lambda n: (b"l%d" % n, {"producer": f"{n}" * 300, "certname": f"{n}" * 300}),
}  # fmt: skip
OFTEN = (
    "producers and nodes in headers", "nodes and producers in bodies", "a known node, ever new commands", "names with controls",
)  # fmt: skip
OWN_ROW = [name for name in FORGERS if name.startswith("a known node")]


@pytest.mark.parametrize(
    "forger", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.long) for name in FORGERS]
)
def test_whoever_forges_names_fills_nothing(
    start: Start, broker: str, connection: Connection, forger: str
) -> None:
    """Good catalogs in between are stored, what was in quarantine of known nodes stays, rows are bounded, all is counted, and the
    log stays short."""
    engine = start("--quarantine-rows-max", str(ROWS_MAX), "--writers", "1")
    publish(broker, *GOOD)
    engine.wait_settled(len(GOOD))
    publish(broker, *(wire(f"n{n}.example.com", "puppet") for n in range(10, 20)))
    engine.wait_settled(len(GOOD) + 10)
    again = [wire_body(f"n{n}.example.com", 2, [resource(f"/again{n}")]) for n in range(20)]
    for number in range(20):
        share = range(number * FLOOD // 20, (number + 1) * FLOOD // 20)
        send(broker, [FORGERS[forger](n) for n in share])
        publish(broker, again[number])
    engine.wait_settled(len(GOOD) + 10 + FLOOD + 20)
    for n, body in enumerate(again):
        assert stored(connection, f"n{n}.example.com") == expected(body)
    rows: Any = connection.execute(
        "SELECT certname, reason, attempts, thinned, octet_length(body) FROM quarantine"
    ).fetchall()
    kept = {f"n{n}.example.com" for n in range(10, 20)}
    assert kept <= {certname for certname, *_, size in rows if size}
    assert len(rows) <= ROWS_MAX + ROWS_MAX // 32 + 200  # a batch may come before the next look
    if forger in OWN_ROW:
        assert len(rows) == len(kept) + 1
        assert sum(attempts for _, _, attempts, *_ in rows) == len(kept) + FLOOD
    told = [line for line in engine.lines() if line.get("event") == "message_quarantined"]
    assert 0 < len(told) <= 50 * 3  # of each reason in each minute
    assert engine.stop() == 0
    assert engine.log.stat().st_size < 200_000


def send(broker: str, messages: Sequence[tuple[bytes, dict[str, str]]]) -> None:
    """Over one connection, each with its own headers."""
    publisher = Publisher(load({"queue_source": broker}, {}).config)
    try:
        publisher.publish(messages)
    finally:
        publisher.close()
