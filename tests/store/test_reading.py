"""What the queries answer: who exports what, and who has a resource."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from importlib.resources import files
from typing import Any

import pytest

from ingest.core.catalog.diff import CHUNK_SLOTS
from ingest.store.catalog.reading import exported_resources
from ingest.store.connection import Connection, connect
from lab.store_model import Pipeline, expected, resource, stored, wire_body
from tests.store.test_writing import deactivate


def ingest(database: str, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "ingest", *arguments, "--database", database],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def exporting(connection: Connection) -> None:
    pipeline = Pipeline(connection)
    for number, parameters in enumerate(
        [{"port": 80}, {"port": "80"}, {"port": [80, 443]}, {"port": {"a": 80, "b": 1}}, {"on": True}, {}]
    ):
        one = resource(
            "web", type_="Service_check", exported=True, tags=["web", f"n{number}"], parameters=parameters
        )
        pipeline.take(wire_body(f"n{number}.example.com", 1, [resource("/etc/x", line=number + 1), one]))


@pytest.mark.parametrize(
    ("wanted", "nodes"),
    [
        ({"port": 80}, ["n0", "n2"]),
        ({"port": "80"}, ["n1"]),
        ({"port": [80, 443]}, ["n2"]),
        ({"port": {"a": 80}}, []),
        ({"port": {"b": 1, "a": 80}}, ["n3"]),
        ({"on": True}, ["n4"]),
        ({"port": 80, "on": True}, []),
        ({}, ["n0", "n1", "n2", "n3", "n4", "n5"]),
    ],
)
def test_parameters_are_compared_as_collectors_do(
    connection: Connection, wanted: dict[str, Any], nodes: list[str]
) -> None:
    """Equal in value and type, or an array with it; parts of a hash are not enough."""
    exporting(connection)
    found = exported_resources(connection, "Service_check", parameters=wanted)
    assert [one["certname"].partition(".")[0] for one in found] == nodes


def test_query_exported_takes_all_filters(connection: Connection, database: str) -> None:
    """Type, title, tags and parameters narrow what a person sees; file and line are those of the node."""
    exporting(connection)
    exported = ("query", "exported", "--type", "Service_check")
    assert len(ingest(database, *exported)) == 6
    assert len(ingest(database, *exported, "--tag", "web", "--tag", "n2")) == 1
    assert len(ingest(database, *exported, "--title", "other")) == 0
    (one,) = ingest(database, *exported, "--parameter", 'port="80"')
    assert one == {
        "certname": "n1.example.com", "environment": "production", "type": "Service_check", "title": "web",
        "tags": ["n1", "web"], "parameters": {"port": "80"}, "file": "/m.pp", "line": 1,
    }  # fmt: skip
    assert len(ingest(database, *exported, "--parameter", "port=80")) == 2
    assert len(ingest(database, *exported, "--parameter", "port=eighty")) == 0


def test_a_parameter_without_a_value_is_one_clear_line(database: str) -> None:
    """The flag and what it takes are named."""
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "query", "exported", "--type", "X", "--parameter", "port",
         "--database", database],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--parameter" in done.stderr
    assert "NAME=VALUE" in done.stderr


def test_who_has_a_resource(connection: Connection, database: str) -> None:
    """Active nodes only, each with the place where it declares the resource."""
    exporting(connection)
    Pipeline(connection).take(deactivate("n1.example.com", 2))
    found = ingest(database, "query", "who-has", "File", "/etc/x")
    assert [(one["certname"], one["line"]) for one in found] == [
        (f"n{n}.example.com", n + 1) for n in range(6) if n != 1
    ]
    assert found[0] == {
        "certname": "n0.example.com", "environment": "production", "type": "File", "title": "/etc/x",
        "exported": False, "file": "/m.pp", "line": 1,
    }  # fmt: skip
    assert ingest(database, "query", "who-has", "File", "/nowhere") == []
    assert ingest(database, "query", "who-has", "Exec", "/etc/x") == []


def test_edges_name_their_ends_beyond_the_first_chunk(connection: Connection) -> None:
    """Slots of an edge are places in the whole catalog, not in a row of it."""
    titles = [f"/{n:04}" for n in range(300)]
    edges = [(0, 299, "contains"), (255, 256, "before"), (299, 5, "notifies")]
    Pipeline(connection).take(wire_body("n.example.com", 1, [resource(title) for title in titles], edges))
    rows: Any = connection.execute("SELECT source_title, target_title, relationship FROM edges").fetchall()
    assert sorted(rows) == sorted((titles[s], titles[t], relationship) for s, t, relationship in edges)
    places: Any = connection.execute("SELECT title, line FROM node_resources ORDER BY title").fetchall()
    assert places == [(title, 1) for title in titles]


def test_a_catalog_is_read_whole_while_it_is_replaced(connection: Connection, database: str) -> None:
    """Header, resources and edges of a reading belong together, whenever a writer comes."""
    bodies = [
        wire_body("n.example.com", minute, [resource(f"/{minute}/{n}") for n in range(4 + minute % 2 * 200)],
                  [(0, 3, "before")])
        for minute in range(60)
    ]  # fmt: skip
    wanted = [expected(body) for body in bodies]
    Pipeline(connection).take(bodies[0])

    def write() -> None:
        opened = connect(database)
        pipeline = Pipeline(opened)
        for body in bodies[1:]:
            pipeline.take(body)
        opened.close()

    writer = threading.Thread(target=write)
    writer.start()
    readings = 0
    while writer.is_alive():
        assert stored(connection, "n.example.com") in wanted
        readings += 1
    writer.join()
    assert readings > 1
    assert stored(connection, "n.example.com") == wanted[-1]


def test_the_statements_know_the_size_of_a_chunk() -> None:
    """SQL cannot import it: every file that counts slots says the same number as core/diff.py."""
    counted = 0
    for file in (
        *files("ingest.store").joinpath("sql").iterdir(),
        *files("ingest.store").joinpath("migrations").iterdir(),
    ):
        for number in re.findall(r"chunk \* (\d+)", file.read_text(encoding="utf-8")):
            assert int(number) == CHUNK_SLOTS, file.name
            counted += 1
    assert counted > 0
