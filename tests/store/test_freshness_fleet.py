"""Whom the database calls overdue, against the truth of a whole fleet: ``make test-freshness-long`` has one of 3000 nodes."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from ingest.store.connection import Connection
from ingest.store.node.freshness import fleet_freshness, list_nodes
from lab.store_model import Pipeline, resource, wire_body
from tests.store.lives import LIVES, Life, lives
from tests.test_cli import ingest

NODES = int(os.environ.get("INGEST_TEST_FRESHNESS_NODES", "108"))
SEED = int(os.environ.get("INGEST_TEST_FRESHNESS_SEED", "1"))
BATCH = 100
CONTENT = [resource("/a")]


def body(certname: str, made_at: datetime) -> bytes:
    document = json.loads(wire_body(certname, 0, CONTENT))
    document["payload"]["producer_timestamp"] = made_at.isoformat()
    return json.dumps(document).encode()


def play(connection: Connection, fleet: list[Life], now: datetime) -> None:
    """All runs of the fleet in the order in which they came, many to a transaction and never two of a node."""
    pipeline = Pipeline(connection)
    runs = sorted(
        ((run, life.certname) for life in fleet for run in life.runs), key=lambda each: -each[0].ago_s
    )
    batch: dict[str, tuple[bytes, datetime]] = {}

    def settle() -> None:
        works = [pipeline.decode(text, received_at=came_at) for text, came_at in batch.values()]
        pipeline.settle(works, [text for text, _ in batch.values()])
        batch.clear()

    for run, name in runs:
        if name in batch or len(batch) == BATCH:
            settle()
        came_at = now - timedelta(seconds=run.ago_s)
        batch[name] = (body(name, came_at + timedelta(seconds=run.ahead_s)), came_at)
    settle()
    connection.execute("UPDATE catalogs SET stored_after_s = NULL")  # as if each had been stored when it came


def test_overdue_is_who_is_overdue(connection: Connection, database: str) -> None:
    """Of nodes that go on, stop, come back, change their interval, or whose clock jumps ahead, far ahead or back: the very
    same ones, from the database and from the command, and each one's interval within a tenth."""
    fleet = list(lives(NODES, SEED))
    now = datetime.now(UTC).replace(microsecond=0)
    play(connection, fleet, now)
    truth = {life.certname for life in fleet if life.is_overdue}
    assert NODES / 8 < len(truth) < NODES / 2
    assert {life.kind for life in fleet} == set(LIVES)
    assert {node.certname for node in list_nodes(connection, overdue=True)} == truth
    lines = ingest("nodes", "--overdue", "--json", "--database", database).stdout.splitlines()
    assert {json.loads(line)["certname"] for line in lines} == truth
    found = {node.certname: node for node in list_nodes(connection)}
    assert len(found) == NODES
    for life in fleet:
        node = found[life.certname]
        assert abs((now - node.heard_at).total_seconds() - life.silent_s) < 1
        if life.kind != "new":
            assert node.usual_s == pytest.approx(life.interval_s, rel=0.1), life
    numbers = fleet_freshness(connection)
    assert (numbers["nodes"], numbers["overdue"]) == (NODES, len(truth))
