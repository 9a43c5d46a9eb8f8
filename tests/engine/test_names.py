"""A producer that invents names leaves the engine as it was, and the database with what nodes have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingest.store.connection import Connection
from ingest.store.housekeeping import collect_garbage
from lab.engine import Engine, Start, publish

NODES, MESSAGES = 200, 6000
GROWTH_KIB_MAX = 4096  # each writer would remember 7 MB of names


def writers_kib(engine: Engine) -> list[int]:
    return [
        int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])
        for name, pid in engine.children().items()
        if name.startswith("writer")
    ]


def catalog(number: int) -> bytes:
    payload = {
        "certname": f"n{number % NODES}.example.com", "version": "1", "producer_timestamp": f"2026-01-01T00:00:00.{number:06}Z",
        "environment": f"e{number}" + "x" * 1000, "producer": f"p{number}" + "y" * 1000, "resources": [], "edges": [],
    }  # fmt: skip
    return json.dumps({"command": "replace catalog", "version": 9, "payload": payload}).encode()


def test_ever_new_environments_and_producers(start: Start, broker: str, connection: Connection) -> None:
    """A kilobyte each: no writer grows by what it was told, and what no node has any more is collected."""
    engine = start("--writers", "2")
    publish(broker, *map(catalog, range(NODES)))
    engine.wait_settled(NODES)
    before = writers_kib(engine)
    publish(broker, *map(catalog, range(NODES, MESSAGES)))
    assert engine.wait_settled(MESSAGES)["quarantined"] == 0
    grown = [after - first for after, first in zip(writers_kib(engine), before, strict=True)]
    assert max(grown) < GROWTH_KIB_MAX
    collect_garbage(connection, pause_s=0)
    for table in ("environments", "producers"):
        row: Any = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[call-overload]
        assert row == (NODES,)
    publish(broker, catalog(0).replace(b"2026-01-01", b"2026-01-02"))  # its first names, which a writer had
    engine.wait_settled(MESSAGES + 1)
    assert connection.execute(
        "SELECT left(environment, 3), left(producer, 3) FROM node_catalogs WHERE certname = 'n0.example.com'"
    ).fetchone() == ("e0x", "p0y")
    assert engine.stop() == 0
