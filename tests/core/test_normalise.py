"""What becomes of resources and edges: by the rules of PuppetDB's terminus, each one for itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.catalog.edges import SLOT_BITS, pack_edge, parse_reference, unpack_edge
from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.metaparameters import RELATIONSHIP_PARAMETERS
from ingest.core.catalog.model import RELATIONSHIPS, Catalog, Ref, Resource
from ingest.core.catalog.namevars import COMPOSITE, NAMEVARS, NOT_ISOMORPHIC
from ingest.core.catalog.normalise import normalise, normalise_resource
from ingest.core.catalog.rich_data import SENSITIVE
from ingest.core.catalog.wire import canonical_json
from ingest.core.raw_text import bytes_of
from ingest.errors import Rejected

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAMILIES = ("native", "legacy", "puppetdb")


def thing(title: str, type_: str = "Thing", **members: Any) -> dict[str, Any]:
    return {"type": type_, "title": title, "parameters": {}} | members


def envelope(sections: dict[str, Any], family: str) -> dict[str, Any]:
    if family == "puppetdb":
        return {"command": "replace catalog", "version": 9, "payload": {"certname": "n"} | sections}
    document = {"name": "n"} | sections
    return {"document_type": "Catalog", "data": document} if family == "legacy" else document


def catalog(*resources: dict[str, Any], edges: Any = (), family: str = "native") -> Catalog:
    document = envelope({"resources": resources, "edges": edges}, family)
    skimmed = skim(json.dumps(document).encode(), {}, NOW)
    assert isinstance(skimmed, Skim)
    assert skimmed.family == family
    return normalise(skimmed)


def one(resource: dict[str, Any], family: str = "native") -> Resource:
    return normalise_resource(json.dumps(resource).encode(), family).resource


def edges_of(found: Catalog) -> list[tuple[str, str, str]]:
    return [(str(edge.source), edge.relationship, str(edge.target)) for edge in found.edges]


def refusal(*resources: dict[str, Any], edges: Any = (), family: str = "native") -> str:
    with pytest.raises(Rejected) as caught:
        catalog(*resources, edges=edges, family=family)
    return caught.value.reason


# Edges


@pytest.mark.parametrize(("name", "relationship", "forward"), RELATIONSHIP_PARAMETERS)
@pytest.mark.parametrize("shape", ["text", "list", "nested"])
def test_a_relationship_metaparameter_is_an_edge(
    name: str, relationship: str, forward: bool, shape: str
) -> None:
    """``before`` and ``notify`` from the resource, ``require`` and ``subscribe`` to it; as a text or in lists."""
    value = {"text": "Thing[b]", "list": ["Thing[b]"], "nested": [["Thing[b]", None], [[]], False]}[shape]
    found = catalog(thing("a", parameters={name: value}), thing("b"))
    ends = ("Thing[a]", "Thing[b]") if forward else ("Thing[b]", "Thing[a]")
    assert edges_of(found) == [(ends[0], relationship, ends[1])]


def test_in_the_wire_form_only_written_edges_count() -> None:
    """The terminus has made edges of them already; what they name may be elsewhere."""
    assert edges_of(catalog(thing("a", parameters={"before": "Thing[z]"}), family="puppetdb")) == []


@pytest.mark.parametrize("unusual", [{"n": 1.5}, {}])
def test_an_unusual_resource_of_the_wire_form_says_no_more_than_a_usual_one(unusual: dict[str, Any]) -> None:
    """Neither names nor edges: the terminus has worked them out, and written them down."""
    given = {"path": "/b", "before": "File[/z]", "require": ["File[/y]", "File[/x]"]} | unusual
    raw = json.dumps({"type": "File", "title": "/a", "parameters": given, "virtual": True}).encode()
    for resource in (raw, raw.replace(b', "virtual": true', b"")):
        found = normalise_resource(resource, "puppetdb")
        assert (found.relations, found.aliases, found.is_virtual) == ((), (), False)
        assert found.resource.parameters == given  # and no list of them is sorted
        assert found.has_floats or not unusual


def test_an_edge_is_there_once_however_often_it_is_said() -> None:
    """By a metaparameter, by the document, and twice in either."""
    written = {"source": "Thing[a]", "target": "Thing[b]", "relationship": "before"}
    found = catalog(
        thing("a", parameters={"before": ["Thing[b]", "Thing[b]"]}), thing("b"), edges=[written, written]
    )
    assert edges_of(found) == [("Thing[a]", "before", "Thing[b]")]


ENDS = {
    "text": ("Thing[a]", "Thing[b]"),
    "objects": ({"type": "Thing", "title": "a"}, {"type": "Thing", "title": "b"}),
    "mixed": ("Thing[a]", {"type": "Thing", "title": "b"}),
}


@pytest.mark.parametrize("shape", ENDS)
@pytest.mark.parametrize("relationship", [None, *RELATIONSHIPS])
def test_edges_are_read_in_every_shape(shape: str, relationship: str | None) -> None:
    """Ends as texts, objects or one of each; without a relationship it is containment. Other members are passed over."""
    source, target = ENDS[shape]
    edge = {"source": source, "target": target, "event": "ALL_EVENTS"}
    if relationship:
        edge["relationship"] = relationship
    assert edges_of(catalog(thing("a"), thing("b"), edges=[edge])) == [
        ("Thing[a]", relationship or "contains", "Thing[b]")
    ]


titles = st.text(st.sampled_from('ab[]\\"/é\u2028\n\0\ud800\U0001f600'), max_size=4)


@given(st.sets(titles, min_size=1, max_size=4), st.sampled_from(FAMILIES), st.data())
def test_an_edge_is_found_however_its_ends_are_written(
    names: set[str], family: str, data: st.DataObject
) -> None:
    """Escaped or raw, with spaces or without, members in any order, text or object: the same resources."""
    ordered = sorted(names)
    ends = st.sampled_from(range(len(ordered)))
    chosen = data.draw(st.lists(st.tuples(ends, ends), min_size=1, max_size=4))
    written = []
    for pair in chosen:
        parts = []
        for at in pair:
            title = ordered[at]
            members = data.draw(st.permutations([("type", "Thing"), ("title", title)]))
            # An empty title has no text form.
            end: Any = f"Thing[{title}]" if title and data.draw(st.booleans()) else dict(members)
            is_raw = "\ud800" not in title and data.draw(st.booleans())
            separators = data.draw(st.sampled_from([(",", ":"), (", ", ": ")]))
            parts.append(json.dumps(end, ensure_ascii=not is_raw, separators=separators))
        written.append(f'{{"source":{parts[0]}, "target":{parts[1]}}}')
    body = read_with_edges([thing(title) for title in ordered], f"[{','.join(written)}]", family)
    expected = {(bytes_of(ordered[source]), bytes_of(ordered[target])) for source, target in chosen}
    assert {(bytes_of(edge.source.title), bytes_of(edge.target.title)) for edge in body.edges} == expected


def read_with_edges(resources: list[dict[str, Any]], edges: str, family: str) -> Catalog:
    """``edges`` as JSON text, byte for byte."""
    skimmed = skim(
        json.dumps(envelope({"resources": resources, "edges": "HERE"}, family))
        .encode()
        .replace(b'"HERE"', edges.encode()),
        {},
        NOW,
    )
    assert isinstance(skimmed, Skim)
    return normalise(skimmed)


@pytest.mark.parametrize("shape", ENDS)
def test_an_edge_that_dangles_is_refused(shape: str) -> None:
    """Whichever end is missing, in every shape and family; also one that a metaparameter makes."""
    source, target = ENDS[shape]
    for family in FAMILIES:
        edges = [{"source": source, "target": target, "relationship": "contains"}]
        assert refusal(thing("a"), edges=edges, family=family) == "dangling_edge"
        assert refusal(thing("b"), edges=edges, family=family) == "dangling_edge"
    assert refusal(thing("a", parameters={"require": "Thing[b]"})) == "dangling_edge"


@pytest.mark.parametrize("relationship", ["Contains", "", "before ", None, 1, ["before"], {"before": 1}])
def test_an_unknown_relationship_is_refused(relationship: Any) -> None:
    """Those of RELATIONSHIPS and no others, whatever its type."""
    edge = {"source": "Thing[a]", "target": "Thing[a]", "relationship": relationship}
    assert refusal(thing("a"), edges=[edge]) == "unknown_relationship"


@pytest.mark.parametrize(
    "value", ["Thing", "thing[b]", "Thing[b", "[b]", 1, True, {"a": "b"}, [["Thing[b]", 5]]]
)
def test_a_relationship_to_no_reference_is_refused(value: Any) -> None:
    """Nobody could tell what it means."""
    assert refusal(thing("a", parameters={"before": value}), thing("b")) == "invalid_relationship"


def test_an_exported_resource_may_relate_to_what_is_elsewhere() -> None:
    """Its relationships are for whoever collects it; a plain one's must be here."""
    exported = thing("a", exported=True, parameters={"before": ["Thing[b]", "Thing[z]"]})
    assert edges_of(catalog(exported, thing("b"))) == [("Thing[a]", "before", "Thing[b]")]
    assert refusal(exported | {"exported": False}, thing("b")) == "dangling_edge"


