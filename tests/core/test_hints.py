"""What only Ruby knows comes with each resource of the module's bodies, and overrides what the engine guesses."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.model import Catalog
from ingest.core.catalog.normalise import normalise
from ingest.core.delivery.work import Descriptor
from ingest.errors import Rejected
from lab.decoding import work_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def body(*resources: dict[str, Any]) -> bytes:
    return json.dumps({"name": "node", "version": 1, "resources": resources, "edges": []}).encode()


def read(raw: bytes) -> Catalog:
    skimmed = skim(raw, {}, NOW)
    assert isinstance(skimmed, Skim)
    return normalise(skimmed)


def decode(raw: bytes) -> None:
    """The way of a decoder, which shares no code with ``read`` where edges are put together."""
    work_of(Decoding(1 << 20), Descriptor(1, 1, 0, len(raw), len(raw), NOW, {}, False), raw, {})


def thing(title: str, **members: Any) -> dict[str, Any]:
    return {"type": "Thing", "title": title, "parameters": {}} | members


def test_an_alias_that_is_named_is_one_for_relationships_and_for_readers() -> None:
    """A type that no table knows: its namevar's value becomes ``alias``, and others may refer to it."""
    raw = body(
        thing("a", parameters={"key": "other"}, aliases=["other"]),
        thing("b", parameters={"require": "Thing[other]"}, aliases=[]),
    )
    found = read(raw)
    assert found.resources[0].parameters == {"key": "other", "alias": ["other"]}
    assert [(str(e.source), str(e.target)) for e in found.edges] == [("Thing[a]", "Thing[b]")]
    decode(raw)


def test_no_aliases_means_none() -> None:
    """Where the engine would have guessed one from the parameter ``name``, Ruby's word counts."""
    plain = thing("a", parameters={"name": "x"})
    assert read(body(plain)).resources[0].parameters == {"name": "x", "alias": ["x"]}
    assert read(body(plain | {"aliases": []})).resources[0].parameters == {"name": "x"}


def test_a_virtual_resource_makes_no_edges() -> None:
    """Exported and not collected: its relationships are for those who collect it, even where the other is here."""
    exported = thing("a", exported=True, parameters={"require": "Thing[b]"}, aliases=[])
    assert len(read(body(exported, thing("b"))).edges) == 1
    raw = body(exported | {"virtual": True}, thing("b"))
    assert read(raw).edges == ()
    decode(raw)


def test_an_edge_to_a_virtual_resource_is_refused() -> None:
    """As PuppetDB's terminus refuses it."""
    raw = body(thing("a", exported=True, virtual=True), thing("b", parameters={"require": "Thing[a]"}))
    for reading in (read, decode):
        with pytest.raises(Rejected, match="exported but not collected"):
            reading(raw)


def test_the_hints_are_not_part_of_what_is_stored() -> None:
    """Nor do they make the same resource of a body without them another one."""
    found = read(body(thing("a", aliases=[], virtual=True))).resources[0]
    assert found.extra is None
    assert found == read(body(thing("a"))).resources[0]


def test_aliases_that_are_no_list_are_refused() -> None:
    """A text there would become its letters."""
    with pytest.raises(Rejected, match="aliases"):
        read(body(thing("a", aliases="other")))


def test_an_alias_that_is_a_rich_value_is_what_puppet_prints() -> None:
    """As a relation would name it."""
    found = read(
        body(
            thing("a", parameters={}, aliases=[{"__ptype": "Regexp", "__pvalue": "b"}]),
            thing("c", parameters={"require": "Thing[/b/]"}, aliases=[]),
        )
    )
    assert [(edge.source.title, edge.target.title) for edge in found.edges] == [("a", "c")]


def test_a_resource_with_every_member_has_no_extra_ones() -> None:
    """Of all that Puppet and our module say of one."""
    every = thing(
        "a", exported=False, tags=["t"], parameters={"x": 1}, kind="class", file="/m.pp", line=3,
        aliases=[], virtual=False, sensitive_parameters=[],
    )  # fmt: skip
    assert read(body(every)).resources[0].extra is None
