"""Messages that hurt: each goes to quarantine by itself, whole, and its neighbours are stored."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ingest.store.connection import Connection
from lab.engine import Start, publish, wait_for
from lab.store_model import START, expected, resource, stored, wire_body
from tests.faults.traffic import MINUTES_OF_CENTURY, dated

MIB = 1024 * 1024
OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
GOOD = [wire_body(f"{name}.example.com", 1, [resource(f"/{name}")]) for name in ("before", "after")]


def in_quarantine(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT reason, detail, digest, body FROM quarantine ORDER BY id").fetchall()


def test_a_body_that_needs_too_much_memory(start: Start, broker: str, connection: Connection) -> None:
    """Seven million empty lists: the decoder says so and lives."""
    engine = start(
        "--workers", "1", "--decode-memory-bytes-max", "64MiB", "--window-bytes-max", "64MiB", "--body-bytes-max", "32MiB"
    )  # fmt: skip
    children = engine.children()
    bomb = wire_body("bomb.example.com", 1, [resource("/x", parameters={"p": "@"})])
    publish(broker, GOOD[0], bomb.replace(b'"@"', b"[" + b"[]," * (7 * MIB) + b"[]]"), GOOD[1])
    settled = engine.wait_settled(3)
    assert (settled["stored"], settled["quarantined"]) == (2, 1)
    assert [row[0] for row in in_quarantine(connection)] == ["too_much_memory"]
    assert engine.children() == children


def test_a_body_that_takes_too_much_time(start: Start, broker: str, connection: Connection) -> None:
    """The decoder is killed over it; after ``deaths_max`` of them it is tried alone, then the message is condemned, and
    the next decoder goes on with the others. Its row names its node."""
    engine = start(
        "--workers", "1", "--decode-cpu-max-s", "0.5", "--deaths-max", "2", "--alone-after-s", "0.5"
    )
    many = [resource(f"/{n}", parameters={"content": f"{n}"}) for n in range(300_000)]
    slow = wire_body("slow.example.com", 1, many)
    publish(broker, GOOD[0], slow, GOOD[1])
    settled = engine.wait_settled(3)
    assert (settled["stored"], settled["quarantined"]) == (2, 1)
    row: Any = connection.execute("SELECT reason, certname, body_digest FROM quarantine").fetchone()
    assert row[:2] == ("killed_its_process", "slow.example.com")
    assert bytes(row[2]) == hashlib.sha256(slow).digest()
    died = [line["how"] for line in engine.lines() if line.get("event") == "child_died"]
    assert died == ["signal SIGKILL"] * 3
    assert stored(connection, "after.example.com") == expected(GOOD[1])


def test_a_row_that_postgresql_refuses(start: Start, broker: str, connection: Connection) -> None:
    """Of one batch of thirty the refused ones alone go to quarantine, with their bodies, so that they can be sent
    again; no value of theirs is in the reason."""
    bodies = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(30)]
    for at in (3, 17):  # an index entry has 2704 bytes at most
        name = "".join(chr(0x10000 + at * 2000 + n) for n in range(1000))
        bodies[at] = bodies[at].replace(b"production", name.encode())
    publish(broker, *bodies)  # before the engine is there: they arrive together
    engine = start("--workers", "1", "--writers", "1", "--batch-linger-ms", "1000")
    settled = engine.wait_settled(30)
    assert (settled["stored"], settled["quarantined"]) == (28, 2)
    rows = in_quarantine(connection)
    assert {bytes(body) for _, _, _, body in rows} == {bodies[3], bodies[17]}
    for reason, detail, _, _ in rows:
        assert reason == "refused_by_postgresql"
        assert chr(0x10000 + 3 * 2000 + 5) not in detail
        assert "DETAIL" not in detail


def test_a_lost_privilege_makes_the_engine_wait(start: Start, broker: str, connection: Connection) -> None:
    """It is no fault of the messages: none goes to quarantine, all are stored once it is mended."""
    engine = start("--backoff-max-s", "0.2", "--deaths-max", "1")
    connection.execute("ALTER TABLE resources RENAME TO resources_away")
    publish(broker, *GOOD)
    wait_for(
        lambda: [line for line in engine.lines() if line.get("event") == "database_unavailable"], engine, "waiting"
    )  # fmt: skip
    connection.execute("ALTER TABLE resources_away RENAME TO resources")
    assert engine.wait_settled(2)["stored"] == 2
    assert not [line for line in engine.lines() if line.get("event") == "child_died"]


def test_a_clock_that_jumps(start: Start, broker: str, connection: Connection) -> None:
    """What a producer says of the time decides, but a century too late counts as of its arrival: the node's next catalog
    is newer. So does a message without any time of its own."""
    engine = start()
    now = (datetime.now(UTC) - START) // timedelta(minutes=1)
    minutes = [5, MINUTES_OF_CENTURY, -MINUTES_OF_CENTURY // 4, 10, now + 60]
    bodies = [dated(wire_body("n.example.com", 1, [resource(f"/{minute}")]), minute) for minute in minutes]
    publish(broker, *bodies)
    settled = engine.wait_settled(5)
    assert settled["quarantined"] == 0
    assert stored(connection, "n.example.com") == expected(bodies[-1])
    assert [e["certname"] for e in engine.lines() if e.get("event") == "timestamp_in_the_future"] == [
        "n.example.com"
    ]
    document = json.loads(wire_body("none.example.com", 1, [resource("/x")]))
    del document["payload"]["producer_timestamp"]
    publish(broker, json.dumps(document).encode())
    engine.wait_settled(6)
    row: Any = connection.execute(
        "SELECT abs(extract(epoch FROM now() - producer_timestamp)) < 3600 FROM catalogs JOIN nodes ON id = node_id "
        "WHERE certname = 'none.example.com'"
    ).fetchone()
    assert row == (True,)


def test_a_node_whose_clock_was_ahead_can_be_forgotten(
    start: Start, broker: str, database: str, connection: Connection
) -> None:
    """By less than the tolerance, with the command of docs/operating.md; its next catalog is stored as if it were the
    first."""
    assert "`ingest node forget NODE`" in OPERATING.read_text(encoding="utf-8")
    engine = start()
    half_a_day = (datetime.now(UTC) - START) // timedelta(minutes=1) + 720
    ahead, now = (dated(wire_body("n.example.com", 1, [resource(f"/{n}")]), n) for n in (half_a_day, 10))
    publish(broker, ahead)
    engine.wait_settled(1)
    publish(broker, now)
    assert engine.wait_settled(2)["stale"] == 1
    command = [
        sys.executable,
        "-m",
        "ingest",
        "node",
        "forget",
        "n.example.com",
        "--yes",
        "--database",
        database,
    ]
    assert subprocess.run(command, check=False).returncode == 0
    publish(broker, now)
    assert engine.wait_settled(3)["stored"] == 2
    assert stored(connection, "n.example.com") == expected(now)