@given(
    st.sampled_from(range(len(RELATIONSHIPS))),
    st.integers(0, (1 << SLOT_BITS) - 1),
    st.integers(0, (1 << SLOT_BITS) - 1),
)
def test_a_packed_edge_unpacks_to_itself(relationship: int, source: int, target: int) -> None:
    """Up to the largest slot."""
    assert unpack_edge(pack_edge(relationship, source, target)) == (relationship, source, target)


@given(st.from_regex(r"\A[^\[\]\n]+\Z"), st.text(min_size=1))
def test_a_reference_is_read_whatever_its_title(type_: str, title: str) -> None:
    """Brackets and line breaks belong to the title."""
    assert parse_reference(f"{type_}[{title}]") == Ref(type_, title)


# Names


@pytest.mark.parametrize("type_", [*sorted(set(NAMEVARS) - NOT_ISOMORPHIC), "Thing"])
def test_a_namevar_other_than_the_title_is_an_alias(type_: str) -> None:
    """Readers find it in ``alias``, others may refer to it; a namevar that is the title adds nothing."""
    namevar = NAMEVARS.get(type_, "name")
    named = thing("a", type_, parameters={namevar: "/other", "alias": "third"})
    other = thing("b", parameters={"require": [f"{type_}[/other]", f"{type_}[third]"]})
    found = catalog(named, other)
    assert {str(r.ref): r for r in found.resources}[f"{type_}[a]"].parameters["alias"] == ["/other", "third"]
    assert edges_of(found) == [(f"{type_}[a]", "required-by", "Thing[b]")]
    assert one(thing("a", type_, parameters={namevar: "a"})).parameters == {namevar: "a"}


