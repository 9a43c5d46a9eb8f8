"""Reads facts back: one node's factset as it was sent, and what a fact is on all nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from psycopg.types.json import Jsonb

from ingest.core.catalog.model import Json
from ingest.core.facts.leaves import LEAF, join
from ingest.core.facts.stable import firsts_of, stable_leaves
from ingest.errors import Refused
from ingest.store.connection import Connection, translate_errors
from ingest.store.queries import query


def read_factset(connection: Connection, certname: str) -> dict[str, Json]:
    """The stored facts of a node, as the payload of ``replace facts`` version 5.

    Raises Refused for a node of which nothing is stored.
    """
    with translate_errors(), connection.transaction():
        connection.execute(query("one_snapshot"))  # a writer may come between two statements
        row: Any = connection.execute(query("read_factset"), [certname]).fetchone()
        if row is None:
            raise Refused(f"no facts of {certname} are stored")
        packages: Any = connection.execute(query("read_packages_of_node"), [row[-1]]).fetchall()
    name, timestamp, environment, producer, names, exact_names, templates, base, *layers, _ = row
    own_facts, own_leaves, places, moving = layers
    own = dict(zip(own_facts or (), own_leaves or (), strict=True))
    leaves = _with_moving(stable_leaves(base, own), places, moving)
    factset: dict[str, Json] = {
        "certname": name,
        "environment": environment,
        "producer": producer,
        "producer_timestamp": timestamp.isoformat(timespec="milliseconds"),
        "values": {
            fact: json.loads(join(template, its))  # not parse_json: it was read as a message already
            for fact, template, its in zip(
                names if exact_names is None else json.loads(exact_names), templates, leaves, strict=True
            )
        },
    }
    if packages:
        factset["package_inventory"] = [list(package) for package in packages]
    return factset


def facts_named(connection: Connection, name: str, value: Json = ...) -> Iterator[dict[str, Json]]:
    """The active nodes that have a fact, with its value, as JSON objects ordered by certname; only those with that value,
    if there is one."""
    wanted = {"name": name, "value": None if value is ... else Jsonb(value)}
    with translate_errors(), connection.cursor() as cursor:
        cursor.execute(query("read_facts_named"), wanted, prepare=False)
        rows: Any = cursor
        for certname, environment, name_, value_ in rows:
            yield {"certname": certname, "environment": environment, "name": name_, "value": value_}


def _with_moving(leaves: list[str], places: list[int], moving: str) -> list[str]:
    if not places:
        return leaves
    moves = dict(zip(places, moving.split(LEAF), strict=True))
    found = []
    for first, its in zip(firsts_of(leaves), leaves, strict=True):
        parts = its.split(LEAF) if its else []
        found.append(LEAF.join([moves.get(first + at, part) for at, part in enumerate(parts)]))
    return found
