"""Plans: what a collector, an operator and ``ingest show`` ask is served by indexes, whatever the statistics say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ingest.store.connection import Connection
from ingest.store.queries import query
from lab import real_catalogs as corpus
from lab.store_model import Pipeline

COLLECTOR = (
    "SELECT certname, type, title, parameters::text, encode(exact, 'hex') FROM exported_resources"
    " WHERE type = 'Sshkey' AND certname <> 'other.example.com' ORDER BY certname"
)
NOTHING = dict.fromkeys(("title", "tags", "parameters", "except_certname"))
# What may be read from end to end. catalog_exports: a short row a node, quicker to read than an index to keep.
# catalog_resources: for who-has; 33 MB at 3000 nodes. docs/decisions/0003-store.md has what an index would cost.
ASKED: dict[str, tuple[str, Any, set[str]]] = {
    "collector": (COLLECTOR, None, {"catalog_exports"}),
    "query exported": ("read_exported", NOTHING | {"type": "Sshkey"}, {"catalog_exports"}),
    "show: header": ("read_catalog", ["web-01.example.com"], set()),
    "show: resources": ("read_catalog_resources", [1], set()),
    "show: edges": ("read_catalog_edges", [1], set()),
    "who-has": ("read_who_has", {"type": "Class", "title": "Main"}, {"catalog_resources"}),
    "a node's edges": ("SELECT * FROM edges WHERE certname = 'web-01.example.com'", None, set()),
    "a node's resources": ("SELECT * FROM node_resources WHERE certname = 'web-01.example.com'", None, set()),
    "writer: nodes": ("read_nodes", [["web-01.example.com"]], set()),
    "writer: chunks": ("read_chunks", [[1]], set()),
    "writer: exports": ("read_exports", [[1]], set()),
    "writer: contents": ("find_resources", [[b"x" * 20]], set()),
}


@pytest.fixture
def loaded(connection: Connection) -> Connection:
    Pipeline(connection).take(*(corpus.body(role, 1, "wire") for role in corpus.ROLES))
    connection.execute("ANALYZE")
    connection.execute(
        "SET enable_seqscan = off"
    )  # what is still read that way has no index that could serve
    return connection


def nodes_of(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes_of(part)


def plan_of(connection: Connection, statement: str, parameters: Any) -> list[Mapping[str, Any]]:
    if " " not in statement:
        statement = query(statement).as_string(connection)
    row: Any = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters).fetchone()  # type: ignore[call-overload]
    document = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return list(nodes_of(document[0]["Plan"]))


@pytest.mark.parametrize("name", ASKED)
def test_no_big_table_is_read_from_end_to_end(loaded: Connection, name: str) -> None:
    """Every table but those named is reached by an index."""
    statement, parameters, allowed = ASKED[name]
    read_whole = {
        node["Relation Name"]
        for node in plan_of(loaded, statement, parameters)
        if node["Node Type"] == "Seq Scan"
    }
    assert read_whole <= allowed


def test_who_has_takes_no_array_apart(loaded: Connection) -> None:
    """It compares ids with the arrays; to unnest them all takes twenty times as long."""
    plan = plan_of(loaded, "read_who_has", {"type": "Class", "title": "Main"})
    assert {"resources_title"} <= {node.get("Index Name") for node in plan}
    assert not [node for node in plan if node["Node Type"] == "Function Scan"]


def test_a_collector_that_asks_for_no_position_looks_for_none(loaded: Connection) -> None:
    """Membership and position sets are read only for file and line."""
    touched = {node.get("Relation Name") for node in plan_of(loaded, COLLECTOR, None)}
    assert not touched & {"catalog_resources", "position_sets", "positions"}