@pytest.mark.parametrize("type_", sorted(NOT_ISOMORPHIC | COMPOSITE))
def test_a_name_that_several_may_share_is_no_alias(type_: str) -> None:
    """Nor is one of many namevars."""
    namevar = NAMEVARS.get(type_, "name")
    assert one(thing("a", type_, parameters={namevar: "/other"})).parameters == {namevar: "/other"}


def test_a_directory_is_known_with_and_without_its_slash() -> None:
    """File's titles end in slashes as people like."""
    found = catalog(
        thing("/d/", "File"),
        thing("/e", "File"),
        thing("a", parameters={"require": ["File[/d]", "File[/e//]"]}),
    )
    assert edges_of(found) == [
        ("File[/d/]", "required-by", "Thing[a]"),
        ("File[/e]", "required-by", "Thing[a]"),
    ]


def test_metaparameters_without_an_order_are_sorted() -> None:
    """Two compilations that differ in it are one content; in the wire form that has been done."""
    a, b = (one(thing("a", parameters={"audit": audit, "x": audit})) for audit in (["b", "a"], ["a", "b"]))
    assert a.parameters["audit"] == b.parameters["audit"] == ["a", "b"]
    assert a.parameters["x"] == ["b", "a"]
    assert one(thing("a", parameters={"audit": ["b", "a"]}), "puppetdb").parameters["audit"] == ["b", "a"]


