"""References by a name that only the type knows: a table of types is never the reason to refuse a catalog."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.guessing import MISSING, Guessing
from ingest.core.catalog.model import Catalog, Json, Ref
from ingest.core.catalog.namevars import NAMEVARS
from ingest.core.catalog.normalise import normalise
from ingest.core.delivery.work import Descriptor
from ingest.errors import Rejected

AT = datetime(2026, 1, 1, tzinfo=UTC)


def thing(type_: str, title: str, **parameters: Any) -> dict[str, Any]:
    return {"type": type_, "title": title, "exported": False, "tags": [], "parameters": parameters}


def native(*resources: dict[str, Any]) -> Catalog:
    document = {"name": "a.example", "version": 1, "resources": list(resources), "edges": [], "classes": []}
    skimmed = skim(json.dumps(document).encode(), {}, AT)
    assert isinstance(skimmed, Skim)
    return normalise(skimmed)


def edges(catalog: Catalog) -> list[tuple[str, str, str]]:
    return [(one.source.short, one.relationship, one.target.short) for one in catalog.edges]


@pytest.mark.parametrize(
    ("type_", "parameter", "name"),
    [
        ("Archive", "path", "/tmp/jdk.tgz"), ("Vcsrepo", "path", "/srv/app"), ("Registry_key", "path", "HKLM\\Software\\x"),
        ("Concat_file", "path", "/etc/c"), ("Dsc_thing", "dsc_name", "x"), ("Thing", "key", "another name"),
        ("Thing", "id", "[odd]"), ("Thing", "url", "https://x/y?z#ä"), ("A1_b", "name", "n\nl"),
    ],
)  # fmt: skip
def test_a_reference_finds_what_it_names(type_: str, parameter: str, name: str) -> None:
    """By any parameter that a type may be named by, whether the table knows it or not."""
    catalog = native(
        thing(type_, "title", **{parameter: name, "ensure": "present"}),
        thing("Notify", "n", require=f"{type_}[{name}]"),
    )
    assert edges(catalog) == [(f"{type_}[title]", "required-by", "Notify[n]")]


def test_titles_and_aliases_go_first() -> None:
    """What is named so for sure is meant, whatever else has that value."""
    catalog = native(
        thing("Thing", "a", key="b"), thing("Thing", "b", key="c"), thing("Thing", "d", alias="c"),
        thing("Notify", "n", require=["Thing[b]", "Thing[c]"]),
    )  # fmt: skip
    assert edges(catalog) == [
        ("Thing[b]", "required-by", "Notify[n]"),
        ("Thing[d]", "required-by", "Notify[n]"),
    ]


@pytest.mark.parametrize(
    "others",
    [
        [thing("Thing", "a", ensure="x"), thing("Thing", "b", ensure="x")],  # either may be meant
        [thing("Thing", "a", key="made from x")],  # the type makes its name itself
        [thing("Thing", "a", key=["x"])],
        [thing("Thing", "a", key="y" * 300)],
    ],
)
def test_what_cannot_be_told_is_left_out_and_the_catalog_is_stored(others: list[dict[str, Any]]) -> None:
    """Puppet has found it when it compiled: the parameter stays as it is, the edge is missing."""
    catalog = native(*others, thing("Notify", "n", require="Thing[x]"))
    assert edges(catalog) == []
    assert len(catalog.resources) == len(others) + 1
    assert [one.parameters for one in catalog.resources if one.type == "Notify"] == [{"require": "Thing[x]"}]


@pytest.mark.parametrize(
    ("others", "reference"),
    [
        ([thing("File", "/x", content="y")], "File[y]"), ([thing("Exec", "e", command="/bin/x", cwd="y")], "Exec[y]"),
        ([thing("My::Define", "d", key="y")], "My::Define[y]"), ([thing("Thing", "a", key="y")], "Other[y]"),
        ([], "Thing[y]"), ([thing("Class", "a", key="y")], "Class[y]"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(others: list[dict[str, Any]], reference: str) -> None:
    """Where the type is Puppet's own or a defined one, or there is none of it: no Puppet compiles that."""
    with pytest.raises(Rejected, match="which is not in the catalog") as refused:
        native(*others, thing("Notify", "n", require=reference))
    assert refused.value.reason == "dangling_edge"


def test_the_table_is_right_about_what_it_says() -> None:
    """Each type in it is named so: its value is an alias."""
    for type_, parameter in NAMEVARS.items():
        (one,) = native(thing(type_, "title", **{parameter: "/name"})).resources
        assert one.parameters.get("alias") == (None if type_ in ("Exec", "Tidy") else ["/name"])


def test_who_knows_the_types_is_believed() -> None:
    """The module says each resource's aliases: they go before what can be guessed."""
    catalog = native(
        thing("Thing", "a") | {"aliases": ["x"]}, thing("Thing", "b", key="x") | {"aliases": []},
        thing("Notify", "n", require="Thing[x]"),
    )  # fmt: skip
    assert edges(catalog) == [("Thing[a]", "required-by", "Notify[n]")]


def test_no_node_gets_the_edges_that_were_guessed_for_another() -> None:
    """Two nodes whose catalogs say the same of each other's resources, and name them otherwise: a decoder that knows the one
    makes of the other what one that knows nothing makes."""

    def body(certname: str, first: str, second: str) -> bytes:
        resources = [
            thing("Thing", "a", key=first), thing("Thing", "b", key=second), thing("Notify", "n", require="Thing[x]"),
        ]  # fmt: skip
        return json.dumps({"name": certname, "version": 1, "resources": resources, "edges": []}).encode()

    warm = Decoding(1 << 20)
    bodies = [body("one", "x", "y"), body("two", "y", "x"), body("three", "y", "z"), body("one", "y", "x")]
    for each in [*bodies, *reversed(bodies)]:
        found = [
            list(decoding.decode(Descriptor(1, 1, 0, len(each), len(each), AT, {}), memoryview(each), {}))[-1]
            for decoding in (warm, Decoding(1 << 20))
        ]
        assert found[0].edge_set == found[1].edge_set


def test_however_many_references_a_resource_is_looked_at_once() -> None:
    """Thousands of them, to what is there and to what is not: the sender decides how many."""
    refs = [Ref(f"T{slot % 3}", f"/{slot}") for slot in range(300)]
    looked: list[int] = []

    def parameters_of(slot: int) -> dict[str, Json]:
        looked.append(slot)
        return {"name": f"n{slot}", "path": "/all", "before": f"m{slot}"}

    guess = Guessing(refs, parameters_of)
    assert not guess.was_asked
    for number in range(3000):
        slot = number % 300
        assert guess(Ref(f"T{slot % 3}", f"n{slot}")) == slot
        assert guess(Ref(f"T{slot % 3}", "/all")) is None  # several have it
        assert guess(Ref(f"T{slot % 3}", f"m{slot}")) is None  # a metaparameter names nobody
        assert guess(Ref(f"Other{number}", "a")) == MISSING
    assert sorted(looked) == list(range(300))
