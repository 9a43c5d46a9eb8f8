"""Facts through a whole engine: real processes, a real socket, a real PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ingest.store.connection import Connection
from ingest.store.facts.reading import read_factset
from lab import real_catalogs
from lab import real_facts as corpus
from lab.engine import Start, publish
from lab.facts import facts_body, sent
from lab.store_model import expected, resource, stored, wire_body


def values(connection: Connection, certname: str) -> dict[str, Any]:
    found: dict[str, Any] = read_factset(connection, certname)["values"]
    return found


def test_real_facts_travel_from_the_queue_to_the_tables(
    start: Start, broker: str, connection: Connection
) -> None:
    """Four rounds beside catalogs on one queue; what is read back is what was sent last."""
    engine = start("--workers", "2")
    messages = 0
    for round_ in corpus.ROUNDS:
        bodies = [corpus.body(role, round_) for role in corpus.ROLES]
        catalog = real_catalogs.body("minimal-01", round_, "wire")
        publish(broker, *bodies, catalog)
        messages += len(bodies) + 1
        engine.wait_settled(messages)
        for body in bodies:
            assert values(connection, json.loads(body)["certname"]) == sent(body)
        assert stored(connection, expected(catalog)["certname"])["version"] == expected(catalog)["version"]
    assert engine.settled()["quarantined"] == 0
    assert engine.stop() == 0


def test_every_version_is_understood_and_what_is_not_is_kept(
    start: Start, broker: str, connection: Connection
) -> None:
    """Bad ones go to quarantine by themselves; a certname there, and the next good one is stored."""
    engine = start("--workers", "2", "--facts-blocklist", "~^ec2_ secrets.*.token")
    old = {
        "command": "replace facts",
        "version": 2,
        "payload": json.dumps({"name": "old", "environment": "e", "values": {"a": "1"}}),
    }
    bad = json.loads(facts_body("bad", 1, {"a": 1})) | {"version": 9}
    fine = {"a": 1, "ec2_userdata": "hush", "secrets": {"x": {"token": "hush", "kept": True}}}
    publish(
        broker,
        json.dumps(old).encode(),
        json.dumps(bad).encode(),
        facts_body("bad", 2, {"a": {"b": 1}})[:-30],
        facts_body("fine", 1, fine, [["p", "1", "apt"]]),
        wire_body("fine", 1, [resource("/x")]),
    )
    engine.wait_settled(5)
    assert engine.settled()["quarantined"] == 2
    assert values(connection, "old") == {"a": "1"}
    assert values(connection, "fine") == {"a": 1, "secrets": {"x": {"kept": True}}}
    rows: Any = connection.execute("SELECT certname, reason FROM quarantine ORDER BY reason").fetchall()
    assert rows == [("bad", "unreadable"), ("bad", "unsupported_version")]
    assert engine.stop() == 0


def test_after_a_restart_and_garbage_collection_nothing_is_missing(
    start: Start, broker: str, connection: Connection
) -> None:
    """A decoder that has sent a shape and a writer that has lost it find together again."""
    engine = start("--workers", "1", "--writers", "2", "--gc-interval-s", "0.2")
    messages = 0
    for minute in range(1, 30):
        its = {"a": minute} if minute % 3 else {f"b{minute % 4}": {"c": minute}, "d": []}
        publish(
            broker, *(facts_body(f"n{n}", minute, its, [["p", str(minute % 3), "apt"]]) for n in range(4))
        )
        messages += 4
        engine.wait_settled(messages)
        for n in range(4):
            assert values(connection, f"n{n}") == its
    assert engine.settled()["quarantined"] == 0
    assert engine.stop() == 0


def test_a_person_can_ask_for_facts(start: Start, broker: str, database: str, tmp_path: Path) -> None:
    """``ingest show NODE --facts`` and ``ingest query facts NAME [VALUE]``."""
    engine = start("--workers", "1")
    publish(
        broker,
        *(
            facts_body(f"n{n}", 1, {"role": "web" if n else "db", "cores": n}, [["p", "1", "apt"]])
            for n in range(3)
        ),
    )
    engine.wait_settled(3)
    assert engine.stop() == 0

    def ingest(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ingest", *words, "--database", database],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip

    shown = json.loads(ingest("show", "n1", "--facts").stdout)
    assert (shown["certname"], shown["values"]) == ("n1", {"role": "web", "cores": 1})
    assert shown["package_inventory"] == [["p", "1", "apt"]]
    lines = ingest("query", "facts", "role", "web").stdout.splitlines()
    assert [json.loads(line)["certname"] for line in lines] == ["n1", "n2"]
    assert [json.loads(line)["value"] for line in ingest("query", "facts", "cores").stdout.splitlines()] == [
        0,
        1,
        2,
    ]
    assert [
        json.loads(line)["certname"] for line in ingest("query", "facts", "cores", "2").stdout.splitlines()
    ] == ["n2"]
    assert ingest("query", "facts", "cores", '"2"').stdout == ""
    refused = ingest("show", "nobody", "--facts")
    assert refused.returncode != 0
    assert "no facts of nobody are stored" in refused.stderr


def test_a_pattern_that_is_none_stops_the_start(tmp_path: Path) -> None:
    """With the setting and the pattern in one line."""
    (tmp_path / "ingest.toml").write_text('facts_blocklist = ["fine.*", "~("]\n')
    found = subprocess.run(
        [sys.executable, "-m", "ingest", "config"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert found.returncode != 0
    assert "--facts-blocklist" in found.stderr
    assert "'~('" in found.stderr
    assert len(found.stderr.splitlines()) == 1
