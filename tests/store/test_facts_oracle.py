"""The same commands into PuppetDB 7.12 and into our tables: the same answers."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection, connect
from ingest.store.migrate import migrate
from lab import real_facts as corpus
from lab.facts import FactsPipeline, facts_body
from lab.puppetdb import PuppetDB, missing
from lab.servers import Postgres
from lab.store_model import Pipeline, at

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

# Without a fact that is an empty hash or array, nor a node without facts: there PuppetDB breaks off its fact-contents.
ODD: dict[str, Any] = {
    "numbers": [0, 0.0, 1, 1.0, 1.5, 10**20, -1, 1e-7],
    "empty": {"hash": {}, "array": [], "string": "", "null": None},
    "a.b": {"x.y": {'"': [True, False]}, "#~": 1, "0": "a digit", "k#~k": 2},
    "ünï 🙂": {"kéy": "välue"},
    "nothing": None,
    "nul": "a\x00b",
    "trusted": {"authenticated": "remote", "certname": "odd", "extensions": {"pp_role": "web"}},
}
PACKAGES = [["bash", "5.2", "apt"], ["rake", "13.0", "gem"], ["bash", "5.2", "apt"]]


class Both:
    """Takes commands, and compares."""

    def __init__(self, peer: PuppetDB, connection: Connection) -> None:
        self.peer = peer
        self.connection = connection
        self.facts = FactsPipeline(connection)
        self.others = Pipeline(connection)

    def take(self, *bodies: bytes) -> None:
        for body in bodies:  # one after the other: PuppetDB drops what a waiting one makes obsolete
            self.peer.store([body])
            is_facts = json.loads(body)["command"] == "replace facts"
            (self.facts if is_facts else self.others).take(body)
        self.compare()

    def rows(self, statement: str) -> list[dict[str, Any]]:
        cursor: Any = self.connection.execute(statement)  # type: ignore[call-overload]
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def compare(self) -> None:
        same(self.peer.ask("facts"), self.rows("SELECT certname, environment, name, value FROM facts"))
        same(
            [
                {name: its[name] for name in ("certname", "environment", "producer")}
                | {"facts": {fact["name"]: fact["value"] for fact in its["facts"]["data"] or ()}}
                for its in self.peer.ask("factsets")
            ],
            self.rows("SELECT certname, environment, producer, facts FROM factsets"),
        )
        same(
            [without(its, "timestamp") for its in self.peer.ask("inventory")],
            self.rows("SELECT certname, environment, facts, trusted FROM inventory"),
        )
        same(
            self.peer.ask("fact-contents"),
            self.rows("SELECT certname, environment, name, path, value FROM fact_contents"),
        )
        same(
            self.peer.ask("package-inventory"),
            self.rows("SELECT certname, package_name, version, provider FROM package_inventory"),
        )
        times = {its["certname"]: its["producer_timestamp"] for its in self.peer.ask("factsets")}
        ours = self.rows("SELECT certname, producer_timestamp FROM factsets")
        assert {its["certname"]: milliseconds(its["producer_timestamp"]) for its in ours} == times

    def compare_names(self) -> None:
        """What PuppetDB never forgets while it runs is a superset."""
        assert {row["name"] for row in self.rows("SELECT name FROM fact_names")} <= set(
            self.peer.ask("fact-names")
        )
        theirs = {key(its) for its in self.peer.ask("fact-paths")}
        for row in self.rows("SELECT name, path_array AS path, type FROM fact_paths"):
            assert key({"path": row["path"], "type": row["type"]}) in {
                key({"path": json.loads(its)["path"], "type": json.loads(its)["type"]}) for its in theirs
            }


def key(row: dict[str, Any]) -> str:
    return json.dumps(_as_java(row), sort_keys=True)


def _as_java(value: Any) -> Any:
    """Java writes a float of ten million and more with an exponent, of which jsonb makes an integer."""
    if isinstance(value, dict):
        return {name: _as_java(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_java(item) for item in value]
    return int(value) if isinstance(value, float) and abs(value) >= 1e7 else value


def same(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> None:
    expected, found = sorted(map(key, theirs)), sorted(map(key, ours))
    assert [row for row in found if row not in expected] == []
    assert [row for row in expected if row not in found] == []
    assert len(expected) == len(found)


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def milliseconds(time: Any) -> str:
    return str(time.isoformat(timespec="milliseconds")).replace("+00:00", "Z")


@pytest.fixture(scope="module")
def peer() -> Iterator[tuple[PuppetDB, str]]:
    directory = Path(tempfile.mkdtemp(prefix="ingest-oracle-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    server.start()
    server.execute("postgres", "CREATE DATABASE ingest")
    puppetdb = PuppetDB(directory, server)
    connection = connect(server.conninfo("ingest"))
    migrate(connection)
    connection.close()
    yield puppetdb, server.conninfo("ingest")
    puppetdb.stop()
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def both(peer: tuple[PuppetDB, str]) -> Iterator[Both]:
    connection = connect(peer[1])
    yield Both(peer[0], connection)
    connection.close()


def deactivation(certname: str, minute: int) -> bytes:
    payload = {"certname": certname, "producer_timestamp": at(minute).isoformat(timespec="milliseconds")}
    return json.dumps({"command": "deactivate node", "version": 3, "payload": payload}).encode()


def facts_of(certname: str, minute: int, values: Any, packages: Any = None, **more: Any) -> bytes:
    time = at(minute).isoformat(timespec="milliseconds")
    return facts_body(certname, minute, values, packages, producer_timestamp=time, **more)


def test_real_facts_give_the_same_answers(both: Both) -> None:
    """After each of four rounds, and after the first one again, which is older."""
    for round_ in (*corpus.ROUNDS, 1):
        both.take(*(corpus.body(role, round_) for role in corpus.ROLES))
    both.compare_names()


def old_version(certname: str, minute: int) -> bytes:
    command = json.loads(facts_of(certname, minute, {"a": minute}))
    del command["payload"]["producer"]
    return json.dumps(command | {"version": 4}).encode()


STEPS = {
    "odd values": [
        facts_of("odd", 1, ODD),
        facts_of("odd", 2, ODD | {"numbers": [1.0, 1, 0], "nul": "\x00"}),
    ],
    "shapes": [
        facts_of("shape", 1, {"a": 1, "b": {"c": 1}}),
        facts_of("shape", 2, {"a": {"d": 1}, "b": {"c": [1]}}),
        facts_of("shape", 3, {"c": 1}),
    ],
    "packages": [
        facts_of("packages", minute, {"a": 1}, packages)
        for minute, packages in enumerate([PACKAGES, PACKAGES[1:], [], PACKAGES, None, PACKAGES])
    ],
    "places": [
        facts_of("places", 1, {"a": 1}, environment="production", producer="p1"),
        facts_of("places", 2, {"a": 1}, environment="testing", producer=None),
        facts_of("places", 3, {"a": 2}, environment="testing", producer="p2"),
    ],
    "order": [facts_of("order", minute, {"a": minute}) for minute in (5, 4, 6)],
    "life": [
        facts_of("life", 5, {"a": 5}),
        deactivation("life", 4),
        deactivation("life", 6),
        facts_of("life", 5, {"a": 5}),
        facts_of("life", 7, {"a": 7}),
    ],
    "early": [deactivation("early", 9), facts_of("early", 8, {"a": 1}), facts_of("early", 10, {"a": 2})],
    "version 4": [old_version("four", 1), old_version("four", 2)],
}


@pytest.mark.parametrize("steps", STEPS)
def test_step_by_step_the_same_answers(both: Both, steps: str) -> None:
    """Odd values, shapes, packages, environments, order, deactivation, an older version."""
    for body in STEPS[steps]:
        both.take(body)
