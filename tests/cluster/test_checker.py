"""The checker finds what it is there to find; with a plain PostgreSQL, and no cluster."""

from __future__ import annotations

from ingest.store.connection import Connection
from lab.store_model import Pipeline, resource, wire_body
from tests.cluster.at_random import several_at_once
from tests.cluster.chance import Hit
from tests.cluster.checker import compare
from tests.cluster.stream import Message, Outages
from tests.cluster.watch import Watch
from tests.cluster.whole_runs import NODES, Runs, compare_runs
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


def test_whole_runs_of_which_something_is_missing(connection: Connection) -> None:
    """Of three nodes' runs: one whole, one without its report, one whose catalog is an older one and whose facts are not there;
    then a report that is another run's, and a newer run of the first node that is nowhere."""
    audit.install(connection)
    runs = Runs([], seed=1)
    pipeline = Pipeline(connection)
    for run in range(NODES, NODES + 3):
        for kind, body in enumerate(runs.bodies(run)):
            runs.took(run, kind, body)
            if (run, kind) not in {(NODES + 1, 2), (NODES + 2, 0)}:
                pipeline.take(body)
    assert runs.key(3 * NODES) == "facts node-0.example.com"
    assert compare_runs(connection, runs).lost == [
        "facts node-2.example.com: None, not 906",
        "report of run 301 of node-1.example.com",
    ]
    newer = 2 * NODES
    for kind, body in enumerate(runs.bodies(newer)):
        runs.took(newer, kind, body)
    found = compare_runs(connection, runs)
    assert found.lost[:3] == [
        "facts node-0.example.com: 900, not 1800", "catalog node-0.example.com: 901, not 1801",
        "facts node-2.example.com: None, not 906",
    ]  # fmt: skip
    assert (found.differing, found.went_back, found.quarantined) == ([], 0, 0)
    connection.execute("UPDATE node_reports SET event_ids = '{}', event_offsets = '{}'")
    assert compare_runs(connection, runs).differing == ["report of run 300 of node-0.example.com differs"]


def test_the_watch_numbers_what_is_stored_as_the_runs_do(connection: Connection) -> None:
    """Of each node and kind the newest message; a number that goes down is a state that went back."""
    runs = Runs([], seed=2)
    for kind, body in enumerate(runs.bodies(NODES + 7)):
        runs.took(NODES + 7, kind, body)
        Pipeline(connection).take(body)
    found = dict(connection.execute(runs.states.encode()).fetchall())
    assert found == {runs.key(number): number for number in runs.receipts}
    watch = Watch([], runs, runs.states)
    watch._take(found, 1.0)
    assert watch.stored.keys() == runs.receipts.keys()
    watch._take(found | {"catalog node-7.example.com": 1}, 2.0)
    assert watch.went_back == ["catalog node-7.example.com: from 922 to 1"]


def test_how_much_was_hurt_at_once() -> None:
    """Of the time in which anything was."""
    hits = [Hit("a", 0.0, 10.0), Hit("b", 5.0, 10.0), Hit("c", 100.0, 5.0)]
    assert several_at_once(hits) == 0.25
    assert several_at_once([]) == 0.0
