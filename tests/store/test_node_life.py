"""A node's life: deactivated by command, expired by silence, back with a newer catalog, purged in the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest.core.delivery.work import Outcome
from ingest.store.connection import Connection
from ingest.store.housekeeping import expire_nodes, purge_nodes
from lab.store_model import Pipeline, at, expected, resource, stored, wire_body

NODE, OTHER = "n.example.com", "other.example.com"
# Everything in which a collector or a tool of the old storeconfigs would meet a node.
VIEWS = {
    "node_resources": "certname", "exported_resources": "certname", "edges": "certname",
    "storeconfigs.hosts": "name", "storeconfigs.resources": "host_id", "storeconfigs.resource_tags": "resource_id",
    "storeconfigs.param_values": "resource_id",
}  # fmt: skip


def catalog(certname: str, minute: int) -> bytes:
    key = resource("key", type_="Sshkey", exported=True, parameters={"key": certname})
    return wire_body(
        certname, minute, [resource("/x", parameters={"mode": certname}), key], [(0, 1, "before")]
    )


def escape_unprintable(connection: Connection) -> dict[str, int]:
    """How many nodes, or things that belong to one node only, each view shows."""
    found = {}
    for view, column in VIEWS.items():
        row: Any = connection.execute(f"SELECT count(DISTINCT {column}) FROM {view}").fetchone()  # type: ignore[call-overload]
        found[view] = row[0]
    return found


def command(version: int, payload: Any) -> bytes:
    return json.dumps({"command": "deactivate node", "version": version, "payload": payload}).encode()


def threshold(minute: int) -> timedelta:
    """The time-to-live with which what is older than that minute counts as old now."""
    return datetime.now(UTC) - at(minute)


@pytest.mark.parametrize(
    "body",
    [
        # Versions 1 and 2 carry no time: that of their arrival counts, which here is minute 0.
        command(1, json.dumps(NODE)),
        command(2, NODE),
        command(3, {"certname": NODE, "producer_timestamp": at(5).isoformat()}),
    ],
    ids=["version 1", "version 2", "version 3"],
)
def test_a_deactivated_node_is_in_no_view(connection: Connection, body: bytes) -> None:
    """Of every version of the command; another node stays, and the catalog can still be shown."""
    pipeline = Pipeline(connection)
    pipeline.take(catalog(NODE, 0), catalog(OTHER, 0))
    both = escape_unprintable(connection)
    pipeline.take(body, received_at=at(0))
    assert all(0 < seen < both[view] for view, seen in escape_unprintable(connection).items())
    assert stored(connection, NODE) == expected(catalog(NODE, 0))


def test_an_expired_node_is_in_no_view_until_it_is_heard_of(connection: Connection) -> None:
    """node-ttl counts from when the newest catalog came, whatever it says of its own time."""
    pipeline = Pipeline(connection)
    pipeline.take(catalog(NODE, 9), received_at=at(1))
    pipeline.take(catalog(OTHER, 1), received_at=at(9))
    both = escape_unprintable(connection)
    assert expire_nodes(connection, threshold(0)) == []
    assert expire_nodes(connection, threshold(5)) == [NODE]
    assert all(0 < seen < both[view] for view, seen in escape_unprintable(connection).items())
    assert expire_nodes(connection, threshold(5)) == []
    pipeline.take(catalog(NODE, 10), received_at=at(10))
    assert escape_unprintable(connection) == both


@pytest.mark.parametrize("again", ["unchanged", "the same message", "other content"])
def test_an_expired_node_comes_back_with_whatever_is_not_stale(connection: Connection, again: str) -> None:
    """It was heard of: that its content, or even the whole message, is what is stored already does not matter."""
    pipeline = Pipeline(connection)
    pipeline.take(catalog(NODE, 3), received_at=at(1))
    seen = escape_unprintable(connection)
    assert expire_nodes(connection, threshold(5)) == [NODE]
    assert escape_unprintable(connection)["exported_resources"] == 0
    body = {
        "unchanged": catalog(NODE, 4),
        "the same message": catalog(NODE, 3),
        "other content": catalog(NODE, 4).replace(b'"/x"', b'"/y"'),
    }[again]
    pipeline.take(body, received_at=at(9))
    assert escape_unprintable(connection) == seen
    assert expire_nodes(connection, threshold(7)) == []


def test_a_node_with_manifests_of_last_week_is_heard_of_today(connection: Connection) -> None:
    """A catalog without a time of its own, again and again with the same version: it never expires while it comes."""
    pipeline = Pipeline(connection)
    body = json.dumps({"document_type": "Catalog", "data": {
        "name": NODE, "version": int(at(-8 * 1440).timestamp()), "edges": [],
        "resources": [{"type": "Sshkey", "title": "web1", "exported": True, "tags": []}],
    }}).encode()  # fmt: skip
    pipeline.take(body, received_at=at(1))
    assert expire_nodes(connection, threshold(0)) == []
    assert pipeline.take(body, received_at=at(9)) == [Outcome.UNCHANGED]
    assert expire_nodes(connection, threshold(5)) == []
    assert expire_nodes(connection, threshold(10)) == [NODE]
    assert pipeline.take(body, received_at=at(11)) == [Outcome.UNCHANGED]
    assert escape_unprintable(connection)["exported_resources"] == 1


def test_an_unchanged_catalog_brings_a_node_back(connection: Connection) -> None:
    """What counts is that something newer came, not that its content is new."""
    pipeline = Pipeline(connection)
    pipeline.take(catalog(NODE, 1))
    seen = escape_unprintable(connection)
    pipeline.take(command(3, {"certname": NODE, "producer_timestamp": at(2).isoformat()}))
    assert escape_unprintable(connection)["exported_resources"] == 0
    assert pipeline.take(catalog(NODE, 3)) == [Outcome.UNCHANGED]
    assert escape_unprintable(connection) == seen


def test_an_older_catalog_does_not_bring_a_node_back(connection: Connection) -> None:
    """It may have waited in the queue since before the deactivation."""
    pipeline = Pipeline(connection)
    pipeline.take(catalog(NODE, 1))
    pipeline.take(command(3, {"certname": NODE, "producer_timestamp": at(5).isoformat()}))
    assert pipeline.take(catalog(NODE, 4)) == [Outcome.UNCHANGED]
    assert escape_unprintable(connection)["exported_resources"] == 0


def test_a_node_heard_of_just_now_is_not_expired(connection: Connection, database: str) -> None:
    """A catalog that is stored between the look and the mark keeps its node."""
    from ingest.store.connection import connect
    from ingest.store.locks import NodeLocks
    from ingest.store.queries import query

    pipeline = Pipeline(connect(database))
    pipeline.take(catalog(NODE, 1), received_at=at(1))
    candidates: Any = connection.execute(query("silent_nodes"), {"ttl": threshold(5)}).fetchall()
    assert [certname for _, certname in candidates] == [NODE]
    pipeline.take(catalog(NODE, 9), received_at=at(9))
    locks = NodeLocks(connection)
    locks.prepare([NODE])
    with locks.transaction():
        locks.take([NODE])
        marked = connection.execute(
            query("expire_nodes"), {"ids": [id_ for id_, _ in candidates], "ttl": threshold(5)}
        ).fetchall()
    assert marked == []
    pipeline.lane.connection.close()


def test_purging_waits_for_its_time_and_leaves_nothing(connection: Connection) -> None:
    """node-purge-ttl counts from deactivation or expiry; a purged node can come again."""
    pipeline = Pipeline(connection)
    pipeline.take(catalog(NODE, 1))
    pipeline.take(command(3, {"certname": NODE, "producer_timestamp": at(5).isoformat()}))
    assert purge_nodes(connection, threshold(4)) == 0
    assert purge_nodes(connection, threshold(6)) == 1
    for table in ("nodes", "catalogs", "catalog_resources", "catalog_exports"):
        row: Any = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[call-overload]
        assert row == (0,), table
    assert pipeline.take(catalog(NODE, 7)) == [Outcome.STORED]
    assert stored(connection, NODE) == expected(catalog(NODE, 7))
