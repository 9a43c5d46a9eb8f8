"""What PostgreSQL cannot hold comes back as it was, and contents that differ have other digests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.core import pgcopy
from ingest.core.catalog.model import Resource
from ingest.core.catalog.normalise import normalise_resource
from ingest.core.catalog.storable import (
    encode_position,
    encode_resource,
    nearest,
    nearest_text,
    parameters_in,
)
from ingest.core.delivery.work import DIGEST_BYTES, Outcome
from ingest.core.plain_text import require_plain
from ingest.errors import Rejected
from ingest.store.connection import Connection
from lab.store_model import Pipeline, expected, stored, wire_body

NODE = "n.example.com"
texts = st.text(st.sampled_from("a\0\ud800\udfff\udce9\\u0e\"'é\n\x7f\ufffd\U0001f600"), max_size=5)
keys = st.text(st.sampled_from("ab\0\ud800\ufffd\\"), max_size=3)
# As texts: Python would write some of them otherwise.
numbers = st.sampled_from(
    ["0", "-0", "-0.0", "0.0", "1e0", "1E+22", "1e22", "-1e22", "123456789012345680000.0", "1e-7", "5e-324", "1.10", "100e-2",
     "0.1", "1.7976931348623157e308", "9007199254740993", "9223372036854775808", "-9223372036854775809", "1" * 400, "1.0", "1e16",
     "12345678901234567.0", "1e-5", "0e5", "-0e-5", "2.5e15"]
) | st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.integers().map(str)  # fmt: skip


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    text: str


values = st.recursive(
    st.none() | st.booleans() | texts | numbers.map(Number),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(
    [None, "class", "compilable_type", "defined_type", "unknown", "node", "", "other", "k\0"]
)
MEMBERS = st.fixed_dictionaries(
    {
        "type": texts,
        "title": texts,
        "exported": st.booleans(),
        "tags": st.lists(st.sampled_from(["a", "é", "b:c"]), max_size=2),
        "parameters": st.dictionaries(keys, values, max_size=3),
    },
    optional={"kind": kinds, "file": texts, "line": st.integers(0, 2**63 - 1), "extra member": values},
)


def written(value: Any) -> str:
    """JSON with numbers as they are written."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{written(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def exactly(value: Any) -> str:
    """A text that differs where a type, a sign or a digit does; the order of keys does not count."""
    return json.dumps(value, sort_keys=True)


def resource_of(members: dict[str, Any]) -> Resource:
    return normalise_resource(written(members).encode(), "puppetdb").resource


# Through the store


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(MEMBERS, max_size=6, unique_by=lambda m: (m["type"], m["title"])))
def test_any_resource_comes_back_as_it_was(connection: Connection, resources: list[dict[str, Any]]) -> None:
    """U+0000, lone surrogates, numbers of every size and spelling, in every member: equal in value and in type."""
    body = wire_body(NODE, 1, []).replace(b'"resources": []', f'"resources": {written(resources)}'.encode())
    connection.execute("TRUNCATE catalogs, nodes CASCADE")
    assert Pipeline(connection).take(body) == [Outcome.STORED]
    assert exactly(stored(connection, NODE)) == exactly(expected(body))


@given(MEMBERS)
def test_without_floats_nobody_has_to_look_for_them(members: dict[str, Any]) -> None:
    """What normalising says of floats is true, and then the short way gives the same bytes as the long one."""
    normal = normalise_resource(written(members).encode(), "puppetdb")
    if not normal.has_floats:
        assert not _has_float(msgspec.structs.asdict(normal.resource))
        assert encode_resource(normal.resource, has_floats=False) == encode_resource(normal.resource)


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_float, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_float, value))
    return isinstance(value, float)


# Digests


@given(
    MEMBERS,
    MEMBERS,
    st.sets(st.sampled_from(["title", "tags", "parameters", "kind", "line", "extra member"])),
)
def test_equal_digests_mean_equal_contents(
    one: dict[str, Any], other: dict[str, Any], taken: set[str]
) -> None:
    """And equal contents, equal digests and rows, wherever they are declared."""
    a, b = resource_of(one), resource_of(one | {name: other[name] for name in taken if name in other})
    same = exactly(_content(a)) == exactly(_content(b))
    assert (encode_resource(a)[0] == encode_resource(b)[0]) is same
    moved = msgspec.structs.replace(a, file="/elsewhere.pp", line=77)
    assert encode_resource(moved) == encode_resource(a)
    assert len(encode_resource(a)[0]) == DIGEST_BYTES


BASE = Resource("T", "t", exported=False, tags=("a",), parameters={"p": 1}, kind="class")


@pytest.mark.parametrize(
    "change",
    [
        {"type": "T2"}, {"title": "t2"}, {"exported": True}, {"tags": ()}, {"tags": ("a", "b")}, {"kind": None},
        {"kind": "node"}, {"parameters": {}}, {"parameters": {"p": 2}}, {"parameters": {"p": 1.0}}, {"parameters": {"p": True}},
        {"parameters": {"p": "1"}}, {"parameters": {"p": [1]}}, {"parameters": {"q": 1}}, {"extra": {"x": None}},
    ],
)  # fmt: skip
def test_a_change_of_any_part_is_another_digest(change: dict[str, Any]) -> None:
    """Each part counts, and so do types: 1, 1.0, true and "1" are four values."""
    assert encode_resource(msgspec.structs.replace(BASE, **change))[0] != encode_resource(BASE)[0]


