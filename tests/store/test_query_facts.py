"""A query shows a fact as it was sent, wherever it lies: in its base, among the node's own facts, or with leaves that move."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.core.query.pql import parse_pql
from ingest.core.query.reading import read_query
from ingest.store.connection import Connection
from ingest.store.query.compiling import compile_query
from lab.facts import FactsPipeline, facts_body
from tests.store.test_query import rows

NODES = ("a.example.com", "b.example.com", "c.example.com")
COMMON = {f"common_{number:02}": f"value {number}" for number in range(40)}
# Ways of asking that the compiler answers differently: from the nodes, from what they share, with and without the names of facts.
ASKED = (
    "facts[certname,name,value]{}",
    'facts[certname,name,value]{name ~ "."}',
    'facts[certname,name,value]{certname ~ "."}',
    "facts[certname,name,value]{certname in nodes[certname]{}}",
    f'facts[certname,name,value]{{certname in {json.dumps(NODES)} and name ~ "."}}',
    'facts[certname,name,value]{!name = "nothing" and environment = "production"}',
)
Rounds = list[dict[str, Any]]


def odd(node: int, run: int, value: Any) -> dict[str, Any]:
    """Neighbours of a fact with leaves, so that one that moves is another's neighbour; names sort as they stand here."""
    return {
        **COMMON,
        "d_before": {"x": "still", "y": ["still", 1]},
        "d_value": value,
        "e_after": {"moves": run if node else 0, "rests": "here"},
        "f_empty": {},
        "g_list": [[], {"deep": [node, {"er": None}]}, True],
        "h_last": f"{node}" if node == 1 else "same",
    }


VALUES: list[tuple[Any, Any]] = [
    ("plain", "plain"),
    ("moves", None),  # None: another with each run
    ({"k": [1, "two", None, True, {"z": "moves"}]}, None),
    (1e22, 1e22),
    (
        {"small": 1e-7, "big": [1e300, 10**30], "zero": -0.0},
        {"small": 1e-7, "big": [10**300, 10**30], "zero": 0.0},
    ),
    ("\x00 and \x1f", "\ufffd and \x1f"),
    (
        {"a\x00b": ["\ud83d", "\\u0000", 'quoted "', "é€𝄞"]},
        {"a\ufffdb": ["\ufffd" * 3, "\\u0000", 'quoted "', "é€𝄞"]},
    ),
    ([], []),
    (None, None),
]


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=range(len(VALUES)))
def test_every_way_to_ask_shows_what_was_sent(connection: Connection, value: Any, shown: Any) -> None:
    """Three nodes of one shape, three runs: what nodes share, what is one's own, and what moves, beside each other."""
    pipeline = FactsPipeline(connection)
    expected: dict[tuple[str, str], Any] = {}
    for run in range(3):
        for node, certname in enumerate(NODES):
            its = moved(value, run * 10 + node) if shown is None and value is not None else value
            facts = odd(node, run, its)
            pipeline.take(facts_body(certname, run, facts))
            wanted = facts | {"d_value": its if shown is None else shown}
            expected |= {(certname, name): fact for name, fact in wanted.items()}
    for asked in ASKED:
        found = {(row["certname"], row["name"]): row["value"] for row in rows(connection, asked)}
        assert found == expected, asked
    of_nodes = {
        certname: {name: fact for (node, name), fact in expected.items() if node == certname}
        for certname in NODES
    }
    inventory = rows(connection, "inventory[certname,facts]{}")
    assert {row["certname"]: row["facts"] for row in inventory} == of_nodes
    factsets = rows(connection, "factsets[certname,facts]{}")
    data = {row["certname"]: {one["name"]: one["value"] for one in row["facts"]["data"]} for row in factsets}
    assert data == of_nodes
    by_name = rows(
        connection, "inventory[certname,facts.e_after.moves,facts.d_value]{facts.e_after.rests = 'here'}"
    )
    assert {row["certname"]: (row["facts.e_after.moves"], row["facts.d_value"]) for row in by_name} == {
        certname: (facts["e_after"]["moves"], facts["d_value"]) for certname, facts in of_nodes.items()
    }


def moved(value: Any, by: int) -> Any:
    return json.loads(json.dumps(value).replace("moves", f"moves {by}"))


def test_leaves_behind_those_that_can_move_are_shown(connection: Connection) -> None:
    """A leaf's place is a small integer, and a node may have more leaves than those."""
    pipeline = FactsPipeline(connection)
    for run in range(2):
        facts = {"a": run, "b": list(range(33000)), "c": {"late": run, "last": "x"}, "d": run}
        pipeline.take(facts_body(NODES[0], run, facts))
        pipeline.take(facts_body(NODES[1], run, facts | {"d": "other"}))
    for asked in ASKED[:3]:
        found = {(row["certname"], row["name"]): row["value"] for row in rows(connection, asked)}
        assert found[NODES[0], "c"] == {"late": 1, "last": "x"}
        assert (found[NODES[0], "a"], found[NODES[0], "d"], found[NODES[1], "d"]) == (1, 1, "other")
        assert found[NODES[1], "b"] == list(range(33000))


def test_equal_values_are_one_group(connection: Connection) -> None:
    """1 and 1.0 are the same number, whatever they are written like."""
    pipeline = FactsPipeline(connection)
    for node, value in enumerate((1, 1.0, 2)):
        pipeline.take(facts_body(NODES[node], 0, {"n": value}))
    found = rows(connection, 'facts[value,count()]{name="n" group by value}')
    assert sorted((row["value"], row["count"]) for row in found) == [(1, 2), (2, 1)]


def test_no_packages_are_null_to_a_condition_and_shown_as_none(connection: Connection) -> None:
    """As PuppetDB has it."""
    pipeline = FactsPipeline(connection)
    pipeline.take(facts_body(NODES[0], 0, {"n": 1}, packages=[["bash", "5.2", "dpkg"]]))
    pipeline.take(facts_body(NODES[1], 0, {"n": 1}))
    shown = ["extract", ["package_inventory"]]
    found = {
        wanted: [
            row["package_inventory"]
            for row in rows(
                connection,
                ["from", "factsets_with_packages", [*shown, ["null?", "package_inventory", wanted]]],
            )
        ]
        for wanted in (True, False)
    }
    assert found == {True: [[]], False: [[["bash", "5.2", "dpkg"]]]}


def test_few_nodes_are_not_looked_for_among_all(connection: Connection) -> None:
    """Who names nodes is answered from those; who names facts, from what nodes share."""

    def is_by_base(asked: str) -> bool:
        return "AS base_id" in compile_query(read_query(parse_pql(asked))).rows

    assert is_by_base('facts{name = "os"}')
    assert is_by_base('facts{name in ["os", "kernel"] and certname ~ "web"}')
    assert is_by_base('facts{environment = "production"}')
    assert not is_by_base('facts{certname = "a" and name = "os"}')
    assert not is_by_base('facts{certname ~ "web"}')
    assert not is_by_base("facts{nodes{deactivated is null}}")
    assert not is_by_base('facts{certname in resources[certname]{title = "x"}}')