# Members


@pytest.mark.parametrize("family", FAMILIES)
def test_sensitive_parameters_are_gone(family: str) -> None:
    """By name; names that are not there disturb nothing."""
    secret = thing("a", parameters={"p": "hunter2", "q": 1}, sensitive_parameters=["p", "not there"])
    found = one(secret, family)
    assert found.parameters == {"q": 1}
    assert found.extra is None
    assert one(thing("a", sensitive_parameters=None), family).parameters == {}


@pytest.mark.parametrize("names", ["p", {"p": 1}, [["p"]], [1], 1, True])
def test_names_of_secrets_that_are_no_list_of_names_are_refused(names: Any) -> None:
    """Rather than storing a secret."""
    for family in FAMILIES:
        assert (
            refusal(thing("a", parameters={"p": 1}, sensitive_parameters=names), family=family) == "invalid"
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
SECRET = "hunter2hunter2"


@st.composite
def with_a_secret(draw: st.DrawFn) -> Any:
    """A rich value of type Sensitive, somewhere in lists, hashes and rich hashes."""
    value: Any = {
        "__ptype": "Sensitive",
        "__pvalue": draw(st.sampled_from([SECRET, [SECRET], {"a": SECRET}])),
    }
    for wrap in draw(
        st.lists(st.sampled_from(["list", "hash", "rich hash", "rich key", "object"]), max_size=4)
    ):
        value = {
            "list": [1, value],
            "hash": {"a": value, "b": 2},
            "rich hash": {"__ptype": "Hash", "__pvalue": [[1], value]},
            "rich key": {"__ptype": "Hash", "__pvalue": [value, 1]},
            "object": {"__ptype": "My::Object", "a": value},
        }[wrap]
    return value


@given(with_a_secret())
def test_no_sensitive_value_survives_in_a_rich_one(value: Any) -> None:
    """Whatever it is wrapped in: the word for it stands there."""
    shown = repr(one(thing("a", parameters={"p": value})))
    assert SECRET not in shown
    assert SENSITIVE in shown or "Instance of Sensitive[" in shown


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4), st.sampled_from(FAMILIES))
def test_members_that_no_column_knows_are_kept(extra: dict[str, Any], family: str) -> None:
    """As they came; those that a column has are not among them."""
    known = {
        "type",
        "title",
        "exported",
        "tags",
        "parameters",
        "kind",
        "file",
        "line",
        "sensitive_parameters",
        "virtual",
        "aliases",
    }
    extra = {f"x{name}": value for name, value in extra.items()}
    found = one(thing("a", exported=True, file="/m.pp", line=3, kind="class") | extra, family)
    assert (found.extra or {}) == extra
    assert not known & (found.extra or {}).keys()
    assert (found.exported, found.file, found.line, found.kind) == (True, "/m.pp", 3, "class")


@pytest.mark.parametrize(
    ("title", "text"), [(1, "1"), (1.5, "1.5"), (True, "true"), (False, "false"), ("", "")]
)
def test_a_title_that_is_no_text_becomes_one(title: Any, text: str) -> None:
    """As Puppet prints it."""
    assert one(thing(title)).title == text


