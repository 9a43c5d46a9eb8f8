"""What PostgreSQL cannot hold as it is: stored without loss and flagged, or refused for good; nothing is tried for ever."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Rejected
from ingest.store.connection import Connection
from lab.engine import Engine, publish
from lab.servers import embedded_broker
from lab.store_model import Pipeline, expected, resource, stored, wire_body

NODE = "n.example.com"
_chance = random.Random(1)
# Nothing that a compressor could shorten below the 2704 bytes that a btree entry may have.
WIDE = "".join(chr(_chance.randrange(0x10000, 0x1FFFF)) for _ in range(1000))
LONG = "".join(_chance.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(20_000))


def with_parameters(**parameters: Any) -> bytes:
    return wire_body(NODE, 1, [resource("/x", parameters=parameters)])


def with_number(text: str) -> bytes:
    """JSON that Python's own encoder would not write."""
    return with_parameters(n=12345).replace(b"12345", text.encode())


def with_resource(title: str = "/x", **members: Any) -> bytes:
    return wire_body(NODE, 1, [resource(title, **members)])


# Body, and whether its resource is flagged: its exact form stands beside columns that hold the nearest one.
KEPT: dict[str, tuple[bytes, bool]] = {
    "U+0000 in a value": (with_parameters(a="\x00"), True),
    "U+0000 in a name": (with_parameters(**{"k\x00": 1}), True),
    "U+0000 in a title": (with_resource("nul\x00"), True),
    "U+0000 in an exported type": (with_resource(type_="A\x00b", exported=True), True),
    "U+0000 in an unknown member": (with_resource(foo={"a": "\x00"}), True),
    "a kind that nobody knows": (with_resource(kind="k\x00"), True),
    "U+0000 in a file": (with_resource(file="/m\x00.pp"), False),  # the position is flagged
    "a lone surrogate": (with_parameters(a="\udc80"), True),
    "the largest double": (with_number("1.7976931348623157e308"), True),
    "the smallest double": (with_number("5e-324"), False),
    "an integer of 4000 digits": (with_number("1" * 4000), False),
    "exponents and escapes that are only text": (with_parameters(c=r"1e22 \u0000"), False),
    "a title of 20 KB": (with_resource(LONG), False),
    "a title of 3 MB": (with_resource("x" * 3_000_000), False),
    "a type of 20 KB": (with_resource(type_=LONG), False),
    "a parameter's name of 20 KB": (with_parameters(**{LONG: 1}), False),
    "a tag of 20 KB": (with_resource(tags=[LONG]), False),
    "a file of 20 KB": (with_resource(file=LONG), False),
    "190 arrays in one another": (with_number("[" * 190 + "]" * 190), False),
    "the year 1": (with_resource().replace(b"2026-01-01T00:01:00+00:00", b"0001-01-03T23:59:59Z"), False),
}
REFUSED: dict[str, bytes] = {
    "an exported type of 20 KB": with_resource(
        type_=LONG, exported=True
    ),  # over-long for the index of exports
    "a certname of 4 KB": wire_body(WIDE, 1, [resource("/x")]),
    "an environment of 4 KB": with_resource().replace(b'"production"', f'"{WIDE}"'.encode()),
    "a number beyond a double": with_number("1e999"),
    "an integer of 5000 digits": with_number("1" * 5000),
    "100000 arrays in one another": with_number("[" * 100_000 + "]" * 100_000),
    "a line beyond 64 bits": with_resource(line=2**63),
}


@pytest.mark.parametrize("name", KEPT)
def test_it_comes_back_as_it_was(connection: Connection, name: str) -> None:
    """Equal to what was sent; flagged where a column holds only the nearest form, and only there."""
    body, is_flagged = KEPT[name]
    assert Pipeline(connection).take(body) == [Outcome.STORED]
    assert repr(stored(connection, NODE)) == repr(expected(body))
    row = connection.execute("SELECT count(exact) FROM node_resources").fetchone()
    assert row == (int(is_flagged),)


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_for_good(connection: Connection, name: str) -> None:
    """Rejected, which no one tries again; nothing of it is stored, and the writer goes on."""
    pipeline = Pipeline(connection)
    with pytest.raises(Rejected):
        pipeline.take(REFUSED[name])
    row = connection.execute(
        "SELECT (SELECT count(*) FROM nodes) + (SELECT count(*) FROM resources)"
    ).fetchone()
    assert row == (0,)
    assert pipeline.take(with_resource("/good")) == [Outcome.STORED]


def test_what_postgresql_refuses_is_quarantined_and_its_neighbours_are_stored(
    database: str, connection: Connection, tmp_path: Any
) -> None:
    """Several in one batch, each found by halving; the engine acknowledges all and is idle afterwards."""
    bad = [REFUSED["an exported type of 20 KB"], REFUSED["a certname of 4 KB"]]
    good = [wire_body(f"good-{n}.example.com", 1, [resource(f"/{n}")]) for n in range(6)]
    with embedded_broker() as broker:
        publish(broker, *good[:2], bad[0], *good[2:4], bad[1], *good[4:])
        engine = Engine(broker, database, "--workers", "1", "--batch-linger-ms", "500", log=tmp_path / "log")
        try:
            engine.wait_ready()
            settled = engine.wait_settled(8)
            assert settled["quarantined"] == 2
            assert settled["stored"] == 6
            assert engine.stop() == 0
        finally:
            engine.kill()
    rows: Any = connection.execute("SELECT DISTINCT reason FROM quarantine").fetchall()
    assert rows == [("refused_by_postgresql",)]
    for body in good:
        assert stored(connection, expected(body)["certname"]) == expected(body)
