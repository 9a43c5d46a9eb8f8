"""Another kind of message is a folder and a line: somebody else's package brings it, and the engine is not changed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.core.delivery.importance import RANKS
from ingest.store.connection import Connection
from lab.engine import Engine, publish, wait_for
from lab.store_model import resource, wire_body

# Notes about nodes: the newest of each node counts.
NOTES = """
from datetime import datetime
from typing import ClassVar

import msgspec

from ingest.config.kinds import Kind
from ingest.core.delivery.envelope import open_envelope
from ingest.core.delivery.importance import REPORT
from ingest.core.delivery.work import Outcome, Settled
from ingest.core.metrics import Declared
from ingest.core.times import parse_time
from ingest.errors import Rejected


class Note(msgspec.Struct, array_like=True, frozen=True, tag="note"):
    is_early: ClassVar[bool] = False

    delivery: int
    certname: str
    producer_timestamp: datetime
    received_at: datetime
    text: str


class Beginning(msgspec.Struct, array_like=True, frozen=True, tag="note_beginning"):
    is_early: ClassVar[bool] = True

    delivery: int
    certname: str
    received_at: datetime
    text: str


WORKS = (Note, Beginning)


class Decoder:
    def __init__(self, settings):
        self._notes = 0

    @property
    def totals(self):
        return {"notes_read": self._notes}

    def decode(self, descriptor, body, known):
        envelope = open_envelope(body, descriptor.headers, descriptor.arrived_at)
        note = msgspec.json.decode(envelope.payload)
        if not note["text"]:
            raise Rejected("empty_note", "nothing is noted")
        self._notes += 1
        at = parse_time(note["at"], "at")
        yield Beginning(descriptor.delivery, note["certname"], descriptor.received_at, note["text"][:1])
        yield Note(descriptor.delivery, note["certname"], at, descriptor.received_at, note["text"])


class Writer:
    def __init__(self, settings):
        self._beginnings = {}

    def write(self, session, works):
        settled = []
        for work in works:
            if work.is_early:
                self._beginnings[work.delivery] = work.text
                continue
            session.cursor.execute(
                "INSERT INTO notes VALUES (%s, %s, %s, %s)",
                [work.certname, work.producer_timestamp, work.text, self._beginnings.pop(work.delivery, None)],
            )
            settled.append(Settled(work.delivery, Outcome.STORED))
        return settled

    def committed(self):
        pass

    rolled_back = forget = committed


def forget_old(connection, settings):
    found = connection.execute("DELETE FROM notes WHERE at < now() - %s", [settings.node_purge_ttl])
    return {"notes_forgotten": found.rowcount}


KIND = Kind(
    name="note",
    commands={"keep note": range(2, 4)},
    rank=REPORT,
    works="note_kind:WORKS",
    decoder="note_kind:Decoder",
    writer="note_kind:Writer",
    housekeeping="note_kind:forget_old",
    metrics=(Declared("notes_read", "gauge", "decoder", "Notes read.", "as many as were written"),),
)
"""
FLAGS = ("--gc-interval-s", "0.5", "--node-purge-ttl-s", "86400", "--workers", "1")


def note(certname: str, text: str, at: str = "2999-01-01T00:00:00Z") -> dict[str, Any]:
    return {"certname": certname, "text": text, "at": at}


@pytest.fixture
def engine(tmp_path: Path, broker: str, database: str, connection: Connection) -> Iterator[Engine]:
    """One that finds the package with the kind beside its own."""
    connection.execute("CREATE TABLE notes (certname text, at timestamptz, text text, beginning text)")
    site = tmp_path / "site"
    described = site / "note_kind-1.0.dist-info"
    described.mkdir(parents=True)
    (site / "note_kind.py").write_text(NOTES)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: note-kind\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        textwrap.dedent("""\
            [puppet_ingest.kinds]
            note = note_kind:KIND
            """)
    )
    started = Engine(broker, database, *FLAGS, log=tmp_path / "log", environment={"PYTHONPATH": str(site)})
    try:
        yield started
    finally:
        started.kill()


def forgotten(engine: Engine) -> int:
    return sum(line["notes_forgotten"] for line in engine.lines() if line["event"] == "housekeeping")


def test_a_registered_kind_goes_all_the_way(engine: Engine, broker: str, connection: Connection) -> None:
    """It is told by the body's begin, by its end and by the headers, decoded, stored, measured and forgotten; a time in the
    future counts as that of receipt; catalogs and deactivations are stored beside it, and before it where its begin tells it."""
    engine.wait_ready()
    at_the_begin = {"command": "keep note", "version": 2, "payload": note("a", "first")}
    at_the_end = {"version": 3, "payload": note("b", "second"), "command": "keep note"}
    old = {"command": "keep_note", "version": 3, "payload": note("c", "old", "2001-02-03T04:05:06Z")}
    deactivation = {"command": "deactivate node", "version": 3, "payload": {"certname": "d"}}
    publish(
        broker,
        *(json.dumps(body).encode() for body in (at_the_begin, at_the_end, old, deactivation)),
        wire_body("e.example", 1, [resource("/e")]),
    )
    publish(
        broker,
        json.dumps(note("f", "third")).encode(),
        headers={"command": "keep_note", "version": "2", "certname": "f"},
    )
    assert engine.wait_settled(6)["stored"] == 6
    wait_for(lambda: connection.execute("SELECT count(*) FROM notes").fetchone() == (3,), engine, "forgotten")
    rows = "SELECT certname, text, beginning, at < now() FROM notes ORDER BY certname"
    assert connection.execute(rows).fetchall() == [
        ("a", "first", "f", True),
        ("b", "second", "s", True),
        ("f", "third", "t", True),
    ]
    assert engine.status()["processes"]["decoder-0"]["notes_read"] == 4
    receiver = engine.status()["processes"]["receiver"]
    assert [receiver[f"ingest_settle_seconds_{rank}_count"] for rank in RANKS] == [3, 0, 3]
    assert engine.written("ingest_lag_seconds_count") == 1  # the catalog's
    assert connection.execute("SELECT certname FROM nodes WHERE certname = 'e.example'").fetchall()
    wait_for(lambda: forgotten(engine) == 1, engine, "told")  # a moment after it was committed
    assert engine.stop() == 0
    assert forgotten(engine) == 1


def test_what_a_registered_kind_refuses_is_kept(engine: Engine, broker: str, connection: Connection) -> None:
    """A version that it does not understand, what its decoder rejects, and commands that nobody has: each with its reason."""
    engine.wait_ready()
    bodies = (
        {"command": "keep note", "version": 9, "payload": note("a", "x")},
        {"version": 9, "payload": note("b", "x"), "command": "keep note"},
        {"command": "keep note", "version": 2, "payload": note("c", "")},
        {"command": "burn note", "version": 1, "payload": note("d", "x")},
        {"version": 1, "payload": note("e", "x"), "command": "burn note"},
    )
    publish(broker, *(json.dumps(body).encode() for body in bodies))
    engine.wait_settled(5)
    rows = connection.execute("SELECT reason, detail FROM quarantine ORDER BY certname").fetchall()
    unknown = ("unknown_command", "the command 'burn note' is not one of PuppetDB's")
    version = ("unsupported_version", "'keep note' version 9 is not one of 2 - 3")
    assert rows == [version, version, ("empty_note", "nothing is noted"), unknown, unknown]
    assert engine.stop() == 0
