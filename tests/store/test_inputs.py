"""What catalogs were made from, and which nodes may expire."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Rejected
from ingest.store.connection import Connection
from ingest.store.housekeeping import expire_nodes, forget_nodes
from lab.store_model import Pipeline, wire_body

NOW = datetime.now(UTC)
UUID = "45e93ff0-4a15-4575-8182-ecd4525e03da"


@pytest.fixture
def pipeline(connection: Connection) -> Pipeline:
    return Pipeline(connection)


def inputs(pairs: Any, minute: int = 0, **more: Any) -> bytes:
    when = (NOW + timedelta(minutes=minute)).isoformat()
    payload = {
        "certname": "a.example",
        "producer_timestamp": when,
        "catalog_uuid": UUID,
        "inputs": pairs,
    } | more
    return json.dumps({"command": "replace catalog inputs", "version": 1, "payload": payload}).encode()


def expiration(facts: Any, minute: int = 0, **more: Any) -> bytes:
    when = (NOW + timedelta(minutes=minute)).isoformat()
    payload = {"certname": "a.example", "producer_timestamp": when, "expire": {"facts": facts}} | more
    return json.dumps({"command": "configure expiration", "version": 1, "payload": payload}).encode()


def stored(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT type, name FROM catalog_inputs ORDER BY 1, 2").fetchall()


def test_inputs_are_stored_and_replaced(connection: Connection, pipeline: Pipeline) -> None:
    """As a set; the newest count, the same ones of a later catalog are not written again."""
    assert pipeline.take(inputs([["hiera", "b"], ["hiera", "a"], ["hiera", "b"]])) == [Outcome.STORED]
    assert stored(connection) == [("hiera", "a"), ("hiera", "b")]
    assert pipeline.take(inputs([["hiera", "a"], ["hiera", "b"]], 1)) == [Outcome.UNCHANGED]
    assert pipeline.take(inputs([["hiera", "c"]], 2)) == [Outcome.STORED]
    assert pipeline.take(inputs([["hiera", "old"]], 1)) == [Outcome.STALE]
    assert stored(connection) == [("hiera", "c")]
    assert pipeline.take(inputs([], 3), inputs([["x", "y"]], 4)) == [Outcome.SUPERSEDED, Outcome.STORED]
    assert stored(connection) == [("x", "y")]
    assert pipeline.take(inputs([], 5)) == [Outcome.STORED]
    assert stored(connection) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (inputs({}), "`inputs` is not a list"), (inputs([["a"]]), "not a type and a name"), (inputs([["a", 1]]), "not a type"),
        (inputs([], catalog_uuid="x"), "catalog_uuid"), (inputs([], certname=""), "names no node"),
        (expiration("no"), "expire.facts"), (expiration(True, expire=None), "expire.facts"),
        (expiration(True, certname=None), "names no node"), (expiration(True, producer_timestamp="x"), "producer_timestamp"),
        (json.dumps({"command": "configure expiration", "version": 1}).encode(), "not an object"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_name(pipeline: Pipeline, given: bytes, said: str) -> None:
    """In words that name the member."""
    with pytest.raises(Rejected) as refused:
        pipeline.decode(given)
    assert said in refused.value.text


@pytest.mark.parametrize("place", ["input", "catalog_uuid", "producer_timestamp", "expiration"])
def test_a_secret_in_a_place_that_is_not_its_own_is_not_told(pipeline: Pipeline, place: str) -> None:
    """What stands where it does not belong is quoted, and may be a secret."""
    secret = {"__ptype": "Sensitive", "__pvalue": "hunter2"}
    body = {
        "input": inputs([["hiera", secret]]),
        "expiration": expiration(True, producer_timestamp=[secret]),
    }.get(place) or inputs([], **{place: secret})
    try:
        said = repr(pipeline.decode(body))
    except Rejected as refused:
        said = refused.text
    assert "hunter2" not in said


def test_text_that_no_column_holds_is_kept_as_near_as_may_be(
    connection: Connection, pipeline: Pipeline
) -> None:
    """U+0000 is U+FFFD, as PuppetDB has it."""
    assert pipeline.take(inputs([["hiera", "a\0b"]])) == [Outcome.STORED]
    assert stored(connection) == [("hiera", "a\ufffdb")]


def test_a_node_that_shall_not_expire_does_not(connection: Connection, pipeline: Pipeline) -> None:
    """Until it is told otherwise, and for as long after that; the newest command counts, and brings back who has expired."""
    pipeline.take(wire_body("a.example", 1, []), received_at=NOW - timedelta(days=10))
    assert pipeline.take(expiration(False, 1)) == [Outcome.STORED]
    assert expire_nodes(connection, timedelta(days=7)) == []
    assert pipeline.take(expiration(True, 0)) == [Outcome.STALE]
    assert expire_nodes(connection, timedelta(days=7)) == []
    assert pipeline.take(expiration(False, 2), expiration(True, 3)) == [Outcome.SUPERSEDED, Outcome.STORED]
    assert expire_nodes(connection, timedelta(days=7)) == []
    connection.execute("UPDATE node_expirations SET producer_timestamp = now() - interval '8 days'")
    assert expire_nodes(connection, timedelta(days=7)) == ["a.example"]
    assert pipeline.take(expiration(False, 4)) == [Outcome.STORED]
    assert connection.execute("SELECT expired FROM nodes").fetchall() == [(None,)]


def test_a_node_lives_by_its_inputs(connection: Connection, pipeline: Pipeline) -> None:
    """They keep it from expiry, and bring it back from that and from an older deactivation, in any order, as a catalog does; and
    who has nothing else is not forgotten."""
    now = datetime.now(UTC)

    def deactivate(minute: int) -> bytes:
        payload = {
            "certname": "a.example",
            "producer_timestamp": (NOW + timedelta(minutes=minute)).isoformat(),
        }
        return json.dumps({"command": "deactivate node", "version": 3, "payload": payload}).encode()

    state = "SELECT deactivated IS NOT NULL, expired IS NOT NULL FROM nodes"
    pipeline.take(wire_body("a.example", 1, []), received_at=now - timedelta(days=10))
    pipeline.take(inputs([["hiera", "a"]]), received_at=now - timedelta(days=1))
    assert expire_nodes(connection, timedelta(days=7)) == []
    assert expire_nodes(connection, timedelta(hours=12)) == ["a.example"]
    pipeline.take(inputs([["hiera", "a"]], 1), received_at=now)
    assert connection.execute(state).fetchall() == [(False, False)]
    assert pipeline.take(deactivate(0)) == [Outcome.STALE]
    assert pipeline.take(deactivate(2)) == [Outcome.STORED]
    pipeline.take(inputs([["hiera", "b"]], 3))
    assert connection.execute(state).fetchall() == [(False, False)]
    connection.execute("DELETE FROM catalogs")
    assert forget_nodes(connection, timedelta(days=14)) == 0


def test_who_shall_not_expire_is_not_forgotten(connection: Connection, pipeline: Pipeline) -> None:
    """Also one of which nothing else is known yet."""
    pipeline.take(expiration(False))
    assert forget_nodes(connection, timedelta(days=14)) == 0
    pipeline.take(expiration(True, 1))
    assert forget_nodes(connection, timedelta(days=14)) == 1