@pytest.mark.parametrize(
    "members",
    [{"title": None}, {"title": []}, {"type": 1}, {"parameters": "x"}, {"parameters": [1]}, {"line": "3"}, {"line": True},
     {"file": 1}, {"kind": []}, {"aliases": {}}, {"parameters": {"__ptype": "Sensitive", "__pvalue": 1}}],
)  # fmt: skip
def test_a_member_of_the_wrong_type_is_refused(members: dict[str, Any]) -> None:
    """No guessing."""
    assert refusal(thing("a") | members) == "invalid"


@given(st.permutations(range(4)))
def test_resources_are_sorted_and_none_is_there_twice(order: list[int]) -> None:
    """In whatever order they come; one that comes twice is refused, also when a number and a text are one title."""
    things = [thing("1"), thing("2"), thing("1", "Another"), thing("\U0001f600")]
    found = catalog(*(things[at] for at in order))
    refs = [resource.ref for resource in found.resources]
    assert refs == sorted(refs)
    assert len(refs) == 4
    assert refusal(*(things[at] for at in order), thing(1)) == "duplicate_resource"  # type: ignore[arg-type]


# Tags


def plain_rule(tag: object) -> bool:
    """PuppetDB's: letters, digits and underscores of any script, then also ``: . -``; no upper case."""

    def is_word(character: str) -> bool:
        return character.isalnum() or character == "_"

    return (
        isinstance(tag, str)
        and tag != ""
        and is_word(tag[0])
        and all(is_word(character) or character in ":.-" for character in tag)
        and tag == tag.lower()
    )


tag_texts = st.text(st.sampled_from("aZé_:.-1 \n\r\x00Ωλ\u0345\u0130\u2028٣"), max_size=4)


@given(st.lists(tag_texts | st.integers() | st.none() | st.booleans(), max_size=4))
def test_tags_are_taken_or_refused_by_the_plain_rule(tags: list[Any]) -> None:
    """The quick look at all of them at once says what looking at each says."""
    if all(map(plain_rule, tags)):
        assert one(thing("a", tags=tags)).tags == tuple(sorted(set(tags)))
    else:
        assert refusal(thing("a", tags=tags)) == "invalid_tag"


@pytest.mark.parametrize(
    "tag", ["", "A", "a\nb", "a\n", "\na", "a b", "-a", ":a", "a\u2028b", "É", "a\x00", 1, None, ["a"]]
)
@pytest.mark.parametrize("among", [[], ["ok"], ["ok", "fine"]])
def test_a_bad_tag_is_refused_among_good_ones(tag: Any, among: list[str]) -> None:
    """Wherever it stands; a line break in one does not make it two."""
    assert refusal(thing("a", tags=[*among, tag])) == "invalid_tag"
    assert refusal(thing("a", tags=[tag, *among])) == "invalid_tag"


@pytest.mark.parametrize(
    ("tags", "kept"), [(None, ()), ([], ()), ("a", ("a",)), (["b", "a", "b"], ("a", "b"))]
)
def test_tags_are_sorted_each_once(tags: Any, kept: tuple[str, ...]) -> None:
    """None at all, and one that Puppet 3 took out of its list."""
    assert one(thing("a", tags=tags)).tags == kept


@pytest.mark.parametrize("tags", [{"a": 1}, 1, True])
def test_tags_that_are_no_list_are_refused(tags: Any) -> None:
    """A hash would become its keys."""
    assert refusal(thing("a", tags=tags)) == "invalid_tag"


@pytest.mark.parametrize("text", ["\xe9", "\udc80"], ids=["text", "no text"])
def test_canonical_json_is_sorted_and_has_no_spaces(text: str) -> None:
    """Also where a byte is no UTF-8: another way of writing would be another catalog."""
    encoded = canonical_json({"b": [text, 1], "a": None})
    assert encoded.startswith(b'{"a":null,"b":["')
    assert encoded.endswith(b'",1]}')
    assert json.loads(encoded) == {"b": [text, 1], "a": None}
