"""Random queries over the table of entities: each has rows, or an error that its asker can mend."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.core.query.ast import BadQuery
from ingest.core.query.reading import read_query
from ingest.store.connection import Connection
from ingest.store.query.compiling import compile_query
from ingest.store.query.entities import ENTITIES
from ingest.store.query.entity import Type
from ingest.store.query.running import RunningQuery, open_reader
from ingest.store.query.wire import finish
from lab.facts import FactsPipeline, facts_body
from tests.store.test_query import fleet

NAMES = sorted({name for entity in ENTITIES.values() for name in entity.fields})
PATHS = [
    "facts.a",
    "facts.a.b[0]",
    'facts.match("a.*").b',
    "parameters.mode",
    "parameters.deep.x[1].y",
    "trusted.x",
    'facts."a.b".0',
]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.sampled_from(["n0", "/a", "2026-01-01", "2026-01-01T00:00:00Z", "a.*", "(", "\\", "true", "active", "any", "agent", "\0"]),
)  # fmt: skip
FUNCTIONS = ("count", "avg", "sum", "min", "max", "to_string", "jsonb_typeof")


SUITED: dict[Type, tuple[tuple[str, ...], list[Any]]] = {
    Type.STRING: (("=", "~"), ["n0", "n1", "/a", "production", "a.*", ""]),
    Type.NUMERIC: (("=", ">", "<", ">=", "<="), [0, 1, 2.5, -7]),
    Type.BOOLEAN: (("=",), [True, False]),
    Type.TIMESTAMP: (("=", ">", "<", ">=", "<="), ["2026-01-01", "2020-02-03T04:05:06.789Z"]),
    Type.ARRAY: (("=", "~"), ["a", "."]),
    Type.TAGS: (("=", "~"), ["file", "WEB", "."]),
    Type.SCALAR: (("=", "~", ">", "<="), [1, 1.5]),
    Type.ENCODED: (("=", "~"), ["present", ".", "", 5, True]),
    Type.DOCUMENT: (("=", "~", ">", "<="), ["0644", 5, True]),
    Type.PATH: (("=", "~>"), [["a", "b", 0], ["a", ".*"]]),
    Type.PATH_TEXT: (("=", "~>"), [["a", "b", 0], ["a", ".*"]]),
    Type.HASH: (("=", "~"), ["00ff", "no digits", "a"]),
    Type.JSON: (("=",), ["x"]),
}
RARELY = 20  # one in so many is of another entity, or does not suit its type


@st.composite
def fields(draw: Any, entity: str) -> str:
    """Nearly always its own; of documents, paths."""
    if draw(st.integers(1, RARELY)) == 1:
        return str(draw(st.sampled_from([*NAMES, *PATHS])))
    known = ENTITIES[entity].fields
    name = draw(st.sampled_from(sorted(known)))
    if known[name].type is Type.DOCUMENT and draw(st.booleans()):
        return str(draw(st.sampled_from([path for path in PATHS if path.startswith(name)])))
    return str(name)


@st.composite
def columns(draw: Any, entity: str, size: int | None = None) -> list[Any]:
    found: list[Any] = []
    for _ in range(size or draw(st.integers(1, 3))):
        name = draw(fields(entity))
        function = draw(st.sampled_from((*[None] * 8, "count", *FUNCTIONS)))
        if function is None:
            found.append(name)
        else:
            more = ["YYYY"] if function == "to_string" else []
            found.append(
                [
                    "function",
                    function,
                    *([] if function == "count" and draw(st.booleans()) else [name, *more]),
                ]
            )
    return found


@st.composite
def conditions(draw: Any, entity: str, depth: int = 3) -> Any:
    kind = draw(
        st.sampled_from(
            ["compare"] * 5
            + (["and", "or", "not", "in", "subquery", "array", "null?", "pair"] if depth else [])
        )
    )
    if kind in ("and", "or"):
        return [kind, *(draw(conditions(entity, depth - 1)) for _ in range(draw(st.integers(1, 3))))]
    if kind == "not":
        return ["not", draw(conditions(entity, depth - 1))]
    if kind == "in":
        other, size = draw(st.sampled_from(sorted(ENTITIES))), draw(st.integers(1, 2))
        mine = [draw(fields(entity)) for _ in range(size)]
        if (
            "certname" in ENTITIES[entity].fields
            and "certname" in ENTITIES[other].fields
            and draw(st.booleans())
        ):
            return [
                "in",
                "certname",
                ["from", other, ["extract", ["certname"], draw(conditions(other, depth - 1))]],
            ]
        inner = ["extract", draw(columns(other, size)), draw(conditions(other, depth - 1))]
        return ["in", mine, ["from", other, inner, *([["limit", 2]] if draw(st.booleans()) else [])]]
    if kind == "subquery":
        other = draw(st.sampled_from(sorted(ENTITIES[entity].relations) or ["nodes"]))
        return [
            "subquery",
            other,
            draw(conditions(other, depth - 1)) if other in ENTITIES else ["=", "certname", "x"],
        ]
    if kind == "array":
        return ["in", draw(fields(entity)), ["array", draw(st.lists(VALUES, max_size=3))]]
    if kind == "null?":
        return ["null?", draw(fields(entity)), draw(st.booleans())]
    if kind == "pair":
        pair = draw(
            st.sampled_from([["parameter", "mode"], ["fact", "a"], ["fact", "a.b"], ["node", "active"]])
        )
        return [draw(st.sampled_from(["=", "~", ">", "<="])), pair, draw(VALUES)]
    name = draw(fields(entity))
    found = ENTITIES[entity].fields.get(name.partition(".")[0])
    if found is None or draw(st.integers(1, RARELY)) == 1:
        return [draw(st.sampled_from(["=", "~", ">", "<", ">=", "<=", "~>"])), name, draw(VALUES)]
    operators, suited = SUITED[found.type]
    return [draw(st.sampled_from(operators)), name, draw(st.sampled_from(suited))]


@st.composite
def queries(draw: Any) -> list[Any]:
    entity = draw(st.sampled_from(sorted(ENTITIES)))
    body = draw(conditions(entity))
    if draw(st.booleans()):
        wanted = draw(columns(entity))
        grouped = [["group_by", *wanted]] if draw(st.booleans()) else []
        body = ["extract", wanted, body, *grouped]
    orders = [["order_by", [[draw(fields(entity)), "desc"]]]] if draw(st.booleans()) else []
    return ["from", entity, body, ["limit", 5], *orders]


@pytest.fixture
def reader(connection: Connection, database: str) -> Any:
    fleet(connection)
    values = {"a": {"b": [1, "x", {"c": None}]}, "a.b": ["z"], "trusted": {"x": True}, "n": 1.5, "text": "n0"}
    FactsPipeline(connection).take(
        facts_body("n0", 1, values, [["bash", "5", "dpkg"]]), facts_body("n1", 2, {"a": 3})
    )
    opened = open_reader(database, connect_timeout_s=5, timeout_s=20)
    yield opened
    opened.close()


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=queries())
def test_a_query_has_rows_or_an_error_of_its_asker(reader: Connection, asked: list[Any]) -> None:
    """Whatever fits the table of entities, and much that does not: nothing else is raised, and every row is JSON."""
    running = RunningQuery(reader, 20)
    try:
        piece = finish(reader, running.begin(compile_query(read_query(asked), 1000.0), with_total=True))
        while piece:
            for row in piece:
                json.loads(row)
            piece = finish(reader, running.next_piece())
    except BadQuery:
        pass
    finally:
        assert finish(reader, running.close())
