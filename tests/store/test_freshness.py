"""What the database says of who was heard of when: against a fleet's own truth, message by message."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest

from ingest.core.delivery.work import Outcome
from ingest.core.node.freshness import overdue_after_s
from ingest.errors import Refused
from ingest.store.connection import Connection
from ingest.store.node.freshness import (
    NodeFreshness,
    deactivate_node,
    fleet_freshness,
    forget_node,
    list_nodes,
    node_details,
    reactivate_node,
)
from lab.store_model import START, Pipeline, resource, wire_body

FILE = [resource("/a")]
TIME = "2026-01-01T00:00:00Z"
MINUTE = timedelta(minutes=1)
NOW = datetime.now(UTC).replace(microsecond=0)
# The truth of each node: the minutes before now at which a catalog of it came, and by how many its clock is ahead.
FLEET: dict[str, tuple[list[int], dict[int, int]]] = {
    "regular": (list(range(600, 0, -30)), {}),
    "stopped": (list(range(600, 90, -30)), {}),
    "back": ([*range(600, 300, -30), *range(65, 0, -30)], {}),
    "slower": ([*range(1500, 900, -30), *range(900, 0, -120)], {}),
    "faster": ([*range(900, 300, -60), *range(300, 0, -10)], {}),
    "daily": ([5 * 1440 + 100, 4 * 1440 + 100, 3 * 1440 + 100, 2 * 1440 + 100, 1440 + 100, 100], {}),
    "ahead": (list(range(600, 0, -30)), dict.fromkeys(range(300, 180, -30), 175)),
    "set back": (list(range(600, 0, -30)), dict.fromkeys(range(210, 0, -30), -400)),
    "new": ([20], {}),
}
USUAL_MIN = {
    "regular": 30, "stopped": 30, "back": 30, "slower": 120, "faster": 10, "daily": 1440, "ahead": 30, "set back": 30,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long run of tests comes here half an hour after it has read this file."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC).replace(microsecond=0))


def told(connection: Connection) -> dict[str, NodeFreshness]:
    return {node.certname: node for node in list_nodes(connection)}


def play(connection: Connection) -> None:
    """The fleet's messages in the order in which they came."""
    pipeline = Pipeline(connection)
    events = sorted(((ago, name) for name, (times, _) in FLEET.items() for ago in times), reverse=True)
    for ago, name in events:
        came_at = NOW - ago * MINUTE
        made_at = came_at + FLEET[name][1].get(ago, 0) * MINUTE
        minute = round((made_at - START) / MINUTE)
        pipeline.take(wire_body(name, minute, FILE), received_at=came_at)


def test_the_database_knows_what_the_fleet_knows(connection: Connection) -> None:
    """Last heard, usual interval and overdue of nodes that go on, stop, come back, change, and whose clock jumps."""
    play(connection)
    nodes = told(connection)
    assert set(nodes) == set(FLEET)
    for name, (times, _) in FLEET.items():
        node = nodes[name]
        assert abs(node.heard_at - (NOW - times[-1] * MINUTE)) < timedelta(seconds=1)
        assert node.is_learnt == (name in USUAL_MIN)
        if name in USUAL_MIN:
            assert node.usual_s == pytest.approx(USUAL_MIN[name] * 60, rel=0.1)
        assert node.overdue_after_s == overdue_after_s(node.usual_s)
        assert node.is_overdue == (times[-1] * 60 > node.overdue_after_s + 30)
    assert {name for name, node in nodes.items() if node.is_overdue} == {"stopped"}
    assert [node.certname for node in list_nodes(connection, overdue=True)] == ["stopped"]


def test_a_fleet_in_numbers_adds_up(connection: Connection) -> None:
    """Every active node is in one bucket of each kind, and the sums are of the same nodes."""
    play(connection)
    deactivate_node(connection, "new")
    found = fleet_freshness(connection)
    assert (found["nodes"], found["deactivated"], found["overdue"]) == (len(FLEET) - 1, 1, 1)
    assert sum(found["silence"]) == sum(found["lag"]) == found["nodes"]
    assert found["statuses"] == {"no report": found["nodes"]}
    assert [node["certname"] for node in found["overdue_nodes"]] == ["stopped"]
    pace = sum(1 / (USUAL_MIN[name] * 60) for name in USUAL_MIN)
    assert float(found["pace_per_s"]) == pytest.approx(pace, rel=0.1)


