"""``quarantine retry``: what is given back is the message that came, whole, or it is refused and stays."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.engine import Start, publish
from lab.servers import free_port
from lab.store_model import expected, resource, stored, wire_body

MIB = 1024 * 1024
TWICE = [resource("/x"), resource("/x")]  # a catalog that is refused
LATIN1 = (
    b'{"document_type": "Catalog", "data": {"name": "lat.example.com", "version": 1, "tags": ["settings"], '
    b'"classes": [], "environment": "production", "edges": [], "resources": [{"type": "File", "title": "/etc/motd", '
    b'"exported": true, "tags": ["file"], "parameters": {"content": "gr\xfc\xdf dich"}}, '
    b'{"type": "File", "title": "/etc/motd", "exported": true, "tags": ["file"], "parameters": {}}]}}'
)


def ingest(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "ingest", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip


def rows(connection: Connection) -> list[tuple[Any, ...]]:
    found = connection.execute(
        "SELECT id, certname, body, body_note, attempts FROM quarantine ORDER BY id"
    ).fetchall()
    return [tuple(row) for row in found]


def put(connection: Connection, body: bytes | None, /, **columns: Any) -> int:
    """A row as the engine writes it, for a body that came whole unless the columns say otherwise."""
    row = {
        "digest": os.urandom(8),
        "reason": "invalid",
        "detail": "",
        "headers": "{}",
        "body": body,
        "body_bytes": len(body or b""),
        "body_digest": None if body is None else hashlib.sha256(body).digest(),
    } | columns
    names, places = ", ".join(row), ", ".join(["%s"] * len(row))
    statement = f"INSERT INTO quarantine ({names}) VALUES ({places}) RETURNING id"
    found: Any = connection.execute(statement.encode(), list(row.values())).fetchone()
    return int(found[0])


def test_a_latin1_body_is_given_back_as_it_came(
    start: Start, broker: str, database: str, connection: Connection
) -> None:
    """Byte for byte, so that it is refused again for what it is, under its own name; no node of another name appears."""
    engine = start("--workers", "1")
    publish(broker, LATIN1)
    assert engine.wait_settled(1)["quarantined"] == 1
    ((number, certname, _, note, _),) = rows(connection)
    assert (certname, note) == ("lat.example.com", None)
    kept = connection.execute("SELECT body FROM quarantine").fetchall()
    assert [bytes(body) for (body,) in kept] == [LATIN1]  # type: ignore[call-overload]
    done = ingest("quarantine", "retry", str(number), "--database", database, "--queue-source", broker)
    assert done.returncode == 0, done.stderr
    assert engine.wait_settled(2)["quarantined"] == 2
    again = connection.execute("SELECT body, certname FROM quarantine").fetchall()
    assert [(bytes(body), name) for body, name in again] == [(LATIN1, "lat.example.com")]  # type: ignore[call-overload]
    publish(broker, wire_body("good.example.com", 1, [resource("/g")]))
    engine.wait_settled(3)
    nodes = connection.execute("SELECT certname FROM nodes").fetchall()
    assert [name for (name,) in nodes] == ["good.example.com"]


def test_a_body_above_what_is_kept_is_refused(
    start: Start, broker: str, database: str, connection: Connection
) -> None:
    """Of over 16 MiB a part is kept, or nothing: neither is sent."""
    engine = start("--workers", "1")
    large = wire_body("large.example.com", 1, [resource("/x", parameters={"c": "x" * (17 * MIB)}), *TWICE])
    publish(broker, large)
    assert engine.wait_settled(1)["quarantined"] == 1
    ((number, certname, _, _, _),) = rows(connection)
    assert certname == "large.example.com"
    done = ingest("quarantine", "retry", str(number), "--database", database, "--queue-source", broker)
    assert done.returncode == 5
    assert len(rows(connection)) == 1
    assert sum(engine.settled().values()) == 1


def test_a_whole_message_is_given_back_as_it_came(
    start: Start, broker: str, database: str, connection: Connection
) -> None:
    """The bytes that were published, with their headers: once what refused it is mended it is stored, and its row is
    gone."""
    connection.execute("ALTER TABLE resources ADD CONSTRAINT no_bad CHECK (title <> '/bad')")
    engine = start("--workers", "1")
    odd = {"c": "grüß \u2028 dich", "n": 1e22, "nul": "\x00"}
    body = wire_body("bad.example.com", 1, [resource("/bad", parameters=odd)])
    publish(broker, body, headers={"certname": "bad.example.com", "producer": "puppet.example.com"})
    assert engine.wait_settled(1)["quarantined"] == 1
    ((number, _, kept, note, _),) = rows(connection)
    assert (bytes(kept), note) == (body, None)
    connection.execute("ALTER TABLE resources DROP CONSTRAINT no_bad")
    done = ingest("quarantine", "retry", str(number), "--database", database, "--queue-source", broker)
    assert (done.returncode, done.stdout) == (0, "1 given back to /queue/catalog\n")
    assert engine.wait_settled(2)["stored"] == 1
    assert stored(connection, "bad.example.com") == expected(body)
    assert rows(connection) == []


SECRET = {"type": "User", "title": "u", "tags": [], "exported": False, "parameters": {"password": "hunter2"},
          "sensitive_parameters": ["password"]}  # fmt: skip
NOT_THE_MESSAGE: dict[str, dict[str, Any]] = {
    "no body": {"body": None, "body_bytes": 10, "body_note": "too large: not kept"},
    "an empty one": {"body": None, "body_bytes": 0},
    "redacted": {"body_note": "1 sensitive values redacted"},
    "masked": {"body_note": "unreadable: values masked"},
    "cut": {"body_bytes": 20 * MIB, "body_note": None},
    "changed": {"body_digest": b"\0" * 32},
    "a long header": {"headers": json.dumps({"certname": "n" * 1024})},
    "a header that was not UTF-8": {"headers": json.dumps({"producer": "p\ufffdppet"})},
    "a header with a line end": {"headers": json.dumps({"certname": "a\nmessage-id:x"})},
    "dropped": {"body": None, "body_note": "dropped: the quarantine was over quarantine_bytes_max"},
}


@pytest.mark.parametrize("case", NOT_THE_MESSAGE)
def test_what_is_not_the_message_stays(broker: str, database: str, connection: Connection, case: str) -> None:
    """One line says why, with exit code 5; nothing is sent, and what stood beside it on the command line stays too."""
    good = put(connection, b'{"a": 1}')
    bad = put(connection, b'{"b": 1}', **NOT_THE_MESSAGE[case])
    order = [str(bad), str(good)] if case == "changed" else [str(good), str(bad)]
    done = ingest("quarantine", "retry", *order, "--database", database, "--queue-source", broker)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith(f"ingest: {bad} cannot be given back: ")
    assert done.stderr.count("\n") == 1
    assert len(rows(connection)) == 2


def test_all_of_a_reason_can_be_given_back(
    start: Start, broker: str, database: str, connection: Connection
) -> None:
    """Those that are the message; the others stay, and so do those of another reason."""
    bodies = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(200)]
    for body in bodies:
        put(connection, body, reason="refused_by_postgresql")
    put(connection, b"x", reason="refused_by_postgresql", body_note="cut")
    put(connection, b"x", reason="invalid")
    retry = ("quarantine", "retry", "--reason", "refused_by_postgresql", "--database", database)
    done = ingest(*retry, "--queue-source", broker)
    assert (done.returncode, done.stdout) == (0, "200 given back to /queue/catalog\n")
    assert len(rows(connection)) == 2
    engine = start("--workers", "1")
    assert engine.wait_settled(200)["stored"] == 200


def test_without_a_broker_nothing_is_forgotten(database: str, connection: Connection) -> None:
    """A row goes only after the broker's receipt."""
    number = put(connection, b"{}")
    nowhere = f"stomp://127.0.0.1:{free_port()}"
    done = ingest("quarantine", "retry", str(number), "--database", database, "--queue-source", nowhere)
    assert done.returncode == 3
    assert len(rows(connection)) == 1


def test_nothing_named_is_a_wrong_command(database: str, broker: str) -> None:
    done = ingest("quarantine", "retry", "--database", database, "--queue-source", broker)
    assert done.returncode == 2
