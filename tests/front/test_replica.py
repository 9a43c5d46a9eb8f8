"""Queries that a replica answers: how far behind it is, and a wait until it has caught up."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ingest.store.connection import connect
from ingest.store.migrate import migrate
from lab.front import Answer, Front
from lab.servers import Postgres, embedded_broker
from lab.store_model import Pipeline, resource, wire_body
from tests.faults.world import Standby
from tests.front.test_clients import eventually

NODES = "/pdb/query/v4/nodes"


class Pair(NamedTuple):
    primary: Postgres
    standby: Standby
    front: Front  # which asks the standby
    alone: Front  # the same, and it knows no other server

    def store(self, certname: str) -> None:
        with connect(self.primary.conninfo("ingest")) as connection:
            Pipeline(connection).take(wire_body(certname, 1, [resource("/a")]))

    def replay(self, verb: str) -> None:
        self.standby.execute("ingest", f"SELECT pg_wal_replay_{verb}()")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    directory = Path(tempfile.mkdtemp(prefix="ingest-replica-"))
    directory.chmod(0o755)
    for name in ("primary", "standby"):
        (directory / name).mkdir(mode=0o755)
    primary = Postgres(directory / "primary")
    primary.start(wal_level="replica")
    primary.execute("postgres", "CREATE DATABASE ingest")
    with connect(primary.conninfo("ingest")) as connection:
        migrate(connection)
    standby = Standby(directory / "standby", primary)
    its = standby.conninfo("ingest")
    with embedded_broker() as broker:
        front = Front(primary.conninfo("ingest"), broker, "--http-database", its, log=directory / "front.log")
        alone = Front(its, broker, log=directory / "alone.log")
        try:
            front.wait_ready()
            alone.wait_ready()
            yield Pair(primary, standby, front, alone)
        finally:
            front.stop()
            alone.stop()
            standby.stop()
            primary.stop()
            shutil.rmtree(directory)


def nodes(front: Front, wait_s: str | None = None) -> Answer:
    return front.get(NODES, headers={} if wait_s is None else {"X-Replica-Wait": wait_s})


def names(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.text
    return [node["certname"] for node in answer.json]


def test_an_answer_says_how_far_behind_the_replica_is(pair: Pair) -> None:
    """0.0 when it has all that it received, more while it does not replay; the primary's answers say nothing."""
    pair.store("n1")
    eventually(lambda: nodes(pair.front).headers["x-replica-behind"] == "0.0", "it is not behind")
    pair.replay("pause")
    try:
        pair.store("n2")
        eventually(lambda: float(nodes(pair.front).headers["x-replica-behind"]) > 0, "it is behind")
        assert "n2" not in names(nodes(pair.front))
        assert float(pair.front.get(NODES, {"explain": "analyze"}).headers["x-replica-behind"]) > 0
    finally:
        pair.replay("resume")


def test_who_wants_to_read_what_is_written_waits_for_it(pair: Pair) -> None:
    """What the primary had committed when the request came is in the answer; else 503, as for a server that is away."""
    pair.replay("pause")
    try:
        pair.store("n3")
        late = nodes(pair.front, "0.2")
        assert late.status == 503
        assert "the replica has not caught up within 0.2 s" in late.text
        resume = threading.Timer(0.3, pair.replay, ["resume"])
        resume.start()
        assert "n3" in names(nodes(pair.front, "30"))
        resume.join()
    finally:
        pair.replay("resume")
    assert "n3" in names(nodes(pair.front, "0"))


def test_a_wait_that_cannot_be_is_refused(pair: Pair) -> None:
    """With nobody to compare with, and for a time that is none."""
    unknown = nodes(pair.alone, "1")
    assert (unknown.status, "knows no primary" in unknown.text) == (503, True)
    for wrong in ("soon", "-1", "nan", "601"):
        answer = nodes(pair.front, wrong)
        assert (answer.status, "x-replica-wait" in answer.text) == (400, True), answer.text


def test_a_primary_has_nothing_to_wait_for(pair: Pair) -> None:
    """The header asks for what is so anyway."""
    with embedded_broker() as broker:
        front = Front(pair.primary.conninfo("ingest"), broker, log=pair.front.log.with_name("first.log"))
        try:
            front.wait_ready()
            answer = nodes(front, "5")
            assert answer.status == 200
            assert "x-replica-behind" not in answer.headers
        finally:
            front.stop()
