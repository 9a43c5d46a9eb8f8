"""Bad messages in any number go to quarantine, thinned out, and the engine goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingest.store.connection import Connection
from lab.engine import Engine, Start, publish
from lab.store_model import expected, resource, stored, wire_body

GOOD = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(20)]


def command(name: str, version: int, certname: str, n: int) -> bytes:
    payload = {"certname": certname, "producer": "puppet", "values": {"n": n}, "environment": "production"}
    return json.dumps({"command": name, "version": version, "payload": payload}).encode()


def rows(connection: Connection) -> list[tuple[Any, ...]]:
    found = connection.execute(
        "SELECT reason, certname, attempts, body FROM quarantine ORDER BY id"
    ).fetchall()
    return [tuple(row) for row in found]


def test_a_thousand_messages_of_one_byte_stop_nobody(
    start: Start, broker: str, connection: Connection
) -> None:
    """They are counted, the newest hundred kept; what stands between and behind them is stored; the log stays short."""
    engine = start()
    bodies = [b"%c" % (33 + n % 90) for n in range(1000)]
    publish(broker, *bodies[:500], *GOOD[:10], *bodies[500:], *GOOD[10:])
    settled = engine.wait_settled(1020)
    assert (settled["quarantined"], settled["stored"]) == (1000, 20)
    assert all(stored(connection, f"n{n}.example.com") == expected(GOOD[n]) for n in range(20))
    found = rows(connection)
    assert sum(attempts for _, _, attempts, _ in found) == 1000
    assert len(found) <= 100
    told = [line for line in engine.lines() if line["event"] == "message_quarantined"]
    assert 0 < len(told) <= 2 * 2 * 10  # of two writers, for two reasons
    assert engine.stop() == 0


def test_one_node_refused_at_every_run_is_one_row(start: Start, broker: str, connection: Connection) -> None:
    """With a count and the newest body, though the certname is in no header."""
    engine = start()
    twice = [resource("/x"), resource("/x")]
    bodies = [wire_body("bad.example.com", n, twice) for n in range(30)]
    for at in range(0, 30, 10):
        publish(broker, *bodies[at : at + 10])
        engine.wait_settled(at + 10)
    ((reason, certname, attempts, body),) = rows(connection)
    assert (reason, certname, attempts) == ("duplicate_resource", "bad.example.com", 30)
    assert bytes(body) == bodies[-1]
    assert engine.written("ingest_quarantine_thinned_total") == 29
    assert engine.stop() == 0


def test_bodies_of_sixteen_megabytes_are_bounded(start: Start, broker: str, connection: Connection) -> None:
    """In bytes, not in messages."""
    engine = start("--quarantine-bytes-max", "40MiB")
    for n in range(3):
        publish(broker, b'{"certname": "n%d", "x": "%s' % (n, b"abcdefgh" * 2_000_000))
    engine.wait_settled(3)
    publish(broker, GOOD[0])
    assert engine.wait_settled(4)["stored"] == 1
    row: Any = connection.execute("SELECT count(*), sum(octet_length(body)) FROM quarantine").fetchone()
    assert row[0] == 3
    assert (row[1] or 0) <= 40 * 1024 * 1024
    assert engine.stop() == 0


def test_the_retired_settings_are_read_and_warned_about(
    start: Start, broker: str, connection: Connection, tmp_path: Path
) -> None:
    """As flags and in the file; they stop nobody."""
    file = tmp_path / "engine.toml"
    file.write_text("quarantine_per_minute_max = 2\n")
    engine: Engine = start("--quarantine-messages-max", "1", "--config", str(file))
    publish(broker, b"1", b"2", b"3", b"4", GOOD[0])
    assert engine.wait_settled(5)["stored"] == 1
    notes = [line["note"] for line in engine.lines() if line["event"] == "setting_retired"]
    assert len(notes) == 2
    assert any(note.startswith("quarantine_messages_max (from --quarantine-messages-max)") for note in notes)
    assert any(note.startswith(f"quarantine_per_minute_max (from {file})") for note in notes)
    assert engine.stop() == 0
