"""PQL becomes the AST that PuppetDB 7.12.1 makes of it (its ``ast_only``), or an error that shows where it stopped."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.core.query.ast import BadQuery
from ingest.core.query.pql import parse_pql

A, B = ["=", "certname", "a"], ["=", "certname", "b"]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("nodes{}", ["from", "nodes"]),
        ("  nodes  [ ]  { }  ", ["from", "nodes", ["extract", []]]),
        ("nodes[certname]{}", ["from", "nodes", ["extract", ["certname"]]]),
        ('nodes{certname="a"}', ["from", "nodes", A]),
        ('nodes{certname="a" or certname="b" and certname="a"}', ["from", "nodes", ["or", A, ["and", B, A]]]),
        ('nodes{(certname="a" or certname="b") and certname="a"}', ["from", "nodes", ["and", ["or", A, B], A]]),
        ('nodes{certname="a" or certname="b" or certname="a"}', ["from", "nodes", ["or", A, B, A]]),
        ('nodes{!certname="a" and !(certname="b")}', ["from", "nodes", ["and", ["not", A], ["not", B]]]),
        ('nodes{certname != "a" and certname !~ "b"}',
         ["from", "nodes", ["and", ["not", A], ["not", ["~", "certname", "b"]]]]),
        ("nodes{expired is null or expired is  not null}",
         ["from", "nodes", ["or", ["null?", "expired", True], ["null?", "expired", False]]]),
        ("nodes[certname]{limit 10 offset 3 order by certname desc, expired}",
         ["from", "nodes", ["extract", ["certname"]], ["limit", 10], ["offset", 3],
          ["order_by", [["certname", "desc"], "expired"]]]),
        ("nodes[certname,count()]{group by certname}",
         ["from", "nodes", ["extract", ["certname", ["function", "count"]], ["group_by", "certname"]]]),
        ('resources[type]{type="x" group by type}',
         ["from", "resources", ["extract", ["type"], ["=", "type", "x"], ["group_by", "type"]]]),
        ('nodes[count(certname), to_string(expired,"YYYY")]{}',
         ["from", "nodes", ["extract", [["function", "count", "certname"],
                                        ["function", "to_string", "expired", "YYYY"]]]]),
        ("nodes{certname in ['a', 1, -2.5, true, [\"x\"]]}",
         ["from", "nodes", ["in", "certname", ["array", ["a", 1, -2.5, True, ["x"]]]]]),
        ("nodes{certname in resources[certname]{type='x' limit 3}}",
         ["from", "nodes", ["in", "certname",
                            ["from", "resources", ["extract", ["certname"], ["=", "type", "x"]], ["limit", 3]]]]),
        ("nodes{[certname,expired] in facts[certname,name]{}}",
         ["from", "nodes", ["in", ["certname", "expired"], ["from", "facts", ["extract", ["certname", "name"]]]]]),
        ('nodes{resources{type="x"} or facts{}}',
         ["from", "nodes", ["or", ["subquery", "resources", ["=", "type", "x"]], ["subquery", "facts"]]]),
        ("reports{latest_report? = true}", ["from", "reports", ["=", "latest_report?", True]]),
        ('inventory[facts.os.name]{facts."a.b".c[0] ~ "x" and facts.match("a.*").z=1.5e3}',
         ["from", "inventory", ["extract", ["facts.os.name"], ["and", ["~", 'facts."a.b".c[0]', "x"],
                                                               ["=", 'facts.match("a.*").z', 1500.0]]]]),
        ("resources{parameters.ensure='x'}", ["from", "resources", ["=", "parameters.ensure", "x"]]),
        ("inventory[facts]{trusted.authenticated >= 3}",
         ["from", "inventory", ["extract", ["facts"], [">=", "trusted.authenticated", 3]]]),
        ('fact_contents{path ~> ["a", ".*"]}', ["from", "fact_contents", ["~>", "path", ["a", ".*"]]]),
        (r'''nodes{certname="a\"é\u00e9\n" or certname='b\n\'c'}''',
         ["from", "nodes", ["or", ["=", "certname", 'a"éé\n'], ["=", "certname", "b\\n'c"]]]),
        ('nodes{certname="((((}}}"}', ["from", "nodes", ["=", "certname", "((((}}}"]]),
        ('nodes {\n certname ~ "a"\n}\n', ["from", "nodes", ["~", "certname", "a"]]),
        ("environments{}", ["from", "environments"]),
        # Words of the language are fields where a field is expected.
        ("resources[type]{limit = 'x' and order = 'y' and in = 'z'}",
         ["from", "resources", ["extract", ["type"], ["and", ["=", "limit", "x"], ["=", "order", "y"], ["=", "in", "z"]]]]),
    ],
)  # fmt: skip
def test_pql_becomes_the_lists_that_a_client_would_have_sent(text: str, tree: list[Any]) -> None:
    """Precedence, paging, functions, paths and strings, as PuppetDB reads them."""
    assert parse_pql(text) == tree


@pytest.mark.parametrize(
    ("text", "line", "column", "expected"),
    [
        ("nodes { foo", 1, 12, "is null"),
        ("nodes{", 1, 7, "a name"),
        ("nodes{certname = }", 1, 18, "'a string'"),
        ("nodes", 1, 6, "{"),
        ("", 1, 1, "a name"),
        ("nodes{}x", 1, 8, "the end"),
        ('nodes{certname="a"\n and\n foo !! "x"}', 3, 6, "in"),
        ("nodes{\n\n", 3, 1, "}"),
        ('nodes{certname="a}', 1, 16, "'a string'"),
        ("nodes{limit x}", 1, 13, "a whole number"),
        ("nodes[]{certname ~> 'x'}", 1, 21, "["),
        ("resources[type]{group by type order by type}", 1, 31, "}"),
        ("; DROP TABLE nodes", 1, 1, "a name"),
    ],
)
def test_an_error_shows_where_and_what_could_have_stood_there(
    text: str, line: int, column: int, expected: str
) -> None:
    """The query page of puppetboard shows this text to people."""
    with pytest.raises(BadQuery) as caught:
        parse_pql(text)
    said = str(caught.value)
    assert said.startswith(f"PQL parse error at line {line}, column {column}:\n\n")
    assert said.splitlines()[3] == " " * (column - 1) + "^"
    assert expected in said.splitlines()


@pytest.mark.parametrize("text", ["foo{}", "nodes{foo{}}", "Nodes{}", "producers{}"])
def test_an_entity_that_is_none_is_named(text: str) -> None:
    """With those that are."""
    with pytest.raises(BadQuery, match=r"is not an entity. Known entities are .*package_inventory"):
        parse_pql(text)


@pytest.mark.parametrize(
    "text",
    [
        "nodes{" + "(" * 5000 + 'certname="a"' + ")" * 5000 + "}",
        "nodes{certname in " + "[" * 5000 + "1" + "]" * 5000 + "}",
        "nodes{certname=" + "9" * 5000 + "}",
        "nodes{certname='" + "x" * 2_000_000 + "'}",
        "nodes{certname=\"\\q\"}",
        "nodes{" * 3000,
        "\0", "nodes\0{}", "nodes{certname='a'" + " and" * 3000, "\ud800{}",
    ],
)  # fmt: skip
def test_what_is_no_query_ends_in_an_error_of_ours(text: str) -> None:
    """Too deep, too long, too large, broken: never another exception."""
    with pytest.raises(BadQuery):
        parse_pql(text)
