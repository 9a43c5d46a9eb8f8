"""AST version 4 becomes values; what is wrong with it is told by name, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.query import ast
from ingest.core.query.ast import BadQuery
from ingest.core.query.paths import read_field
from ingest.core.query.reading import DEPTH_MAX, NODES_MAX, read_filter, read_query


def field(name: str) -> ast.Field:
    return ast.Field(name, (), (), name)


@pytest.mark.parametrize(
    ("text", "parts", "literal"),
    [
        ("certname", (), ()),
        ("latest_report?", (), ()),
        ("facts.os.name", ("os", "name"), ("os", "name")),
        ("facts.a[0].b[12]", ("a", 0, "b", 12), ("a[0]", "b[12]")),
        ('facts."a.b"."c"', ("a.b", "c"), ("a.b", "c")),
        ('facts."a\\"b"', ('a\\"b',), ('a\\"b',)),
        ('facts."a.b[3]".c', ("a.b", 3, "c"), ("a.b[3]", "c")),
        ('facts.match("a.*").b', (ast.Match("a.*"), "b"), ('match("a.*")', "b")),
        ("facts.5.x", ("5", "x"), ("5", "x")),
        ("facts.a b-c", ("a b-c",), ("a b-c",)),
        ("facts.x[y]", ("x[y]",), ("x[y]",)),
    ],
)
def test_a_path_has_parts(text: str, parts: tuple[Any, ...], literal: tuple[str, ...]) -> None:
    """Quoted, indexed and matched ones, by PuppetDB's rules of quoting."""
    found = read_field(text)
    assert (found.name, found.parts, found.literal, found.text) == (
        text.partition(".")[0],
        parts,
        literal,
        text,
    )


@pytest.mark.parametrize(
    "text", ["", ".", "1a", "a..b", "a.", 'facts.""', "a b", 5, None, "facts" + ".x" * 200, "é"]
)
def test_what_is_no_field_is_refused(text: Any) -> None:
    """By BadQuery alone."""
    with pytest.raises(BadQuery):
        read_field(text)


def test_a_query_has_an_entity_a_filter_columns_and_paging() -> None:
    """Both forms of a subquery come to the same."""
    new = [
        "in",
        "certname",
        ["from", "resources", ["extract", ["certname"], ["=", "type", "Class"]], ["limit", 3]],
    ]
    old = [
        "in",
        ["certname"],
        ["extract", "certname", ["select_resources", ["=", "type", "Class"], ["limit", 3]]],
    ]
    columns = ["certname", ["function", "count"]]
    for subquery in (new, old):
        found = read_query(
            ["FROM", "package-inventory", ["Extract", columns, subquery, ["group_by", "certname"]],
             ["order_by", [["certname", "desc"], "version"]], ["offset", 7]]
        )  # fmt: skip
        assert found == ast.Query(
            "package_inventory",
            (field("certname"), ast.Function("count")),
            ast.InQuery(
                (field("certname"),),
                ast.Query("resources", (field("certname"),), ast.equals("type", "Class"), limit=3),
            ),
            (field("certname"),),
            (ast.Order("certname", True), ast.Order("version")),
            offset=7,
        )


def test_null_is_asked_for_by_equality_too() -> None:
    """What that means depends on the field: an event's value may be null, and is not missing then."""
    assert read_filter(["=", "expired", None]).where == ast.Compare("=", field("expired"), None)


def test_a_restriction_is_seen_wherever_it_stands() -> None:
    """Subqueries included: PuppetDB adds none of its own then."""
    hidden = read_query(
        ["from", "nodes", ["and", ["not", ["=", "certname", "a"]],
                           ["or", ["in", "certname",
                                   ["extract", "certname", ["select_facts", ["=", ["node", "active"], True]]]]]]]
    )  # fmt: skip
    assert any(map(ast.is_node_state, ast.walk(hidden.where)))
    assert not any(
        map(ast.is_node_state, ast.walk(read_query(["from", "nodes", ["=", "certname", "x"]]).where))
    )


