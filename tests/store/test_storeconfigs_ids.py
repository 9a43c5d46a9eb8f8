"""Ids of the old storeconfigs' views: each row has one of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab import real_catalogs as corpus
from lab.store_model import Pipeline, resource, wire_body

VIEWS = (
    "hosts",
    "resources",
    "param_names",
    "param_values",
    "puppet_tags",
    "source_files",
    "fact_names",
    "fact_values",
)


def many(title: str, values: int, parameters: int) -> dict[str, Any]:
    """A resource with as many values in one array, and as many parameters beside it."""
    scalars: dict[str, Any] = {f"p{number:04}": number for number in range(parameters)}
    return resource(
        title, type_="Notify", parameters=scalars | {"list": [f"{title}-{n}" for n in range(values)]}
    )


def collisions(connection: Connection) -> dict[str, int]:
    found = {}
    for view in VIEWS:
        row: Any = connection.execute(
            f"SELECT count(*) - count(DISTINCT id) FROM storeconfigs.{view}"
        ).fetchone()  # type: ignore[call-overload]
        found[view] = row[0]
    return found


SHAPES: dict[str, list[dict[str, Any]]] = {
    # As it was tried: two resources after one another, the first with more than 64 values.
    "150 values": [many("n0", 150, 0), many("n1", 3, 0)],
    "64 and 65 values": [many(f"n{n}", 64 + n % 2, 0) for n in range(8)],
    "200 parameters": [many(f"n{n}", 0, 200) for n in range(5)],
    "arrays and parameters": [many(f"n{n}", 100, 100) for n in range(5)],
    "5000 values": [many("n0", 5000, 0), many("n1", 5000, 1)],
    "values of every kind": [resource("x", parameters={"a": [None, True, [1, [2]], {"b": []}, "", 1.5] * 20, "b": [], "c": {}})],
    "none": [resource("x"), resource("y")],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_row_has_an_id_of_its_own(connection: Connection, shape: str) -> None:
    """However many values a resource has, on several nodes that share content and have neighbouring numbers."""
    Pipeline(connection).take(*(wire_body(f"n{n}.example.com", 1, SHAPES[shape]) for n in range(3)))
    assert collisions(connection) == dict.fromkeys(VIEWS, 0)


def test_real_catalogs_have_no_two_rows_of_one_id(connection: Connection) -> None:
    """All roles together."""
    Pipeline(connection).take(*(corpus.body(role, 1, "wire") for role in corpus.ROLES))
    assert collisions(connection) == dict.fromkeys(VIEWS, 0)


def test_numbers_at_their_limits(connection: Connection) -> None:
    """A node with the highest number that there can be, and content with negative numbers: no overflow, no collision."""
    Pipeline(connection).take(wire_body("n.example.com", 1, [many("n0", 70, 0), many("n1", 70, 0)]))
    connection.execute(
        "INSERT INTO nodes (id, certname) OVERRIDING SYSTEM VALUE VALUES (2147483647, 'last'), (33554431, 'a'), (33554432, 'b')"
    )
    for table in ("catalogs", "catalog_resources", "catalog_exports"):
        rows: Any = connection.execute(
            "SELECT string_agg(quote_ident(attname), ',') FROM pg_attribute"
            f" WHERE attrelid = '{table}'::regclass AND attnum > 0 AND attname <> 'node_id'"  # type: ignore[call-overload]
        ).fetchone()
        connection.execute(
            f"INSERT INTO {table} (node_id, {rows[0]}) SELECT n.id, {rows[0]} FROM {table}, nodes n"  # type: ignore[call-overload]
            " WHERE n.certname IN ('last', 'a', 'b')"
        )
    connection.execute(
        "WITH moved AS (UPDATE resources SET id = -2147483648 WHERE title = 'n0' RETURNING id)"
        " UPDATE catalog_resources SET resource_ids[1] = (SELECT id FROM moved)"
    )
    assert collisions(connection) == dict.fromkeys(VIEWS, 0)
    row: Any = connection.execute("SELECT count(*) FROM storeconfigs.param_values").fetchone()
    assert row == (4 * 140,)


def test_an_id_stays_what_it_is_in_every_question(connection: Connection) -> None:
    """Also when only one resource is asked for, and the first 64 are what they were before there were others."""
    Pipeline(connection).take(wire_body("n.example.com", 1, [many("n0", 70, 0), many("n1", 70, 0)]))
    everything: Any = connection.execute(
        "SELECT id, resource_id, value FROM storeconfigs.param_values"
    ).fetchall()
    resource_ids = {resource_id for _, resource_id, _ in everything}
    for resource_id in resource_ids:
        one: Any = connection.execute(
            "SELECT id, resource_id, value FROM storeconfigs.param_values WHERE resource_id = %s",
            [resource_id],
        ).fetchall()
        assert sorted(one) == sorted(row for row in everything if row[1] == resource_id)
        assert {id_ for id_, *_ in one if id_ >= 0} == {resource_id * 64 + place for place in range(1, 65)}
    assert json.dumps(sorted(value for *_, value in everything)) == json.dumps(
        sorted(f"n{n}-{m}" for n in range(2) for m in range(70))
    )
