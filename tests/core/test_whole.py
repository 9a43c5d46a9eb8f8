"""What a decoder's work says, put together again, is the catalog that arrived: without a database, every member of it."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.model import RELATIONSHIPS
from ingest.core.catalog.normalise import normalise
from ingest.core.catalog.wire import canonical_json, to_wire
from ingest.core.delivery.work import Content, EdgeSet, Full, PositionSet
from lab import real_catalogs as corpus
from tests.core.test_decoding import LANES, NOW, Writers, body, catalogs, full
from tests.core.test_storable import MEMBERS, exactly, written

KINDS = {b"c": "compilable_type", b"d": "defined_type", b"u": "unknown", b"k": "class", b"n": "node"}


def fields(encoded: bytes) -> list[bytes | None]:
    """COPY fields, read as PostgreSQL reads them."""
    found: list[bytes | None] = []
    while encoded:
        (length,) = struct.unpack(">i", encoded[:4])
        found.append(None if length < 0 else encoded[4 : 4 + length])
        encoded = encoded[4 + max(0, length) :]
    return found


def text(field: bytes | None) -> str:
    assert field is not None
    return field.decode()


def numbers(field: bytes | None, code: str) -> list[int]:
    """An array's elements."""
    assert field is not None
    element = struct.Struct(f">i{code}")
    return [value for _, value in element.iter_unpack(field[20:])]


def resource_in(content: Content, position: tuple[bytes, bytes], digest: bytes) -> dict[str, Any]:
    """As the wire form has it."""
    own, exported, type_, title, kind = fields(content.head)
    parameters, exact = fields(content.tail)
    assert own == digest
    if exact is not None:
        found = json.loads(exact)
        found |= found.pop("extra") or {}
    else:
        assert parameters is not None
        found = {
            "type": text(type_), "title": text(title), "exported": exported == b"\1", "kind": kind and KINDS[kind],
            "tags": content.tags.split("\n") if content.tags else [], "parameters": json.loads(parameters[1:]),
        }  # fmt: skip
    file, line, exact_file = fields(position[1])
    if file is not None:
        found["file"] = (exact_file or file).decode("utf-8", "surrogatepass")
    if line is not None:
        found["line"] = int.from_bytes(line, "big")
    return {name: value for name, value in found.items() if name != "kind" or value is not None}


def put_together(work: Full, writers: Writers) -> dict[str, Any]:
    """Resources and edges, as the wire form has them."""
    *_, contents, edges, positions = writers.whole(work)
    assert isinstance(edges, EdgeSet)
    assert isinstance(positions, PositionSet)
    resources = [
        resource_in(content, positions.positions[index], digest)
        for (digest, content), index in zip(contents, positions.indexes, strict=True)
    ]
    assert work.exported == tuple(slot for slot, one in enumerate(resources) if one["exported"])
    assert len(set(positions.positions)) == len(positions.positions)
    refs = [{"type": one["type"], "title": one["title"]} for one in resources]
    sources, targets, relationships = fields(edges.fields)
    found = [
        {"source": refs[source], "target": refs[target], "relationship": RELATIONSHIPS[relationship]}
        for source, target, relationship in zip(
            numbers(sources, "i"), numbers(targets, "i"), numbers(relationships, "h"), strict=True
        )
    ]
    return {"resources": resources, "edges": sorted(found, key=canonical_json)}


def arrived(raw: bytes) -> dict[str, Any]:
    """What a reader of the whole document finds in it, who knows nothing of digests, slots and caches."""
    skimmed = skim(raw, {}, NOW)
    assert isinstance(skimmed, Skim)
    wire = to_wire(normalise(skimmed))
    return {"resources": wire["resources"], "edges": sorted(wire["edges"], key=canonical_json)}


@settings(max_examples=50, deadline=None)
@given(st.lists(catalogs(), min_size=1, max_size=4), st.sampled_from([0, 20_000, 1 << 30]))
def test_any_catalog_is_whole(bodies: list[bytes], cache_bytes_max: int) -> None:
    """Also the one that is put together from what others brought."""
    one, writers = Decoding(cache_bytes_max, lanes=LANES), Writers()
    for raw in bodies:
        assert put_together(full(one, raw), writers) == arrived(raw)


@settings(max_examples=60, deadline=None)
@given(st.lists(MEMBERS, max_size=4, unique_by=lambda m: (m["type"], m["title"])))
def test_any_resource_is_whole(resources: list[dict[str, Any]]) -> None:
    """U+0000, lone surrogates, numbers of every size and spelling, in every member: equal in value and in type."""
    raw = body("a", [], "wire").replace(b'"resources":[]', f'"resources":{written(resources)}'.encode())
    work = full(Decoding(1 << 20), raw)
    assert exactly(put_together(work, Writers())) == exactly(arrived(raw))


