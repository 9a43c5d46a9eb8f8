"""thin_storeconfigs, as Puppet had it: only what others can collect is stored."""

from __future__ import annotations

import json
from typing import Any

from ingest.store.connection import Connection
from lab.engine import Start, publish


def body(minute: int, *exported: str) -> bytes:
    """A native catalog: two files that are nobody else's business, one of which an exported host refers to."""
    resources: list[dict[str, Any]] = [
        {"type": "File", "title": "/own", "tags": ["file"], "parameters": {"mode": "0600"}},
        {"type": "File", "title": "/other", "tags": ["file"], "parameters": {"require": "File[/own]"}},
    ]
    resources += [
        {
            "type": "Host", "title": title, "exported": True, "tags": ["host", "lab"],
            "parameters": {"ip": "10.0.0.1", "require": "File[/own]"},
        }
        for title in exported
    ]  # fmt: skip
    return json.dumps(
        {
            "name": "node.example", "version": "1", "environment": "production", "resources": resources,
            "edges": [{"source": "File[/own]", "target": "File[/other]"}],
            "producer_timestamp": f"2026-01-01T00:{minute:02d}:00Z",
        }
    ).encode()  # fmt: skip


def titles(connection: Connection, view: str) -> list[str]:
    found = connection.execute(f"SELECT title FROM {view} ORDER BY title").fetchall()  # type: ignore[arg-type]
    return [title for (title,) in found]


def test_only_exported_resources_are_stored(start: Start, broker: str, connection: Connection) -> None:
    """They are whole for collectors; an unchanged catalog is called so; a dropped export is gone."""
    engine = start("--thin-storeconfigs")
    publish(broker, body(1, "a", "b"))
    assert engine.wait_settled(1)["stored"] == 1
    assert titles(connection, "node_resources") == titles(connection, "exported_resources") == ["a", "b"]
    found = connection.execute("SELECT parameters, tags FROM exported_resources WHERE title = 'a'").fetchone()
    assert found == ({"ip": "10.0.0.1", "require": "File[/own]"}, ["host", "lab"])
    assert edges_of(connection) == []
    publish(broker, body(2, "a", "b"))
    assert engine.wait_settled(2)["unchanged"] == 1
    publish(broker, body(3, "b"))
    assert engine.wait_settled(3)["stored"] == 2
    assert titles(connection, "node_resources") == ["b"]
    publish(broker, body(4))
    assert engine.wait_settled(4)["quarantined"] == 0
    assert titles(connection, "node_resources") == []


def test_the_setting_takes_effect_with_the_next_catalog(
    start: Start, broker: str, connection: Connection
) -> None:
    """An engine that was thin and is not any more stores the rest, although not a byte of the catalog changed."""
    thin = start("--thin-storeconfigs")
    publish(broker, body(1, "a"))
    thin.wait_settled(1)
    assert thin.stop() == 0
    full = start()
    publish(broker, body(2, "a"))
    assert full.wait_settled(1)["stored"] == 1
    assert titles(connection, "node_resources") == ["/other", "/own", "a"]
    assert len(edges_of(connection)) == 3
    assert full.stop() == 0
    again = start("--thin-storeconfigs")
    publish(broker, body(3, "a"))
    again.wait_settled(1)
    assert titles(connection, "node_resources") == ["a"]


def edges_of(connection: Connection) -> list[Any]:
    return connection.execute("SELECT * FROM edges").fetchall()