def test_parts_do_not_run_into_each_other() -> None:
    """What moves from one part to the next is another content."""
    found = {
        encode_resource(Resource(type_, title, exported=False, tags=tags, parameters={}))[0]
        for type_, title, tags in [("ab", "c", ()), ("a", "bc", ()), ("a", "b", ("c",)), ("a", 'b","c', ()), ("a\0b", "c", ())]
    }  # fmt: skip
    assert len(found) == 5


@given(st.dictionaries(keys, values, max_size=4))
def test_the_order_of_keys_is_no_content(parameters: dict[str, Any]) -> None:
    """Two producers may write a hash in two orders."""
    members = {"type": "T", "title": "t", "parameters": parameters}
    turned = members | {"parameters": dict(reversed(parameters.items()))}
    assert encode_resource(resource_of(members)) == encode_resource(resource_of(turned))


def _content(resource: Resource) -> dict[str, Any]:
    return {
        name: value
        for name, value in msgspec.structs.asdict(resource).items()
        if name not in ("file", "line")
    }


# Positions


@given(
    st.tuples(st.none() | texts, st.none() | st.integers(0, 3)),
    st.tuples(st.none() | texts, st.none() | st.integers(0, 3)),
)
def test_positions_that_differ_have_other_digests(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    """Also where their nearest forms are equal; no file and an empty one are two."""
    assert (encode_position(*one).digest == encode_position(*other).digest) is (one == other)


@pytest.mark.parametrize("line", [-1, 2**63])
def test_a_line_that_no_file_has_is_refused(line: int) -> None:
    """Beyond the column, and below zero."""
    with pytest.raises(Rejected):
        encode_position("/m.pp", line)


# Nearest forms


@given(st.text(st.characters(codec=None)))
def test_the_nearest_text_can_be_held(text: str) -> None:
    """As long as the text itself, and the same where nothing is wrong with it."""
    found = nearest_text(text)
    found.encode("utf-8")
    assert "\0" not in found
    assert len(found) == len(text)
    assert all(a in (b, "\ufffd") for a, b in zip(found, text, strict=True))
    assert nearest_text(found) == found


@given(
    st.dictionaries(keys, st.lists(texts, max_size=2) | st.dictionaries(keys, texts, max_size=2), max_size=3)
)
def test_the_nearest_value_can_be_held(value: dict[str, Any]) -> None:
    """In keys and in values, at any depth."""
    shown = json.dumps(nearest(value), ensure_ascii=False)
    shown.encode("utf-8")
    assert "\\u0000" not in shown.replace("\\\\", "")


@given(st.text(st.characters(codec=None)))
def test_a_header_is_refused_exactly_when_it_cannot_be_held(text: str) -> None:
    """U+0000, lone surrogates, more than 1024 characters."""
    fits = nearest_text(text) == text and len(text) <= 1024
    try:
        require_plain("certname", text)
    except Rejected:
        assert not fits
    else:
        assert fits


def test_a_header_of_1025_characters_is_refused() -> None:
    """1024 are not."""
    require_plain("certname", "x" * 1024)
    with pytest.raises(Rejected, match="1025 characters"):
        require_plain("certname", "x" * 1025)


# What lies beside the columns


@given(MEMBERS)
def test_parameters_are_read_back_as_they_were(members: dict[str, Any]) -> None:
    """From the column, or from what lies beside it where the column cannot hold them."""
    resource = resource_of(members)
    assert exactly(parameters_in(encode_resource(resource)[1])) == exactly(resource.parameters)


def columns(**members: Any) -> tuple[Any, Any]:
    """(the parameters as they can be searched, the whole resource beside them if it is there)."""
    tail = encode_resource(resource_of({"type": "T", "title": "t"} | members))[1].tail
    end = 4 + int.from_bytes(tail[:4], "big")
    return json.loads(tail[5:end]), None if tail[end:] == pgcopy.NULL else json.loads(tail[end + 4 :])


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"kind": "class"},
        {"kind": None},
        {"file": "/a\0", "line": 1},
        {"parameters": {"whole": Number("1.0"), "part": 1.5, "small": Number("1e-7"), "zero": Number("0.0")}},
        {"parameters": {"text": "-0.0 1e22 \\u0000", "number": 10**40, "list": [1, {"a": "é"}]}},
    ],
)
def test_what_columns_hold_lies_there_once(members: dict[str, Any]) -> None:
    """A resource takes twice its room only where something of it would be lost."""
    parameters, beside = columns(**members)
    assert beside is None
    assert exactly(parameters) == exactly(resource_of({"type": "T", "title": "t"} | members).parameters)


@pytest.mark.parametrize(
    ("members", "searchable"),
    [
        ({"type": "T\0"}, {}),
        ({"title": "t\0"}, {}),
        ({"kind": "other"}, {}),
        ({"more": 1}, {}),
        ({"parameters": {"n": Number("1e22")}}, {"n": 1e22}),
        ({"parameters": {"n": [Number("-0.0")]}}, {"n": [-0.0]}),
        ({"parameters": {"a\0": "b\0", "c": ["\0", {"d": "\0"}]}}, {"a\ufffd": "b\ufffd", "c": ["\ufffd", {"d": "\ufffd"}]}),
    ],
)  # fmt: skip
def test_what_columns_cannot_hold_lies_beside_them(members: dict[str, Any], searchable: Any) -> None:
    """The whole of it, and in the column what is nearest to it."""
    parameters, beside = columns(**members)
    assert exactly(parameters) == exactly(searchable)
    resource = resource_of({"type": "T", "title": "t"} | members)
    assert (beside["type"], beside["title"], beside["kind"]) == (resource.type, resource.title, resource.kind)
    assert exactly(beside["parameters"]) == exactly(resource.parameters)
    assert beside["extra"] == resource.extra
