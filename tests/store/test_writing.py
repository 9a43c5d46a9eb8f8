"""What a batch does to the tables."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from ingest.core.delivery.work import Outcome
from ingest.core.raw_text import bytes_of
from ingest.errors import Rejected
from ingest.store.catalog.reading import exported_resources
from ingest.store.connection import Connection
from ingest.store.housekeeping import collect_garbage, expire_nodes, purge_nodes
from lab import real_catalogs as corpus
from lab.store_model import Pipeline, at, expected, resource, stored, wire_body


def count(connection: Connection, table: str) -> int:
    row: Any = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[call-overload]
    return int(row[0])


@pytest.mark.parametrize("rounds", [corpus.ROUNDS, tuple(reversed(corpus.ROUNDS))])
def test_rounds_end_at_the_newest_in_any_order(connection: Connection, rounds: tuple[int, ...]) -> None:
    """After all rounds, forwards or backwards, every node has its newest catalog, whole."""
    pipeline = Pipeline(connection)
    for round_ in rounds:
        pipeline.take(*(corpus.body(role, round_, "wire") for role in corpus.ROLES))
    for role in corpus.ROLES:
        newest = corpus.body(role, 4, "wire")
        assert stored(connection, expected(newest)["certname"]) == expected(newest)


def test_native_and_wire_give_one_stored_state(connection: Connection) -> None:
    """The wire form of what came natively is found unchanged."""
    pipeline = Pipeline(connection)
    native, wire = corpus.body("web-01", 1, "native"), corpus.body("web-01", 1, "wire")
    assert pipeline.take(native, received_at=at(0)) == [Outcome.STORED]
    before = count(connection, "resources")
    assert pipeline.take(wire) == [Outcome.UNCHANGED]
    assert count(connection, "resources") == before
    assert stored(connection, expected(wire)["certname"]) == expected(wire)


def test_an_unchanged_catalog_writes_one_row(connection: Connection) -> None:
    """Round 2 differs from round 1 in its header only: one update a node, and it is HOT."""
    pipeline = Pipeline(connection)
    bodies = [[corpus.body(role, round_, "wire") for role in corpus.ROLES] for round_ in (1, 2)]
    pipeline.take(*bodies[0])
    assert pipeline.take(*bodies[1]) == [Outcome.UNCHANGED] * len(corpus.ROLES)
    assert pipeline.lane.counts.rows_written == len(corpus.ROLES)
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'catalogs'"
    ).fetchone()
    assert row == (len(corpus.ROLES), len(corpus.ROLES))


def test_a_message_that_comes_twice_writes_nothing(connection: Connection) -> None:
    """A redelivery of what is stored leaves the tables alone."""
    pipeline = Pipeline(connection)
    body = corpus.body("minimal-01", 1, "wire")
    pipeline.take(body)
    assert pipeline.take(body) == [Outcome.UNCHANGED]
    assert pipeline.lane.counts.rows_written == 0


def test_a_changed_parameter_rewrites_no_edge(connection: Connection) -> None:
    """One new content, one chunk of membership, one header: nothing else is written."""
    pipeline = Pipeline(connection)
    old = [resource(f"/{n}") for n in range(200)]
    new = [*old[:7], resource("/7", parameters={"mode": "0600"}), *old[8:]]
    edges = [(n, n + 1, "before") for n in range(199)]
    pipeline.take(wire_body("n.example.com", 1, old, edges))
    assert pipeline.take(wire_body("n.example.com", 2, new, edges)) == [Outcome.STORED]
    assert pipeline.lane.counts.resources_new == 1
    assert pipeline.lane.counts.rows_written == 2  # the chunk and the header
    assert count(connection, "edge_sets") == 1


def test_a_moved_line_rewrites_neither_content_nor_membership(connection: Connection) -> None:
    """Only the positions and the header change."""
    pipeline = Pipeline(connection)
    pipeline.take(wire_body("n.example.com", 1, [resource(f"/{n}") for n in range(100)]))
    moved = [resource(f"/{n}", line=2) for n in range(100)]
    assert pipeline.take(wire_body("n.example.com", 2, moved)) == [Outcome.STORED]
    assert pipeline.lane.counts.resources_new == 0
    assert pipeline.lane.counts.rows_written == 1
    assert stored(connection, "n.example.com")["resources"][0]["line"] == 2


def test_an_older_catalog_changes_nothing(connection: Connection) -> None:
    """Stale is decided by producer_timestamp, whatever arrives when."""
    pipeline = Pipeline(connection)
    newer = wire_body("n.example.com", 2, [resource("/new")])
    pipeline.take(newer)
    assert pipeline.take(wire_body("n.example.com", 1, [resource("/old")])) == [Outcome.STALE]
    assert stored(connection, "n.example.com") == expected(newer)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_equal_times_end_the_same_in_any_order(connection: Connection, order: tuple[int, int]) -> None:
    """Two catalogs of one node and one instant: the content decides, not the arrival."""
    bodies = [wire_body("n.example.com", 1, [resource(title)]) for title in ("/a", "/b")]
    pipeline = Pipeline(connection)
    for place in order:
        pipeline.take(bodies[place])
    other = Pipeline(connection)
    other.take(*bodies)
    final = stored(connection, "n.example.com")
    assert final in [expected(body) for body in bodies]
    pipeline.take(bodies[order[0]])
    assert stored(connection, "n.example.com") == final


def test_superseded_in_a_batch(connection: Connection) -> None:
    """Of several catalogs of a node in one batch only the newest is written."""
    pipeline = Pipeline(connection)
    bodies = [wire_body("n.example.com", minute, [resource(f"/{minute}")]) for minute in (1, 3, 2)]
    assert pipeline.take(*bodies) == [Outcome.SUPERSEDED, Outcome.STORED, Outcome.SUPERSEDED]
    assert stored(connection, "n.example.com") == expected(bodies[1])


@pytest.mark.parametrize(
    "parameters",
    [
        {"content": "nul \x00 inside"},
        {"content": "lone \udc80 surrogate"},
        {"number": 1e22, "small": 1e-07, "negative": -0.0, "big": 10**40},
        {"deep": [[[[{"a": {"b": [None, True, 1.0, 1]}}]]]]},
        {"kéy": "ünïcödé \U0001f680", "": ""},
    ],
)
def test_what_postgresql_cannot_hold_comes_back_as_it_was(
    connection: Connection, parameters: dict[str, Any]
) -> None:
    """U+0000, lone surrogates and numbers that jsonb changes are stored beside the column, exactly."""
    pipeline = Pipeline(connection)
    body = wire_body("n.example.com", 1, [resource("/x", parameters=parameters)])
    assert pipeline.take(body) == [Outcome.STORED]
    found = stored(connection, "n.example.com")["resources"][0]["parameters"]
    as_sent = json.dumps({key: parameters[key] for key in found}, ensure_ascii=False)
    assert bytes_of(json.dumps(found, ensure_ascii=False)) == as_sent.encode("utf-8", "surrogatepass")
    assert found.keys() == parameters.keys()


def test_long_and_odd_titles(connection: Connection) -> None:
    """A title of 20 KB, one with brackets and newlines, one with U+0000: all are found again."""
    titles = ["x" * 20_000, "a[b]\n[c]", "nul\x00", "/plain"]
    pipeline = Pipeline(connection)
    body = wire_body(
        "n.example.com", 1, [resource(t) for t in titles], [(0, 1, "contains"), (2, 3, "before")]
    )
    assert pipeline.take(body) == [Outcome.STORED]
    assert stored(connection, "n.example.com") == expected(body)


def test_exported_resources_come_and_go(connection: Connection) -> None:
    """A collector sees what is exported now; a deactivated node's vanish, a newer catalog brings them back."""
    pipeline = Pipeline(connection)
    key = resource("key", type_="Sshkey", exported=True, tags=["web"], parameters={"key": "abc"})
    pipeline.take(wire_body("n.example.com", 1, [key, resource("/x")]))

    def seen(**query: Any) -> list[str]:
        return [found["title"] for found in exported_resources(connection, "Sshkey", **query)]

    assert seen() == ["key"]
    assert seen(tags=["WEB"]) == ["key"]
    assert seen(tags=["db"]) == []
    assert seen(title="other") == []
    assert seen(parameters={"key": "abc"}) == ["key"]
    assert seen(except_certname="n.example.com") == []
    assert pipeline.take(deactivate("n.example.com", 2)) == [Outcome.STORED]
    assert seen() == []
    pipeline.take(wire_body("n.example.com", 3, [key, resource("/x")]))
    assert seen() == ["key"]
    assert pipeline.take(deactivate("n.example.com", 2)) == [Outcome.STALE]
    assert seen() == ["key"]
    pipeline.take(wire_body("n.example.com", 4, [resource("/x")]))
    assert seen() == []


