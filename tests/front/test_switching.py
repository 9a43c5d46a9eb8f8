"""From a real PuppetDB 7.12 and back again: nothing is lost on the way but what PuppetDB itself leaves out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab import puppetdb, real_catalogs, real_facts
from lab.engine import Engine
from lab.front import Front, ask
from lab.servers import Postgres, embedded_broker
from tests.front.odd_fleet import odd_fleet
from tests.front.test_archive import form, members
from tests.front.test_oracle import command

ARCHIVE = "/pdb/admin/v1/archive"
WAIT_S = 120


class World:
    """A PuppetDB with the odd fleet, and an engine with a front over an empty database."""

    def __init__(
        self, oracle: int, database: str, broker: str, engine: Engine, front: Front, home: Path
    ) -> None:
        self.oracle, self.database, self.broker, self.engine, self.front = (
            oracle,
            database,
            broker,
            engine,
            front,
        )
        self.home = home
        self.settled = 0

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command_line = [sys.executable, "-m", "ingest", *words, "--data-dir", str(self.home / "data")]
        return subprocess.run(
            command_line, capture_output=True, text=True, timeout=WAIT_S, env=os.environ, check=False
        )

    def bring_in(self, source: str) -> int:
        """``ingest import``, until it is stored; how many files."""
        told = self.run("import", source, "--queue-source", self.broker)
        assert told.returncode == 0, told.stderr
        files = sum(int(part.split()[0]) for part in told.stdout.removeprefix("imported ").split(", "))
        self.settled += files
        self.engine.wait_settled(self.settled)
        return files

    def compare(self) -> list[dict[str, Any]]:
        """The nodes that differ."""
        told = self.run(
            "compare",
            f"http://127.0.0.1:{self.oracle}",
            "--database",
            self.database,
            "--settle",
            "0.1",
            "--json",
        )
        assert told.stdout, told.stderr
        *nodes, counts = map(json.loads, told.stdout.splitlines())
        assert told.returncode == (1 if nodes else 0), told.stderr
        assert counts["differ"] == len(nodes)
        assert counts["compared"] > 10
        return nodes


@pytest.fixture(scope="module")
def world(postgres: Postgres) -> Iterator[World]:
    if reason := puppetdb.missing():
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="ingest-switching-"))
    directory.chmod(0o755)
    (directory / "postgresql").mkdir()
    theirs = Postgres(directory / "postgresql")
    theirs.start()
    oracle = puppetdb.PuppetDB(directory, theirs)
    postgres.execute("postgres", "CREATE DATABASE switching TEMPLATE template_ingest")
    conninfo = postgres.conninfo("switching")
    try:
        for one in odd_fleet(datetime.now(UTC), for_puppetdb=True):
            command(oracle.port, one)
        oracle.store([real_catalogs.body(role, 1, "wire") for role in real_catalogs.ROLES])
        oracle.store([real_facts.body(role, 1) for role in real_facts.ROLES])
        with embedded_broker() as broker:
            engine = Engine(
                broker, conninfo, "--writers", "1", "--workers", "1", log=directory / "engine.log"
            )
            engine.wait_ready()
            front = Front(
                conninfo, broker, "--also", f"http://127.0.0.1:{oracle.port}", "--data-dir", str(directory / "front"),
                log=directory / "front.log",
            )  # fmt: skip
            front.wait_ready()
            yield World(oracle.port, conninfo, broker, engine, front, directory)
            front.stop()
            engine.stop()
    finally:
        oracle.stop()
        theirs.stop()
        postgres.execute("postgres", "DROP DATABASE switching WITH (FORCE)")


def test_all_that_a_live_puppetdb_has_comes_in(world: World) -> None:
    """By its queries: packages and deactivations too. Then nothing differs; with one command more it is named."""
    differing = world.compare()
    assert len(differing) > 10
    assert all("state" in one["differs"] for one in differing)
    assert world.bring_in(f"http://127.0.0.1:{world.oracle}") > 30
    assert world.compare() == []
    payload = _facts("web-1.example.com", alone="x")
    command(world.oracle, odd_fleet(datetime.now(UTC), for_puppetdb=True)[0]._replace(
        command="replace facts", version=5, certname="web-1.example.com", payload=payload
    ))  # fmt: skip
    (one,) = world.compare()
    assert one["certname"] == "web-1.example.com"
    assert list(one["differs"]) == ["facts"]
    assert any("only there: alone" in line for line in one["differs"]["facts"])


def test_a_command_to_us_reaches_puppetdb_too(world: World) -> None:
    """``--also``: after a while both have the same again."""
    posted = world.front.post(
        "/pdb/cmd/v1?command=replace_facts&version=5&certname=web-1.example.com&producer-timestamp=",
        _facts("web-1.example.com", mirrored="yes"),
    )
    assert posted.status == 200
    world.settled += 1
    world.engine.wait_settled(world.settled)
    _until(lambda: ask(world.oracle, "/pdb/query/v4/facts/mirrored").json != [])
    assert world.compare() == []


def test_moving_out_and_back_loses_nothing(world: World) -> None:
    """Our archive into an emptied PuppetDB: it has the same as we, and its own archive is what ours was.

    On purpose not the same: PuppetDB's archive has no packages and no deactivations (a node that is deactivated makes its
    archive an empty one, so those are reactivated first), and says nothing of ``corrective_change``.
    """
    assert len(members(ask(world.oracle, ARCHIVE).body)) == 0, (
        "PuppetDB 7.12 exports deactivated nodes: tell so in the docs"
    )
    deactivated = ["old.example.com", "gone.example.com"]
    for certname in deactivated:
        posted = world.front.post(
            f"/pdb/cmd/v1?command=replace_facts&version=5&certname={certname}", _facts(certname, back="yes")
        )
        assert posted.status == 200
    world.settled += 2
    world.engine.wait_settled(world.settled)
    ours = world.front.get(ARCHIVE)
    files = members(ours.body)

    for row in ask(world.oracle, "/pdb/query/v4/nodes", {"query": ["=", "node_state", "any"]}).json:
        body = {"command": "delete", "version": 1, "payload": {"certname": row["certname"]}}
        headers = {"Content-Type": "application/json"}
        ask(world.oracle, "/pdb/admin/v1/cmd", method="POST", body=json.dumps(body).encode(), headers=headers)
    assert ask(world.oracle, "/pdb/query/v4/nodes").json == []
    assert ask(world.oracle, ARCHIVE, method="POST", **form(ours.body)).json == {"ok": True}
    _until(lambda: len(members(ask(world.oracle, ARCHIVE).body)) == len(files))
    assert world.compare() == []

    again = members(ask(world.oracle, ARCHIVE).body)
    assert _plain(again) == _plain(files)


def test_an_archive_of_puppetdb_comes_in(world: World, tmp_path: Path) -> None:
    """Then nothing differs, not even a report's event; what cannot be asked is told, with another exit code."""
    archive = tmp_path / "theirs.tgz"
    archive.write_bytes(ask(world.oracle, ARCHIVE).body)
    world.bring_in(str(archive))
    assert [one for one in world.compare() if list(one["differs"]) != ["packages"]] == []
    told = world.run("compare", "http://127.0.0.1:9", "--database", world.database)
    assert (told.returncode, told.stdout) == (2, "")
    assert "127.0.0.1:9 does not answer" in told.stderr


def _facts(certname: str, **values: str) -> dict[str, Any]:
    return {
        "certname": certname, "environment": "production", "producer": "puppet.example.com", "values": values,
        "producer_timestamp": datetime.now(UTC).isoformat(),
    }  # fmt: skip


def _plain(files: dict[str, bytes]) -> list[str]:
    """Payloads without what PuppetDB's archive lacks, and without an order that means nothing."""
    found = []
    for body in files.values():
        payload = json.loads(body)
        payload.pop("package_inventory", None)
        if "resources" in payload and "status" in payload:
            payload["resources"] = [_event_form(one) for one in payload["resources"]]
        found.append(json.dumps(_sorted(payload), sort_keys=True))
    return sorted(found)


def _event_form(resource: dict[str, Any]) -> dict[str, Any]:
    """PuppetDB says of a skipped resource that it has an event, skipped."""
    events = [] if resource["skipped"] else resource["events"]
    return resource | {"events": events}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _sorted(one) for name, one in value.items() if name not in ("corrective_change", "kind")
        }
    if isinstance(value, list):
        return sorted(map(_sorted, value), key=lambda one: json.dumps(one, sort_keys=True))
    if isinstance(value, str) and value.endswith("+00:00"):
        return datetime.fromisoformat(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)