def test_lag_is_from_the_producers_time_to_being_stored(connection: Connection) -> None:
    """A catalog that waited at the broker, and then for a writer; stored is when it was written, not received."""
    pipeline = Pipeline(connection)
    made_at = datetime.now(UTC) - timedelta(seconds=300)
    received_at = datetime.now(UTC) - timedelta(seconds=60)
    minute = (made_at - START) // MINUTE
    pipeline.take(wire_body("late", minute, FILE), received_at=received_at)
    (node,) = list_nodes(connection)
    assert node.catalog_stored_at is not None
    assert node.catalog_lag_s is not None
    truth_s = (datetime.now(UTC) - START - minute * MINUTE).total_seconds()
    assert truth_s - 30 < node.catalog_lag_s <= truth_s
    assert timedelta(seconds=59) < node.catalog_stored_at - received_at < timedelta(seconds=90)


def test_a_regular_node_leaves_its_rhythm_unwritten(connection: Connection) -> None:
    """Its row is that of its third run: nothing but the catalog is written after that."""
    pipeline = Pipeline(connection)
    seen = set()
    for ago in range(600, 0, -30):
        minute = round((NOW - ago * MINUTE - START) / MINUTE)
        pipeline.take(wire_body("a", minute, FILE), received_at=NOW - ago * MINUTE)
        if ago <= 540:
            seen.add(str(connection.execute("SELECT xmin, r FROM node_rhythms r").fetchone()))
    assert len(seen) == 1


def test_what_is_asked_for_is_found(connection: Connection) -> None:
    """Overdue, stale, inactive, and by name in any state."""
    play(connection)
    connection.execute("UPDATE catalogs SET stored_after_s = NULL")  # as if each had been stored when it came
    deactivate_node(connection, "regular")
    assert [node.certname for node in list_nodes(connection, inactive=True)] == ["regular"]
    assert list_nodes(connection, certname="regular")[0].state == "deactivated"
    stale = {node.certname for node in list_nodes(connection, stale=timedelta(hours=3))}
    assert stale == {"set back"}  # it is heard of, and what it sends is older than what is stored
    assert list_nodes(connection, failed=True) == []
    reactivate_node(connection, "regular")
    assert list_nodes(connection, inactive=True) == []


def test_a_node_that_sends_everything_is_forgotten_whole(connection: Connection) -> None:
    """Catalog, facts, packages, inputs, expiration, the newest report: no table has it any more; reports go with their days."""
    pipeline = Pipeline(connection)
    facts = {
        "environment": "e",
        "producer": "p",
        "producer_timestamp": TIME,
        "values": {"a": 1, "b": {"c": 2}},
    }
    payloads: list[tuple[str, int, dict[str, object]]] = [
        ("replace facts", 5, facts | {"package_inventory": [["a", "1", "b"]]}),
        ("store report", 8, {"producer_timestamp": TIME, "start_time": TIME, "end_time": TIME}),
        (
            "replace catalog inputs",
            1,
            {"producer_timestamp": TIME, "catalog_uuid": None, "inputs": [["a", "b"]]},
        ),
        ("configure expiration", 1, {"producer_timestamp": TIME, "expire": {"facts": False}}),
    ]
    everything = [wire_body("a", 1, [resource("/a", exported=True)])] + [
        json.dumps({"command": command, "version": version, "payload": payload | {"certname": "a"}}).encode()
        for command, version, payload in payloads
    ]
    assert pipeline.take(*everything) == [Outcome.STORED] * len(everything)
    ((node_id,),) = connection.execute("SELECT id FROM nodes").fetchall()
    forget_node(connection, "a")
    tables = connection.execute(
        "SELECT table_name::text FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE column_name = 'node_id' AND table_type = 'BASE TABLE' AND table_schema = 'public'"
        " AND table_name !~ '^node_reports'"
    ).fetchall()
    assert len(tables) > 5
    for table in ("nodes", *(str(name) for (name,) in tables)):
        column = "id" if table == "nodes" else "node_id"
        found = connection.execute(f"SELECT FROM {table} WHERE {column} = %s", [node_id]).fetchall()  # type: ignore[call-overload]
        assert found == [], table
    assert pipeline.take(*everything) != [Outcome.UNCHANGED] * len(everything)
    assert list_nodes(connection, certname="a")[0].state == "active"


def test_a_forgotten_node_has_never_been(connection: Connection) -> None:
    """Nothing is left of it, and its next catalog is stored anew."""
    play(connection)
    assert node_details(connection, "back")["catalog"]["resources"] == 1
    forget_node(connection, "back")
    assert list_nodes(connection, certname="back") == []
    for change in (forget_node, deactivate_node, reactivate_node):
        with pytest.raises(Refused, match="back"):
            change(connection, "back")
    left = connection.execute(
        "SELECT (SELECT count(*) FROM catalogs) + (SELECT count(DISTINCT node_id) FROM catalog_resources)"
    ).fetchone()
    assert left == (2 * (len(FLEET) - 1),)
    Pipeline(connection).take(wire_body("back", 1, FILE), received_at=NOW)
    assert len(list_nodes(connection, certname="back")) == 1