def test_a_node_that_stopped_exporting_can_begin_again(connection: Connection) -> None:
    """Even when its catalog was empty in between, as it is with thin_storeconfigs."""
    pipeline = Pipeline(connection)
    key = resource("key", type_="Sshkey", exported=True)
    for minute, content in enumerate([[key], [], [key]], 1):
        assert pipeline.take(wire_body("n.example.com", minute, content)) == [Outcome.STORED]
        assert len(list(exported_resources(connection, "Sshkey"))) == len(content)


def test_garbage_goes_and_what_is_used_stays(connection: Connection) -> None:
    """Content that no node has is collected; a writer that remembers its id asks anew."""
    pipeline = Pipeline(connection)
    first = wire_body("n.example.com", 1, [resource("/a"), resource("/b")])
    pipeline.take(first)
    pipeline.take(wire_body("n.example.com", 2, [resource("/a")]))
    assert collect_garbage(connection, pause=lambda s: None).deleted["resources"] == 1
    again = wire_body("n.example.com", 3, [resource("/a"), resource("/b")])
    assert pipeline.take(again) == [Outcome.STORED]
    assert stored(connection, "n.example.com") == expected(again)


def test_silent_nodes_expire_and_are_purged(connection: Connection) -> None:
    """node-ttl hides a node, node-purge-ttl deletes it and everything of it."""
    pipeline = Pipeline(connection)
    body = wire_body("old.example.com", 1, [resource("k", type_="Sshkey", exported=True)])
    pipeline.take(body, received_at=at(1))
    assert expire_nodes(connection, timedelta(days=1)) == ["old.example.com"]
    assert list(exported_resources(connection, "Sshkey")) == []
    assert purge_nodes(connection, timedelta(days=1)) == 0
    assert purge_nodes(connection, timedelta(0)) == 1
    collect_garbage(connection, pause=lambda s: None)
    for table in ("nodes", "catalogs", "catalog_resources", "catalog_exports", "resources"):
        assert count(connection, table) == 0


