"""The whole engine: real processes, a real socket, a real PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ingest.config.settings import Config
from ingest.store.connection import Connection
from lab import real_catalogs as corpus
from lab.engine import Engine, Start, publish, wait_for
from lab.store_model import expected, resource, stored, wire_body


def quarantined(connection: Connection) -> list[str]:
    rows: Any = connection.execute("SELECT reason FROM quarantine ORDER BY id").fetchall()
    return [row[0] for row in rows]


@pytest.mark.parametrize("form", ["wire", "native"])
def test_real_catalogs_travel_from_the_queue_to_the_tables(
    start: Start, broker: str, connection: Connection, form: str
) -> None:
    """Four rounds of real catalogs; what is read back equals the canonical wire form of the newest."""
    engine = start("--workers", "2")
    sent = 0
    for round_ in corpus.ROUNDS:
        publish(broker, *(corpus.body(role, round_, form) for role in corpus.ROLES))
        sent += len(corpus.ROLES)
        engine.wait_settled(sent)
        for role in corpus.ROLES:
            wire = expected(corpus.body(role, round_, "wire"))
            found = stored(connection, wire["certname"])
            for member in ("resources", "edges", "version", "environment"):
                assert found[member] == wire[member]
    assert engine.settled()["quarantined"] == 0
    assert engine.stop() == 0


def test_eight_workers_leave_nothing_behind(start: Start, broker: str, connection: Connection) -> None:
    """Nine children and the writers; SIGTERM ends them all, with every message acknowledged."""
    engine = start("--workers", "8", "--writers", "2")
    children = engine.children()
    assert sorted(children) == sorted(
        ["receiver", *(f"decoder-{n}" for n in range(8)), "writer-0", "writer-1"]
    )
    bodies = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(200)]
    publish(broker, *bodies)
    assert engine.stop() == 0
    assert not [pid for pid in children.values() if Path(f"/proc/{pid}").exists()]
    row: Any = connection.execute("SELECT count(*) FROM catalogs").fetchone()
    again = start()
    publish(broker, wire_body("last.example.com", 1, [resource("/l")]))
    # What was not settled before the drain comes again; nothing comes twice.
    assert sum(again.wait_settled(201 - row[0]).values()) == 201 - row[0]


BAD: list[tuple[str, bytes, str]] = [
    ("empty", b"", "unreadable"),
    ("truncated", corpus.body("minimal-01", 1, "wire")[:5000], "unreadable"),
    ("no catalog", b'{"hello": "world"}', "invalid"),
    ("not an object", b"[1, 2]", "invalid"),
    ("unknown command", b'{"command": "replace universe", "version": 1, "payload": {}}', "unknown_command"),
    (
        "unsupported version",
        b'{"command": "replace catalog", "version": 3, "payload": {}}',
        "unsupported_version",
    ),
    (
        "facts without values",
        b'{"command": "replace facts", "version": 5, "payload": {"certname": "n"}}',
        "invalid",
    ),
    ("duplicate", wire_body("bad.example.com", 1, [resource("/x"), resource("/x")]), "duplicate_resource"),
    ("upper-case tag", wire_body("bad.example.com", 1, [resource("/x", tags=["Bad"])]), "invalid_tag"),
    (
        "dangling edge",
        wire_body("bad.example.com", 1, [resource("/x"), resource("/y")], [(0, 1, "before")]).replace(
            b'"title": "/y", "exported"', b'"title": "/z", "exported"'
        ),
        "dangling_edge",
    ),
    (
        "number out of range",
        wire_body("bad.example.com", 1, [resource("/x", parameters={"n": 12345})]).replace(
            b"12345", b"1e999"
        ),
        "number_out_of_range",
    ),
]


@pytest.mark.parametrize(("body", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_message_is_quarantined_and_its_neighbours_are_stored(
    start: Start, broker: str, connection: Connection, body: bytes, reason: str
) -> None:
    """It is acknowledged once, with its reason in quarantine; the messages beside it are untouched."""
    engine = start("--workers", "1")
    good = [wire_body(f"{name}.example.com", 1, [resource(f"/{name}")]) for name in ("before", "after")]
    publish(broker, good[0], body, good[1])
    settled = engine.wait_settled(3)
    assert settled["quarantined"] == 1
    assert settled["stored"] == 2
    assert quarantined(connection) == [reason]
    for each in good:
        assert stored(connection, expected(each)["certname"]) == expected(each)


ODD: list[tuple[str, dict[str, Any]]] = [
    ("nul and lone surrogate", {"a": "\x00", "b": "\udcff"}),
    ("beyond 64 bits", {"n": 2**70, "f": 1e300}),
    ("deep", {"d": json.loads("[" * 100 + "]" * 100)}),
]


@pytest.mark.parametrize("parameters", [case[1] for case in ODD], ids=[case[0] for case in ODD])
def test_odd_content_is_stored_as_it_came(
    start: Start, broker: str, connection: Connection, parameters: dict[str, Any]
) -> None:
    """What is legal, however odd, comes back."""
    engine = start("--workers", "1")
    body = wire_body("odd.example.com", 1, [resource("x" * 20_000, parameters=parameters)])
    publish(broker, body)
    assert engine.wait_settled(1)["stored"] == 1
    assert stored(connection, "odd.example.com") == expected(body)


def test_bytes_that_are_not_utf8_can_be_recovered(start: Start, broker: str, connection: Connection) -> None:
    """A legacy body with Latin-1 in it is stored, each bad byte as a lone surrogate."""
    engine = start("--workers", "1")
    text = json.dumps({"name": "old.example.com", "version": 1, "tags": [], "classes": [], "edges": [],
                       "resources": [{"type": "File", "title": "/x", "parameters": {"content": "caf@"}}]})  # fmt: skip
    publish(broker, b'{"document_type":"Catalog","data":' + text.encode().replace(b"@", b"\xe9") + b"}")
    assert engine.wait_settled(1)["stored"] == 1
    (found,) = stored(connection, "old.example.com")["resources"]
    assert found["parameters"]["content"].encode("utf-8", "surrogateescape") == b"caf\xe9"


def large(certname: str, *titles: str) -> bytes:
    """Its new contents are a megabyte: they go to the writer in pieces, before the whole is decoded."""
    rest = [f"/{certname}/{n}" for n in range(1000)]
    return wire_body(certname, 1, [resource(t, parameters={"content": t * 60}) for t in [*titles, *rest]])


def test_a_large_catalog_is_written_while_it_is_decoded(
    start: Start, broker: str, connection: Connection
) -> None:
    """Several transactions write its contents, one settles it."""
    engine = start("--workers", "1", "--batch-linger-ms", "0")
    body = large("large.example.com")
    publish(broker, body)
    assert engine.wait_settled(1)["stored"] == 1
    assert stored(connection, "large.example.com") == expected(body)
    assert engine.written("ingest_batch_messages_sum") == 1
    wait_for(lambda: engine.written("ingest_batch_seconds_count") > 1, engine, "several transactions")


def test_a_large_catalog_with_a_content_that_postgresql_refuses(
    start: Start, broker: str, connection: Connection
) -> None:
    """What went before it is refused first, and then the catalog, which is quarantined with that reason."""
    connection.execute("ALTER TABLE resources ADD CONSTRAINT no_bad CHECK (title <> '/bad')")
    engine = start("--workers", "1")
    bad, good = large("bad.example.com", "/bad"), large("good.example.com")
    publish(broker, bad, good)
    settled = engine.wait_settled(2)
    assert (settled["quarantined"], settled["stored"]) == (1, 1)
    assert quarantined(connection) == ["refused_by_postgresql"]
    assert stored(connection, "good.example.com") == expected(good)


def test_a_body_of_exactly_the_default_limit_is_stored(
    start: Start, broker: str, connection: Connection
) -> None:
    """64 MiB in one parameter, among small neighbours."""
    engine = start("--workers", "1")
    limit = Config().body_bytes_max
    assert limit == 64 * 1024 * 1024
    empty = wire_body("large.example.com", 1, [resource("/large", parameters={"content": ""})])
    large = empty.replace(b'"content": ""', b'"content": "%s"' % (b"x" * (limit - len(empty))))
    assert len(large) == limit
    small = [wire_body(f"n{n}.example.com", 1, [resource("/x")]) for n in range(2)]
    publish(broker, small[0], large, small[1])
    assert engine.wait_settled(3)["stored"] == 3
    assert stored(connection, "large.example.com") == expected(large)
    assert stored(connection, "n1.example.com") == expected(small[1])


def test_a_body_over_the_limit_is_passed_over(start: Start, broker: str, connection: Connection) -> None:
    """It is quarantined without its body, and the next message is read correctly."""
    engine = start("--workers", "1", "--body-bytes-max", "100000")
    good = wire_body("good.example.com", 1, [resource("/x")])
    publish(broker, b"x" * 200_000, good)
    assert engine.wait_settled(2) == {
        "stored": 1,
        "unchanged": 0,
        "stale": 0,
        "superseded": 0,
        "quarantined": 1,
    }
    assert quarantined(connection) == ["too_large"]


def test_secrets_do_not_reach_the_quarantine(start: Start, broker: str, connection: Connection) -> None:
    """Neither of a readable message that is refused nor of an unreadable one."""
    engine = start("--workers", "1")
    secret = {"type": "User", "title": "u", "tags": [], "exported": False, "parameters": {"password": "hunter2"},
              "sensitive_parameters": ["password"]}  # fmt: skip
    body = json.dumps(
        {"name": "s.example.com", "version": 1, "resources": [secret, secret], "edges": []}
    ).encode()
    publish(broker, body, body[:-20])
    engine.wait_settled(2)
    rows: Any = connection.execute("SELECT body FROM quarantine").fetchall()
    assert len(rows) == 2
    assert all(b"hunter2" not in bytes(row[0]) for row in rows)
    assert "hunter2" not in engine.log.read_text()


@pytest.mark.parametrize("victim", ["decoder-0", "writer-0", "receiver"])
def test_a_killed_child_costs_nothing(start: Start, broker: str, connection: Connection, victim: str) -> None:
    """kill -9 in the middle of the work: every catalog is stored all the same."""
    engine = start("--workers", "2", "--writers", "1")
    bodies = [
        wire_body(f"n{n}.example.com", 1, [resource(f"/{n}-{m}") for m in range(50)]) for n in range(300)
    ]
    for at in range(0, 300, 50):
        publish(broker, *bodies[at : at + 50])
        pid = engine.children()[victim]
        os.kill(pid, signal.SIGKILL)
        replaced = partial(_is_replaced, engine, victim, pid)
        wait_for(replaced, engine, f"{victim} replaced")

    def all_stored() -> bool:
        row: Any = connection.execute("SELECT count(*) FROM catalogs").fetchone()
        return bool(row[0] == 300)

    wait_for(all_stored, engine, "all stored")
    assert stored(connection, "n299.example.com") == expected(bodies[299])
    assert quarantined(connection) == []
    assert engine.stop() == 0


def test_a_killed_supervisor_leaves_no_children_and_loses_nothing(
    start: Start, broker: str, connection: Connection
) -> None:
    """The next engine takes up what the broker still has."""
    engine = start("--workers", "2")
    children = engine.children()
    publish(broker, *(wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(100)))
    engine.process.kill()
    engine.process.wait()
    wait_for(lambda: not any(_runs(pid) for pid in children.values()), engine, "without children")
    again = start("--workers", "2")

    def all_stored() -> bool:
        row: Any = connection.execute("SELECT count(*) FROM catalogs").fetchone()
        return bool(row[0] == 100)

    wait_for(all_stored, again, "all stored")


def _is_replaced(engine: Engine, name: str, pid: int) -> bool:
    return engine.children().get(name, pid) != pid


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("flags", "setting", "code"),
    [
        (["--workers", "none"], "--workers", 2),
        (["--queue-source", "stomp://127.0.0.1:1"], "--queue-source", 3),
        (["--queue-source", "http://x"], "--queue-source", 2),
        (["--queue-type", "kafka"], "--queue-type", 2),
        (["--database", "host=127.0.0.1 port=1"], "--database", 3),
        (["--database", "nonsense"], "--database", 2),
        (["--log-format", "xml"], "--log-format", 2),
        (["--unknown"], "--unknown", 2),
    ],
)
def test_a_wrong_setting_is_one_clear_line(
    broker: str, database: str, flags: list[str], setting: str, code: int
) -> None:
    """It names the setting, tells no stack trace, and ends with the documented code."""
    given = ["--queue-source", broker, "--database", database, *flags]
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "run", *given],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert setting in done.stderr.splitlines()[-1]


def test_a_newer_schema_is_refused(broker: str, database: str, connection: Connection) -> None:
    """One line that says which schema the database has."""
    connection.execute("INSERT INTO schema_migrations (number, name) VALUES (9999, 'future')")
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "run", "--queue-source", broker, "--database", database],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert "9999" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
