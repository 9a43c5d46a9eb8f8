"""/pdb/query/v4 over HTTP: where parameters may stand, which status a request gets, what its answer is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.front import Front

V4 = "/pdb/query/v4"
JSON = "application/json;charset=utf-8"
TEXT = "text/plain;charset=utf-8"


def names(rows: list[dict[str, Any]], key: str = "certname") -> list[Any]:
    return sorted(row[key] for row in rows)


def test_a_query_may_come_in_every_way_that_clients_send_it(front: Front) -> None:
    """In the address, as a form in a GET, in a POST as JSON; in AST and PQL; with and without an entity's path."""
    ast = ["=", "certname", "n0"]
    whole = ["from", "nodes", ["extract", ["certname"], ast]]
    pql = 'nodes[certname]{certname="n0"}'
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answers = [
        front.get(f"{V4}/nodes", {"query": ast}),
        front.get(f"{V4}/nodes", body=b"query=%5B%22%3D%22%2C%22certname%22%2C%22n0%22%5D", headers=form),
        front.post(f"{V4}/nodes", {"query": ast}),
        front.post(f"{V4}/nodes", {"query": json.dumps(ast)}),
        front.get(V4, {"query": whole}),
        front.get(V4, {"query": pql}),
        front.get(f"{V4}/", {"query": f"  {json.dumps(whole)}"}),
        front.post(V4, {"query": whole}),
        front.post(V4, {"query": pql}),
        front.post(V4, {"query": pql}, headers={"Content-Type": "application/json; charset=utf-8"}),
        front.get(V4, {"query": pql}, headers={"Accept": "application/json, version=2"}),
        front.get(f"{V4}/nodes", {"query": ast}, headers=form),  # as Puppet's terminus does
    ]
    for answer in answers:
        assert (answer.status, answer.headers["content-type"]) == (200, JSON), answer.text
        assert names(answer.json) == ["n0"]


PATHS: list[tuple[str, list[Any], str]] = [
    ("nodes", ["n0", "n1"], "certname"),
    ("environments", ["production"], "name"),
    ("producers", ["puppet.example.com"], "name"),
    ("catalogs", ["n0", "n1", "n2"], "certname"),
    ("resources", ["/a", "/a", "/b", "main", "main", "n0", "n1"], "title"),
    ("resources/File", ["/a", "/a", "/b"], "title"),
    ("resources/File/%2Fb", ["n0"], "certname"),
    ("nodes/n0/resources", ["/a", "/b", "main", "n0"], "title"),
    ("nodes/n0/resources/File", ["/a", "/b"], "title"),
    ("nodes/n0/resources/File/%2Fa", [1], "line"),
    ("nodes/n2/resources", [], "title"),
    ("catalogs/n1/resources", ["/a", "main", "n1"], "title"),
    ("catalogs/n1/edges", ["main"], "target_title"),
    ("edges", ["n0", "n1"], "certname"),
    ("environments/production/resources/Stage", ["n0", "n1"], "certname"),
    ("producers/puppet.example.com/catalogs", ["n0", "n1", "n2"], "certname"),
]


def test_each_path_means_its_rows(front: Front) -> None:
    """Active nodes where PuppetDB shows active ones, all where it shows all; titles with slashes are one part."""
    for path, expected, key in PATHS:
        answer = front.get(f"{V4}/{path}")
        assert answer.status == 200, answer.text
        assert names(answer.json, key) == expected, path


def test_the_state_of_nodes_can_be_asked_for(front: Front) -> None:
    """By either form, anywhere in the query; and the root shows active ones of every entity."""
    state: Any
    for state, expected in (("any", ["n0", "n1", "n2"]), ("inactive", ["n2"]), ("active", ["n0", "n1"])):
        assert names(front.get(f"{V4}/nodes", {"query": ["=", "node_state", state]}).json) == expected
    both = ["or", ["=", ["node", "active"], False], ["=", ["node", "active"], True]]
    assert names(front.get(f"{V4}/nodes", {"query": both}).json) == ["n0", "n1", "n2"]
    assert names(front.post(V4, {"query": "catalogs[certname]{}"}).json) == ["n0", "n1"]
    hidden = ["in", "certname", ["from", "nodes", ["extract", "certname", ["=", ["node", "active"], False]]]]
    assert names(front.get(f"{V4}/nodes", {"query": hidden}).json) == ["n2"]


def test_one_thing_is_an_object_or_404_in_json(front: Front) -> None:
    """A terminus takes a 404 for "not found" only if its body begins with a brace."""
    assert front.get(f"{V4}/nodes/n2").json["certname"] == "n2"
    assert len(front.get(f"{V4}/catalogs/n0").json["resources"]["data"]) == 4
    assert front.get(f"{V4}/environments/production").json == {"name": "production"}
    for path, kind in (("nodes/x", "node"), ("catalogs/x", "catalog"), ("environments/x", "environment"),
                       ("producers/x", "producer"), ("nodes/x/resources", "node"), ("catalogs/x/edges", "catalog"),
                       ("environments/x/resources", "environment")):  # fmt: skip
        answer = front.get(f"{V4}/{path}")
        assert (answer.status, answer.headers["content-type"]) == (404, JSON)
        assert answer.json == {"error": f"No information is known about {kind} x"}