def test_thin_storeconfigs_keeps_exported_resources_only(connection: Connection) -> None:
    """With the setting of that name nothing else is stored, and no edges."""
    pipeline = Pipeline(connection, thin=True)
    body = wire_body("n.example.com", 1, [resource("/x"), resource("k", exported=True)], [(0, 1, "contains")])
    assert pipeline.take(body) == [Outcome.STORED]
    found = stored(connection, "n.example.com")
    assert [r["title"] for r in found["resources"]] == ["k"]
    assert found["edges"] == []


def test_a_row_that_postgresql_refuses_takes_nothing_with_it(connection: Connection) -> None:
    """The batch raises Rejected and leaves no trace; alone, its neighbour is stored."""
    pipeline = Pipeline(connection)
    connection.execute("ALTER TABLE resources ADD CONSTRAINT no_bad CHECK (title <> '/bad')")
    good, bad = (wire_body(f"{t}.example.com", 1, [resource(f"/{t}")]) for t in ("good", "bad"))
    with pytest.raises(Rejected):
        pipeline.take(good, bad)
    assert count(connection, "nodes") == 0
    assert pipeline.take(good) == [Outcome.STORED] or pipeline.take(good) == [Outcome.UNCHANGED]
    assert stored(connection, "good.example.com") == expected(good)


def deactivate(certname: str, minute: int) -> bytes:
    import json

    payload = {"certname": certname, "producer_timestamp": at(minute).isoformat()}
    return json.dumps({"command": "deactivate node", "version": 3, "payload": payload}).encode()