WRONG: list[tuple[Any, str]] = [
    ([], "must be of the form"),
    (["from"], "must be of the form"),
    ({}, "must be of the form"),
    (["from", 3], "Your initial query must be of the form"),
    (["from", "nodes", ["=", "a", 1], ["=", "b", 2]], "optional query only as a second argument"),
    (["from", "nodes", []], "[] is not well-formed"),
    (["from", "nodes", ["and"]], "'and' takes at least one argument"),
    (["from", "nodes", ["or"]], "'or' takes at least one argument"),
    (["from", "nodes", ["not"]], "'not' takes exactly one argument, but 0"),
    (["from", "nodes", ["not", ["=", "a", 1], ["=", "a", 1]]], "'not' takes exactly one argument, but 2"),
    (["from", "nodes", ["=", "certname"]], "= requires exactly two arguments"),
    (["from", "nodes", ["~", "certname", {"a": 1}]], "Invalid ~ clause"),
    (["from", "nodes", ["foo", "certname", 1]], '"foo" is not an operator'),
    (["from", "nodes", "certname"], "not well-formed"),
    (["from", "nodes", ["and", []]], "[] is not well-formed"),
    (["from", "nodes", [["=", "a", 1]]], "is not an operator"),
    (["from", "nodes", ["null?", "certname", "x"]], "true or false"),
    (["from", "nodes", ["in", "certname", "x"]], "'in' takes one of them"),
    (["from", "nodes", ["in", "certname", ["array", "x"]]], "'array' requires a vector argument"),
    (["from", "nodes", ["in", "certname", ["from", "facts"]]], "extract as many"),
    (["from", "nodes", ["in", "certname", ["extract", "certname", ["select-facts", ["=", "a", 1]]]]],
     "did you mean `select_facts`?"),
    (["from", "nodes", ["in", "certname", ["extract", "certname", ["facts", ["=", "a", 1]]]]], "Unsupported subquery `facts`"),
    (["from", "nodes", ["extract", [["function", "foo"]]]], "is not a valid function"),
    (["from", "nodes", ["extract", [["function", "avg"]]]], "wrong number of arguments (0)"),
    (["from", "nodes", ["extract", [["function", "to_string", "a"]]]], "wrong number of arguments (1)"),
    (["from", "nodes", ["limit", 0]], "positive non-zero integer"),
    (["from", "nodes", ["limit", 1.5]], "positive non-zero integer"),
    (["from", "nodes", ["limit", True]], "positive non-zero integer"),
    (["from", "nodes", ["offset", -1]], "non-negative integer"),
    (["from", "nodes", ["limit", 1], ["limit", 2]], "Multiple 'limit' clauses"),
    (["from", "nodes", ["limit"]], "'limit' clause without an argument"),
    (["from", "nodes", ["order_by", "certname"]], "order_by"),
    (["from", "nodes", ["order_by", [["certname", "up"]]]], "asc"),
    (["from", "nodes", ["order_by", ["certname"] * 1000]], "order_by"),
    (["from", "nodes", ["subquery", 3]], "a subquery is of the form"),
    (["from", "nodes", ["and", *[["=", "certname", "x"]] * (NODES_MAX + 1)]], f"more than {NODES_MAX} operators"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=str)
def test_what_is_wrong_is_said(wrong: Any, said: str) -> None:
    """In the words of PuppetDB, where it has some."""
    with pytest.raises(BadQuery) as caught:
        read_query(wrong)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("operator", ["not", "and", "or"])
def test_depth_is_bounded(operator: str) -> None:
    """Long before Python's stack or PostgreSQL's."""
    tree: Any = ["=", "certname", "x"]
    for _ in range(DEPTH_MAX + 1):
        tree = [operator, tree]
    with pytest.raises(BadQuery, match="levels deep"):
        read_query(["from", "nodes", tree])


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(["=", "~", "and", "or", "not", "in", "from", "extract", "subquery", "null?", "function", "certname",
                       "nodes", "select_facts", "array", "limit", "order_by", "group_by", "count"]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=20,
)  # fmt: skip


@given(_json)
def test_whatever_json_is_given_it_is_a_query_or_a_bad_one(tree: Any) -> None:
    """Nothing else is raised."""
    for read in (read_filter, lambda body: read_query(["from", "nodes", body])):
        try:
            assert isinstance(read(tree), ast.Query)
        except BadQuery:
            pass