def test_paging_orders_and_counts(front: Front) -> None:
    """X-Records says how many there would be without a limit."""
    order = [{"field": "certname", "order": "desc"}]
    answer = front.get(
        f"{V4}/nodes", {"order_by": order, "limit": "1", "offset": "1", "include_total": "true"}
    )
    assert [row["certname"] for row in answer.json] == ["n0"]
    assert answer.headers["x-records"] == "2"
    assert "x-records" not in front.get(f"{V4}/nodes", {"include_total": "false"}).headers
    posted = front.post(
        f"{V4}/nodes", {"order_by": [{"field": "certname"}], "limit": 1, "include_total": True}
    )
    assert ([row["certname"] for row in posted.json], posted.headers["x-records"]) == (["n0"], "2")
    paged = front.post(
        V4, {"query": ["from", "nodes", ["limit", 1], ["order_by", [["certname", "desc"]]]], "limit": 5}
    )
    assert [row["certname"] for row in paged.json] == ["n1", "n0"]  # the parameter counts, as in PuppetDB


def test_how_an_answer_looks(front: Front) -> None:
    """Pretty, as its own AST, as a plan; empty."""
    pretty = front.get(f"{V4}/nodes", {"pretty": "true", "limit": "1"})
    assert b'\n  "certname": ' in pretty.body
    assert len(pretty.json) == 1
    tree = front.get(V4, {"query": 'nodes[certname]{certname ~ "x" limit 3}', "ast_only": "true"})
    assert tree.json == ["from", "nodes", ["extract", ["certname"], ["~", "certname", "x"]], ["limit", 3]]
    assert "Plan" in json.dumps(front.get(f"{V4}/nodes", {"explain": "analyze"}).json)
    assert front.get(f"{V4}/nodes", {"query": ["=", "certname", "x"]}).body == b"[]"


WRONG: list[tuple[str, dict[str, Any], int, str]] = [
    ("nodes", {"foo": "1"}, 400, "Unsupported query parameter 'foo'"),
    ("", {}, 400, "Missing required query parameter 'query'"),
    ("nodes", {"query": "[[["}, 400, "Json parse error at line 1, column 4"),
    ("nodes", {"query": '["=","certname","x"] []'}, 400, "Only one query may be sent in a request."),
    ("nodes", {"query": "{}"}, 400, "must be a JSON array"),
    ("nodes", {"query": ["=", "foo", "x"]}, 400, "'foo' is not a queryable object for nodes"),
    ("nodes", {"query": ["~", "certname", "*"]}, 400, "invalid regular expression"),
    ("nodes", {"limit": "0"}, 400, "Illegal value '0' for :limit; expected a positive non-zero integer."),
    ("nodes", {"offset": "-1"}, 400, "Illegal value '-1' for :offset; expected a non-negative integer."),
    ("nodes", {"order_by": "certname"}, 400, "for :order_by; expected a JSON array of maps."),
    ("nodes", {"order_by": [{"order": "asc"}]}, 400, "missing required key 'field'"),
    ("nodes", {"order_by": [{"field": "foo"}]}, 400, "Unrecognized column 'foo' specified in :order_by"),
    ("nodes", {"order_by": [{"field": "certname", "x": 1}]}, 400, "unknown key 'x'"),
    ("nodes", {"explain": "x"}, 400, "Illegal value 'x' for :explain; expected `analyze`."),
    ("", {"query": "nodes{"}, 400, "PQL parse error at line 1, column 7"),
    ("", {"query": ["from", "foo"]}, 400, "Invalid entity 'foo' in query"),
    ("foo", {}, 404, "Not Found"),
    ("nodes/x/foo", {}, 404, "Not Found"),
    ("catalogs/n0/facts", {}, 404, "Not Found"),
    ("resources/a/b/c", {}, 404, "Not Found"),
]


def test_what_is_wrong_gets_its_status_and_its_words(front: Front) -> None:
    """Plain text: people read it."""
    for path, parameters, status, said in WRONG:
        answer = front.get(f"{V4}/{path}".rstrip("/"), parameters)
        assert (answer.status, answer.headers["content-type"]) == (status, TEXT), (
            path,
            parameters,
            answer.text,
        )
        assert said in answer.text
    assert "request_failed" not in front.log.read_text()


@pytest.mark.parametrize(
    ("method", "headers", "body", "status"),
    [
        ("GET", {"Accept": "text/html"}, None, 406),
        ("GET", {"Accept": "application/json;q=0"}, None, 406),
        ("GET", {"Accept": "text/html, */*;q=0.1"}, None, 200),
        ("POST", {"Content-Type": "application/x-www-form-urlencoded"}, b"query=%5B%5D", 415),
        ("POST", {"Content-Type": "text/plain"}, b"{}", 415),
        ("POST", {"Content-Type": "application/json"}, b"{", 400),
        ("POST", {"Content-Type": "application/json"}, b"[]", 400),
        ("POST", {}, b"", 200),
        ("PUT", {}, b"", 400),
        ("DELETE", {}, None, 400),
    ],
)
def test_methods_and_types(
    front: Front, method: str, headers: dict[str, str], body: bytes | None, status: int
) -> None:
    """Those that PuppetDB takes, and the status that it gives to others."""
    assert front.get(f"{V4}/nodes", method=method, headers=headers, body=body).status == status


def test_a_query_of_no_end_is_refused(serve: Any) -> None:
    """By its size, its depth, its number of fields; and others are served meanwhile."""
    front = serve("--query-bytes-max", "100000")
    deep = "[" * 10_000 + "]" * 10_000
    assert front.post(V4, {"query": deep}).status == 400
    assert front.get(f"{V4}/nodes", {"query": deep}).status == 400
    assert front.post(V4, {"query": ["from", "nodes", ["=", "certname", "x" * 200_000]]}).status == 413
    assert front.get(f"{V4}/nodes", {"order_by": [{"field": "certname"}] * 1000}).status == 400
    assert (
        front.get(f"{V4}/nodes", {"query": ["=", "certname", "x" * 300_000]}).status == 400
    )  # an address too long
    assert front.get(f"{V4}/nodes").status == 200
    assert front.stop() == 0