@pytest.mark.parametrize("form", ["native", "wire"])
def test_real_catalogs_are_whole(form: str) -> None:
    """Of a node and of the next run of it, of which only what differs is looked at."""
    one, writers = Decoding(1 << 26), Writers()
    for round_ in corpus.ROUNDS[:2]:
        raw = corpus.body(corpus.ROLES[0], round_, form)
        assert put_together(full(one, raw), writers) == arrived(raw)


def test_a_thin_catalog_has_what_is_exported_and_no_edges() -> None:
    """And all of that."""
    resources = [
        {"type": "File", "title": f"/{n}", "exported": n % 2 == 0, "file": f"/{n}.pp", "line": n, "tags": ["a", "b"]}
        for n in range(5)
    ]  # fmt: skip
    raw = body("a", resources, "native", edges=[{"source": "File[/0]", "target": "File[/1]"}])
    found = put_together(full(Decoding(1 << 20, thin=True), raw), Writers())
    assert found["resources"] == [one for one in arrived(raw)["resources"] if one["exported"]]
    assert [one["title"] for one in found["resources"]] == ["/0", "/2", "/4"]
    assert found["edges"] == []


@pytest.mark.parametrize("named", ["bob", "nobody"])
def test_a_guessed_end_is_found_anew_for_each_catalog(named: str) -> None:
    """A resource that its type names by another parameter than any that is known here: what a catalog's edges are depends on
    its parameters then, which nothing else of edges does, so that neither of two catalogs has the other's."""
    one, writers = Decoding(1 << 20), Writers()
    said = {"type": "File", "title": "/x", "parameters": {"require": "Thing[bob]"}}
    for names in (("bob", "eve"), ("eve", "bob"), ("bob", "bob"), (named, "eve")):
        things = [
            {"type": "Thing", "title": f"t{n}", "parameters": {"handle": name}}
            for n, name in enumerate(names)
        ]
        raw = body("a", [said, *things], "native")
        found = put_together(full(one, raw), writers)
        # Of two that bear the name nobody can tell which, and of none neither: then there is no edge.
        ends = [f"t{n}" for n, name in enumerate(names) if name == "bob"]
        wanted = ends if len(ends) == 1 else []
        assert [edge["source"]["title"] for edge in found["edges"]] == wanted
        assert found == arrived(raw)


@pytest.mark.parametrize("name", ["bob", "b\0b", "b\udce9b", "\ud800"])
def test_a_guessed_end_may_be_what_no_column_holds(name: str) -> None:
    """It is found by the parameter as it came, not by what is nearest to it."""
    said = {"type": "File", "title": "/x", "parameters": {"require": f"Thing[{name}]"}}
    things = [
        {"type": "Thing", "title": title, "parameters": {"handle": handle}}
        for title, handle in (("t0", name), ("t1", "eve"))
    ]
    raw = body("a", [said, *things], "native")
    found = put_together(full(Decoding(1 << 20), raw), Writers())
    assert [edge["source"]["title"] for edge in found["edges"]] == ["t0"]
    assert found == arrived(raw)


def test_what_is_exported_may_relate_to_what_is_elsewhere() -> None:
    """The edge to what is here is stored, the other one is for those who collect it; next time too."""
    exported = {
        "type": "T",
        "title": "a",
        "exported": True,
        "parameters": {"before": ["T[b]", "T[elsewhere]"]},
    }
    one, writers = Decoding(1 << 20), Writers()
    for line in (1, 2):
        raw = body("a", [exported, {"type": "T", "title": "b", "line": line}], "native")
        found = put_together(full(one, raw), writers)
        assert [edge["target"]["title"] for edge in found["edges"]] == ["b"]
        assert found == arrived(raw)


@pytest.mark.parametrize("thin", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2, 15, 27, 28, 29])
@pytest.mark.parametrize(
    "change", [{"parameters": {"x": 1}}, {"title": "!"}, {"title": "~"}, {"title": "/14x"}]
)
def test_what_stands_in_anothers_place_is_where_it_belongs(
    change: dict[str, Any], at: int, thin: bool
) -> None:
    """First, second, in the middle or last, exported or not, with a name that is sorted before or behind its neighbours."""
    before = [{"type": "T", "title": f"/{n:02}", "exported": n % 2 == 0} for n in range(30)]
    after = [one | change if n == at else one for n, one in enumerate(before)]
    one, writers = Decoding(1 << 20, thin=thin), Writers()
    for resources in (before, after, before):
        raw = body("a", resources, "wire")
        wanted = [one for one in arrived(raw)["resources"] if one["exported"] or not thin]
        assert put_together(full(one, raw), writers)["resources"] == wanted
