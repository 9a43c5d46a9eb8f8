"""The checker finds what it is there to find; with a plain PostgreSQL, and no cluster."""

from __future__ import annotations

from ingest.store.connection import Connection
from lab.store_model import Pipeline, resource, wire_body
from tests.cluster.checker import compare
from tests.cluster.stream import Message, Outages
from tests.faults import audit


def message(node: str, number: int) -> tuple[int, Message]:
    body = wire_body(node, number, [resource("/a", parameters={"text": str(number)})])
    return number, Message(node, body)


def test_what_is_lost_old_or_different_is_found(connection: Connection) -> None:
    """One node of each: whole, never stored, left at an older catalog, with a wrong parameter, put back in time."""
    audit.install(connection)
    newest = {
        node: message(node, number)
        for number, node in enumerate(["whole", "lost", "old", "differs", "back"], 10)
    }
    Pipeline(connection).take(
        *(newest[node][1].body for node in ("whole", "differs", "back")), message("old", 5)[1].body
    )
    newest["differs"] = (13, Message("differs", message("differs", 99)[1].body))
    connection.execute(
        "UPDATE catalogs SET producer_timestamp = producer_timestamp - interval '1 hour' FROM nodes "
        "WHERE id = node_id AND certname = 'back'"
    )
    found = compare(connection, newest)
    assert found.lost == ["lost: None, not 11", "old: 5, not 12"]
    assert "differs differs" in found.differing
    assert "whole differs" not in found.differing
    assert (found.went_back, found.quarantined) == (1, 0)


def test_the_longest_outage_behind_a_fault_is_the_clusters_own() -> None:
    """What ended before the fault, and what a busy machine does to a single answer, is not it."""
    outages = Outages()
    for began_s, ended_s in ((0.0, 50.0), (102.0, 102.9), (103.0, 119.0), (130.0, 132.0)):
        outages.note(began_s, ended_s)
    assert outages.recovered_after(100.0) == 19.0
    assert Outages().recovered_after(100.0) == 0.0
