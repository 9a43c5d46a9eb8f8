"""What is refused has a stable word for filters, and a text in which an operator finds what is wrong and with whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.core.catalog.decoding import Decoding
from ingest.errors import Rejected
from tests.core.test_decoding import decode

THING: dict[str, Any] = {"type": "Thing", "title": "a"}
OTHER: dict[str, Any] = {"type": "Thing", "title": "b"}
UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"


def with_edge(edge: Any) -> dict[str, Any]:
    return {"resources": [THING, OTHER], "edges": [edge]}


def with_resource(**members: Any) -> dict[str, Any]:
    return {"resources": [THING | members, OTHER], "edges": []}


def saying(**parameters: Any) -> dict[str, Any]:
    return with_resource(parameters=parameters)


EDGE = {"source": "Thing[a]", "target": "Thing[b]"}
REFUSED: list[tuple[str, dict[str, Any], str, list[str]]] = [
    ("no resources", {"edges": []}, "invalid", ["resources"]),
    ("no edges", {"resources": []}, "invalid", ["edges"]),
    ("resources are no list", {"resources": {}, "edges": []}, "invalid", ["resources", "list"]),
    ("edges are no list", {"resources": [], "edges": {}}, "invalid", ["edges", "list"]),
    ("edges in a string are no list", {"resources": [], "edges": "5"}, "invalid", ["edges", "list"]),
    ("a resource is none", {"resources": [5], "edges": []}, "invalid", ["resource", "object"]),
    ("no type", {"resources": [{"title": "a"}], "edges": []}, "invalid", ["type"]),
    ("no title", {"resources": [{"type": "Thing"}], "edges": []}, "invalid", ["title"]),
    ("twice", {"resources": [THING, THING], "edges": []}, "duplicate_resource", ["Thing[a]", "twice"]),
    ("parameters", with_resource(parameters=[1]), "invalid", ["Thing[a]", "parameters"]),
    ("a rich value", with_resource(parameters={"__ptype": "Regexp", "__pvalue": "x"}), "invalid", ["Thing[a]", "rich"]),
    ("aliases", with_resource(aliases="a"), "invalid", ["Thing[a]", "aliases"]),
    ("kind", with_resource(kind=[7]), "invalid", ["kind", "[7]"]),
    ("file", with_resource(file={"x": 7}), "invalid", ["file", "7"]),
    ("line", with_resource(line="seven"), "invalid", ["line", "seven"]),
    ("line below zero", with_resource(line=-7), "invalid", ["line"]),
    ("tags", with_resource(tags=7), "invalid_tag", ["Thing[a]", "list"]),
    ("a tag", with_resource(tags=["good", "A bad one"]), "invalid_tag", ["Thing[a]", "A bad one"]),
    ("secrets", with_resource(sensitive_parameters="p"), "invalid", ["sensitive_parameters"]),
    ("relation", saying(before="nobody"), "invalid_relationship", ["Thing[a]", "before"]),
    ("dangling relation", saying(require="Thing[z]"), "dangling_edge", ["Thing[a]", "required-by", "Thing[z]"]),
    ("an edge is none", with_edge(5), "invalid", ["edge", "source", "target"]),
    ("an edge without a target", with_edge({"source": "Thing[a]"}), "invalid", ["edge", "target"]),
    ("an edge without a source", with_edge({"target": "Thing[a]"}), "invalid", ["edge", "source"]),
    ("an end is a number", with_edge(EDGE | {"target": 7}), "invalid", ["edge", "reference"]),
    ("an end without a title", with_edge(EDGE | {"target": {"type": "Thing"}}), "invalid", ["edge", "reference"]),
    ("an end without a type", with_edge(EDGE | {"target": {"title": "b"}}), "invalid", ["edge", "reference"]),
    ("an end is a word", with_edge(EDGE | {"target": "nobody"}), "invalid", ["nobody", "reference"]),
    ("dangling edge", with_edge(EDGE | {"target": "Thing[z]"}), "dangling_edge", ["Thing[z]"]),
    ("relationship", with_edge(EDGE | {"relationship": "likes"}), "unknown_relationship", ["likes"]),
    ("not collected", {"resources": [THING | {"parameters": {"require": "Thing[b]"}},
        OTHER | {"exported": True, "virtual": True}], "edges": []},
        "dangling_edge", ["Thing[a]", "Thing[b]", "exported but not collected"]),
    ("environment", with_resource() | {"environment": "pro\0duction"}, "invalid", ["environment"]),
    ("code_id", with_resource() | {"code_id": "\0"}, "invalid", ["code_id"]),
    ("job_id", with_resource() | {"job_id": "\0"}, "invalid", ["job_id"]),
    ("transaction_uuid", with_resource() | {"transaction_uuid": "seven"}, "invalid", ["transaction_uuid", "seven"]),
    ("catalog_uuid", with_resource() | {"catalog_uuid": "seven"}, "invalid", ["catalog_uuid", "seven"]),
    ("time", with_resource() | {"producer_timestamp": "yesterday"}, "invalid", ["producer_timestamp", "yesterday"]),
    ("a member's type", with_resource() | {"environment": ["x"]}, "invalid", ["environment"]),
    ("nobody's", with_resource() | {"name": ""}, "invalid", ["certname"]),
]  # fmt: skip


def refused(document: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        decode(Decoding(1 << 20), json.dumps(document).encode())
    return caught.value


# What only Puppet's own form says: relations, aliases, rich values; and the node's name under that name.
NATIVE_ONLY = {"relation", "dangling relation", "not collected", "aliases", "a rich value", "nobody's"}


@pytest.mark.parametrize("family", ["native", "wire"])
@pytest.mark.parametrize(("case", "members", "reason", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_catalog_is_refused_for_what_is_wrong(
    case: str, members: dict[str, Any], reason: str, words: list[str], family: str
) -> None:
    """By the member, the resource or the value that is at fault."""
    document = {"name": "n", "version": 1} | members
    if family == "wire":
        payload = {"certname": "n", "version": "1"} | members
        document = {"command": "replace catalog", "version": 9, "payload": payload}
        if case in NATIVE_ONLY:
            decode(Decoding(1 << 20), json.dumps(document | {"certname": "n"}).encode())
            return
    found = refused(document)
    assert found.reason == reason
    assert [word for word in words if word not in found.text] == []


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (b"", "unreadable", ["empty"]),
        (b'{"name":', "unreadable", ["truncated"]),
        (b'{"name":"n","x":' + b"[" * 9000, "too_deep", ["deep"]),
        (b'{"name":"\xff","resources":[],"edges":[]}', "invalid", ["UTF-8"]),
    ],
)
def test_what_is_no_catalog_is_refused_for_what_is_wrong(body: bytes, reason: str, words: list[str]) -> None:
    """As far as anybody can tell."""
    with pytest.raises(Rejected) as caught:
        decode(Decoding(1 << 20), body)
    assert caught.value.reason == reason
    assert [word for word in words if word not in caught.value.text] == []


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"payload": None}, "invalid", ["replace catalog", "payload"]),
        ({"version": 3}, "unsupported_version", ["replace catalog", "3"]),
        ({"command": "replace facts", "version": 99}, "unsupported_version", ["replace facts", "99"]),
        ({"command": "replace fax"}, "unknown_command", ["replace fax"]),
    ],
)
def test_a_command_is_refused_for_what_is_wrong(
    change: dict[str, Any], reason: str, words: list[str]
) -> None:
    """By its name, and by its version where that is at fault."""
    payload = {"certname": "n", "version": "1", "resources": [THING], "edges": []}
    found = refused({"command": "replace catalog", "version": 9, "payload": payload} | change)
    assert found.reason == reason
    assert [word for word in words if word not in found.text] == []


@pytest.mark.parametrize("version", range(4, 10))
@pytest.mark.parametrize("own", [None, UUID.replace("0f", "1f")])
def test_before_version_8_a_catalog_is_known_by_its_transaction(version: int, own: str | None) -> None:
    """Unless it has a uuid of its own; after that, only by its own."""
    payload = {"certname": "n", "version": "1", "transaction_uuid": UUID, "resources": [], "edges": []}
    body = {"command": "replace catalog", "version": version, "payload": payload | {"catalog_uuid": own}}
    found = decode(Decoding(1 << 20), json.dumps(body).encode()).header
    assert found.transaction_uuid == UUID
    assert found.catalog_uuid == (own or (UUID if version < 8 else None))


@pytest.mark.parametrize(
    ("in_payload", "in_envelope", "certname"),
    [({"certname": "p"}, "e", "p"), ({"name": "p"}, "e", "p"), ({}, "e", "e"), ({"certname": ""}, "e", "e")],
)
def test_a_payload_that_names_nobody_is_its_envelopes(
    in_payload: dict[str, str], in_envelope: str, certname: str
) -> None:
    """And its own where both say one."""
    payload = in_payload | {"version": "1", "resources": [], "edges": []}
    body = {"command": "replace catalog", "version": 9, "certname": in_envelope, "payload": payload}
    assert decode(Decoding(1 << 20), json.dumps(body).encode()).header.certname == certname
