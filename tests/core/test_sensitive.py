"""What a catalog calls a secret is not stored: in every form and at every depth, and nothing else goes with it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.normalise import normalise, normalise_resource
from ingest.core.catalog.rich_data import SENSITIVE
from ingest.core.catalog.storable import encode_resource
from ingest.core.secrets import redact, redact_headers
from ingest.core.sensitive import may_hold_secrets
from ingest.errors import Rejected

SECRET = "hunter2hunter2"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAMILIES = ("native", "legacy", "puppetdb")


def rich(value: Any, **members: Any) -> dict[str, Any]:
    return {"__ptype": "Sensitive", "__pvalue": value} | members


FORMS: dict[str, Any] = {
    "Puppet 6 - 8": rich(SECRET),
    "Puppet 5": {"__pcore_type__": "Sensitive", "__pcore_value__": SECRET},
    "Puppet 4.10": {"__pcore_type__": "Sensitive", "value": SECRET},
    "with a parameter": {"__ptype": "Sensitive[String]", "__pvalue": SECRET},
    "with a namespace": {"__ptype": "::Pcore::Sensitive", "__pvalue": SECRET},
    "a type that is an object": {"__ptype": {"__ptype": "Pcore::SensitiveType"}, "__pvalue": SECRET},
    "two keys for the type": {"__ptype": "Regexp", "__pcore_type__": "Sensitive", "__pcore_value__": SECRET},
    "with other members": rich("x", other=SECRET, more=[SECRET]),
    "of a hash": rich({"user": "u", "password": SECRET}),
    "of a Deferred": rich({"__ptype": "Deferred", "name": "f", "arguments": [SECRET]}),
    "of bytes": rich({"__ptype": "Binary", "__pvalue": SECRET}),
    "in a Deferred": {"__ptype": "Deferred", "name": "f", "arguments": [[rich(SECRET)], {"a": rich(SECRET)}]},
    "in two Deferred": {
        "__ptype": "Deferred",
        "name": "f",
        "arguments": [{"__ptype": "Deferred", "name": "g", "arguments": ["x", rich(SECRET)]}],
    },
    "made by a Deferred": {
        "__ptype": "Deferred",
        "name": "new",
        "arguments": [{"__ptype": "Pcore::SensitiveType"}, SECRET],
    },
    "made by a Deferred, by name": {"__ptype": "Deferred", "name": "new", "arguments": ["Sensitive[String]", SECRET]},
    "made by a Deferred, at once": {"__ptype": "Deferred", "name": "Sensitive.new", "arguments": [SECRET]},
    "made by a Deferred, from the top": {"__ptype": "Deferred", "name": "::Sensitive", "arguments": [SECRET]},
    "made by a Deferred of what may be none": {
        "__ptype": "Deferred",
        "name": "::new",
        "arguments": [{"__ptype": "Pcore::OptionalType", "type": {"__ptype": "Pcore::SensitiveType"}}, SECRET],
    },
    "made by a Deferred of an alias": {
        "__ptype": "Deferred",
        "name": "new",
        "arguments": [
            {"__ptype": "Pcore::TypeAliasType", "name": "A", "resolved_type": {"__ptype": "Pcore::SensitiveType"}},
            SECRET,
        ],
    },
    "made by a Deferred of what was named before": [
        {"__ptype": "Pcore::SensitiveType"},
        {
            "__ptype": "Deferred",
            "name": "new",
            "arguments": [{"__ptype": "LocalRef", "__pvalue": "$[0]"}, SECRET],
        },
    ],
    "made by a call": {
        "__ptype": "Deferred", "name": "call", "arguments": ["new", {"__ptype": "Pcore::SensitiveType"}, SECRET],
    },
    "as a key": {"__ptype": "Hash", "__pvalue": [rich(SECRET), 1, "a", rich(SECRET)]},
    "as a key of Puppet 5": {
        "__pcore_type__": "Hash",
        "__pcore_value__": [{"__pcore_type__": "Sensitive", "__pcore_value__": SECRET}, 1],
    },
    "in a hash that looks like one": {"__ptype": "Hash", "__pvalue": ["__ptype", "Sensitive", "__pvalue", SECRET]},
    "printed by the terminus": f"Deferred({{'name' => 'new', 'arguments' => [Sensitive, '{SECRET}']}})",
    "printed with a parameter": f"Deferred({{'name' => 'new', 'arguments' => [Sensitive[String[1]], '{SECRET}']}})",
    "printed with a parameter that has quotes": (
        f"Deferred({{'name' => 'new', 'arguments' => [Sensitive[Enum['a', 'b]']], '{SECRET}']}})"
    ),
    "printed of what may be none": (
        f"Deferred({{'name' => 'new', 'arguments' => [Optional[Sensitive[String]], '{SECRET}']}})"
    ),
    "printed as a call": f"Deferred({{'name' => 'call', 'arguments' => ['new', Sensitive, '{SECRET}']}})",
    "printed from the top": f"Deferred({{'name' => '::Sensitive', 'arguments' => ['{SECRET}']}})",
    "printed of a type that only the site knows": (
        f"Deferred({{'name' => 'new', 'arguments' => [Site::Secret, '{SECRET}']}})"
    ),
    "printed of a type without an end": (
        f"Deferred({{'name' => 'new', 'arguments' => [Enum['{'x' * 400}'], '{SECRET}']}})"
    ),
    "printed in an object": (
        f"Wrap({{'value' => Deferred({{'name' => 'new', 'arguments' => [Sensitive, '{SECRET}']}})}})"
    ),
    "as Ruby shows it in a key": {
        '[#<#<Class:0x0b0>:0x130 @name="new", @arguments=[#<Puppet::Pops::Types::PSensitiveType:0x1f0 '
        f'@type=#<Puppet::Pops::Types::PAnyType:0x1a0>>, "{SECRET}"]>]': 1
    },
    "printed in a key": f"{{\"a\"=>#<Deferred({{'name' => 'new', 'arguments' => [Sensitive, '{SECRET}']}})>}}",
    "printed in another": (
        "Deferred({'name' => 'f', 'arguments' => [1, Deferred({'name' => 'new', "
        f"'arguments' => [Sensitive, '{SECRET}']}})]}})"
    ),
    "printed as an object": f"Deferred({{'name' => 'f', 'arguments' => [Sensitive({{'value' => '{SECRET}'}})]}})",
    "printed as a hash": (
        f"Deferred({{'name' => 'f', 'arguments' => [{{'__ptype' => 'Sensitive', '__pvalue' => '{SECRET}'}}]}})"
    ),
    "printed alone": f"Sensitive('{SECRET}')",
    "JSON in a text": json.dumps({"a": [rich(SECRET)]}),
    "JSON of a file with a mark": "\ufeff" + json.dumps({"a": [rich(SECRET)]}),
    "JSON in a text in a text": json.dumps(json.dumps([rich(SECRET)])),
    "a resource in a parameter": {
        "type": "User", "title": "u", "parameters": {"p": SECRET}, "sensitive_parameters": ["p"],
    },
}  # fmt: skip

PLACES: dict[str, Any] = {
    "parameter": lambda value: {"parameters": {"p": value, "q": 1}},
    "list": lambda value: {"parameters": {"p": ["a", [value]]}},
    "hash": lambda value: {"parameters": {"p": {"a": {"b": value}}}},
    "metaparameter": lambda value: {"parameters": {"alias": ["a", value], "tag": value, "noop": value}},
    "unknown member": lambda value: {"ext": {"a": [value]}},
    "virtual": lambda value: {"virtual": value},
    "kind": lambda value: {"kind": value},
    "tags": lambda value: {"tags": [value]},
    "title": lambda value: {"title": value},
    "type": lambda value: {"type": value},
    "file": lambda value: {"file": value},
    "relation": lambda value: {"parameters": {"require": value}},
    "names": lambda value: {"parameters": {"p": 1}, "sensitive_parameters": [value]},
    "names' shape": lambda value: {"parameters": {"p": 1}, "sensitive_parameters": value},
}


def spelled(document: Any, spelling: str) -> bytes:
    """The JSON as it may be written."""
    text = json.dumps(document)
    if spelling == "spaced":
        return json.dumps(document, indent=1).replace(":", "\t:\r\n ").encode()
    if spelling == "escaped":
        return text.replace("__p", r"\u005f_\u0070").replace("Sensitive", r"\u0053ensiti\u0076e").encode()
    if spelling == "not UTF-8" and text.startswith("{"):
        return text.replace("{", '{"odd": "HERE", ', 1).encode().replace(b"HERE", b"\xff\xed\xb2\x80\\udc80")
    return text.encode()


def left_of(raw: bytes, family: str) -> str:
    """All that is stored of a resource, or said about why it is not."""
    try:
        found = normalise_resource(raw, family)
    except Rejected as refusal:
        kept, _ = redact(raw)
        return refusal.text + (kept or b"").decode("utf-8", "surrogateescape")
    digest, content = encode_resource(found.resource)
    return repr(msgspec.structs.asdict(found)) + repr((digest, content))


@pytest.mark.parametrize("spelling", ["plain", "spaced", "escaped", "not UTF-8"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_no_sensitive_value_is_stored(form: str, place: str, spelling: str) -> None:
    """Whatever the form, the place, the family and the spelling of the JSON; nor is it quoted in a refusal."""
    resource = {"type": "User", "title": "u"} | PLACES[place](FORMS[form])
    raw = spelled(resource, spelling)
    for family in FAMILIES:
        left = left_of(raw, family)
        assert SECRET[:6] not in left


def test_what_is_left_of_a_sensitive_value_is_what_puppetdb_has() -> None:
    """In each form of a catalog a word in its place, with everything around it as it was."""
    for family in FAMILIES:
        raw = json.dumps(
            {
                "type": "A",
                "title": "a",
                "parameters": {"p": {"user": "u", "password": rich(SECRET)}, "q": [rich(1)]},
            }
        ).encode()
        found = normalise_resource(raw, family).resource.parameters
        assert found == {"p": {"user": "u", "password": SENSITIVE}, "q": [SENSITIVE]}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "names",
    [
        "p",
        {"p": True},
        [["p"]],
        ["p", 5],
        [{"p": 1}],
        {"__ptype": "Hash", "__pvalue": ["p", 1]},
        5,
        True,
        '["p"]',
        [None],
    ],
)
def test_names_in_an_odd_shape_hide_everything(family: str, names: Any) -> None:
    """Nobody can tell which parameters are meant: the catalog is refused, and none of them is kept in quarantine."""
    raw = json.dumps(
        {"type": "A", "title": "a", "parameters": {"p": SECRET, "q": [SECRET]}, "sensitive_parameters": names}
    ).encode()
    with pytest.raises(Rejected) as caught:
        normalise_resource(raw, family)
    assert SECRET not in caught.value.text
    assert SECRET.encode() not in (redact(raw)[0] or b"")


@pytest.mark.parametrize("name", ["p", ":p", "P", " p"])
def test_names_are_found_however_they_are_written(name: str) -> None:
    """Symbols, capitals and spaces: the parameter that is meant goes."""
    raw = json.dumps(
        {
            "type": "A",
            "title": "a",
            "parameters": {"p": SECRET, "q": 1},
            "sensitive_parameters": [name],
            "p": SECRET,
        }
    ).encode()
    for family in FAMILIES:
        found = normalise_resource(raw, family).resource
        assert found.parameters == {"q": 1}
        assert found.extra is None


def test_what_repeats_a_sensitive_parameter_goes_too() -> None:
    """A namevar is among the aliases, a tag among the tags."""
    raw = json.dumps(
        {"type": "A", "title": "a", "parameters": {"name": SECRET, "tag": [SECRET, "x"]}, "tags": ["a", SECRET],
         "aliases": [SECRET, "b"], "sensitive_parameters": ["name", "tag"]}
    ).encode()  # fmt: skip
    found = normalise_resource(raw, "native")
    assert SECRET not in repr(found)
    assert found.resource.tags == ("a",)
    assert found.aliases == ("b",)


TWINS = [
    b'{"type":"A","title":"a","sensitive_parameters":["p"],"parameters":{"p":"%b"},"sensitive_parameters":[]}',
    b'{"type":"A","title":"a","sensitive_parameters":["p"],"sensitive_parameters":["q"],"parameters":{"p":"%b","q":1}}',
    b'{"type":"A","title":"a","parameters":{"p":"%b"},"sensitive_parameters":["p"],"parameters":{"q":1}}',
    b'{"type":"A","title":"a","parameters":{"p":{"__ptype":"Sensitive","__ptype":"Regexp","__pvalue":"%b"}}}',
    b'{"type":"A","title":"a","parameters":{"p":{"__ptype":"Sensitive","__pvalue":"%b"},"p":"q"}}',
    b'{"type":"A","title":"a","parameters":{"p":{"__ptype":"Sensitive","__pvalue":"%b","__pvalue":"q"}}}',
    b'{"type":"A","title":"a","sensitive_parameters":"p","parameters":{"p":"%b"},"sensitive_parameters":[]}',
]


@pytest.mark.parametrize("twin", TWINS)
def test_a_member_that_stands_twice_hides_no_secret(twin: bytes) -> None:
    """One of them counts, but what the other one calls secret is secret; neither is in quarantine."""
    raw = twin % SECRET.encode()
    for family in FAMILIES:
        assert SECRET not in left_of(raw, family)
    for body in (raw, b'{"resources":[%b]}' % raw, json.dumps({"payload": raw.decode()}).encode()):
        assert SECRET.encode() not in (redact(body)[0] or b"")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("end", ["source", "target", "relationship"])
def test_an_edge_that_is_refused_tells_no_secret(form: str, end: str) -> None:
    """Ends and relationships are quoted in the reason."""
    edge = {"source": "A[a]", "target": "A[a]", "relationship": "before"}
    for value in (FORMS[form], {"type": "A", "title": FORMS[form]}):
        sections = {"resources": [{"type": "A", "title": "a"}], "edges": [edge | {end: value}]}
        skimmed = skim(json.dumps({"name": "n"} | sections).encode(), {}, NOW)
        assert isinstance(skimmed, Skim)
        with pytest.raises(Rejected) as caught:
            normalise(skimmed)
        assert SECRET[:6] not in caught.value.text


# Quarantine

COMMANDS: dict[str, Any] = {
    "facts": lambda value: {"command": "replace facts", "version": 5, "payload": {"values": {"f": {"g": value}}}},
    "report": lambda value: {
        "command": "store report", "version": 8,
        "payload": {"resources": [{"events": [{"new_value": value, "old_value": [value]}]}], "logs": [value]},
    },
    "catalog": lambda value: {"document_type": "Catalog", "data": {"resources": [{"parameters": {"p": value}}]}},
    "resources in a text": lambda value: {"data": {"resources": json.dumps([{"parameters": {"p": value}}])}},
    "payload in a text": lambda value: {"command": "x", "payload": json.dumps({"parameters": {"p": value}})},
    "payload in a text in a text": lambda value: {"payload": json.dumps(json.dumps({"p": value}))},
    "a text": lambda value: json.dumps({"p": value}),
    "a list": lambda value: [[value]],
    "a key": lambda value: {json.dumps(value): 1},
}  # fmt: skip


@pytest.mark.parametrize("spelling", ["plain", "spaced", "escaped", "not UTF-8"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("form", FORMS)
def test_no_sensitive_value_goes_to_quarantine(form: str, command: str, spelling: str) -> None:
    """Of a body that can be read, that was cut off, that has something behind it, whatever it is."""
    body = spelled(COMMANDS[command](FORMS[form]), spelling)
    cut = body[: body.find(SECRET.encode()) + 6]
    for damaged in (body, body[:-1], cut, body + b"}", b"\0" + body, body.replace(b'":', b'";', 1)):
        kept, _ = redact(damaged)
        assert SECRET[:6].encode() not in (kept or b"")


def test_headers_tell_no_secret() -> None:
    """They are kept with the body."""
    found = redact_headers(
        {"certname": "n.example.com", "a": json.dumps(rich(SECRET)), "b": json.dumps(rich(SECRET))[:-3],
         "c": f"stomp://u:{SECRET}@h", "d": f"password={SECRET}"}
    )  # fmt: skip
    assert SECRET[:6] not in repr(found)
    assert found["certname"] == "n.example.com"


# What is none

INNOCENT = [
    {"password_sensitive": "x"}, {"__ptype": "Pcore::SensitiveType"}, {"a": "Sensitive"}, {"sensitive_parameters": []},
    "class a(Sensitive $x) { Sensitive.new('y') Deferred('f', [Sensitive('z')]) }", "# {'__ptype' => 'Sensitive', ...}",
    '{"sensitive": true, "a": 1.0}', "[Sensitive", '{"__ptype": "Sensitive", ', {"Sensitive": "b"},
    {"__ptype": "Deferred", "name": "new", "arguments": ["Integer", "5"]},
    {"__ptype": "Deferred", "name": "call", "arguments": ["case_insensitive", "sensitive"]},
    "Deferred({'name' => 'call', 'arguments' => ['case_insensitive', 'x']})",
    "Deferred({'name' => 'new', 'arguments' => [Struct[{'a' => Integer[1, 2], Optional['b'] => Enum['x]', \"y'\"]}], '5']})",
    "Deferred({'name' => 'new', 'arguments' => [Pattern[/a[b/], 'Deferred']})",
    "[a]\nsensitive = \"_ptype\"",
    "Deferred({'name' => 'f', 'arguments' => [Instance of Sensitive[String], Sensitive, 'x']})",
    "#<Sensitive [value redacted]:4711>", "Sensitive [value redacted]",
]  # fmt: skip


@pytest.mark.parametrize("value", INNOCENT)
def test_what_only_looks_like_a_secret_stays(value: Any) -> None:
    """Files about Sensitive, types, and what PuppetDB's terminus has made of such values."""
    raw = json.dumps({"type": "A", "title": "a", "parameters": {"p": value}}).encode()
    assert normalise_resource(raw, "puppetdb").resource.parameters == {"p": value}


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["ensitive", "\\u00", "__ptype"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(plain_values)
def test_both_ways_of_reading_a_resource_agree(value: Any) -> None:
    """A word that might mean a secret sends a resource the long way: with the same result."""
    short = {"type": "A", "title": "a", "parameters": {"p": value}, "tags": ["a"]}
    long = short | {"title": "sensitive"}
    assert may_hold_secrets(json.dumps(long).encode())
    for family in FAMILIES:
        ways = [normalise_resource(json.dumps(one).encode(), family).resource for one in (short, long)]
        assert ways[0].parameters == ways[1].parameters


def test_a_type_of_more_parts_than_one_has_counts_as_sensitive() -> None:
    """It is not looked through to its end: types lie in each other, and the innermost would be looked at by each."""
    type_: Any = [1] * 2000
    for _ in range(5):
        type_ = {"__ptype": type_}
    raw = json.dumps({"type": "A", "title": "a", "parameters": {"p": type_, "q": "Sensitive"}}).encode()
    assert normalise_resource(raw, "puppetdb").resource.parameters == {"p": SENSITIVE, "q": "Sensitive"}


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("x", "String"), (1, "Integer"), (True, "Boolean"), (None, "Undef"), ([], "Array[Unit]"), ({}, "Hash[0, 0]"),
        ([1, "a"], "Array[ScalarData]"), ({"a": 1}, "Hash[String, Integer]"),
        ({"__ptype": "Binary", "__pvalue": "cGFzc3dvcmQ="}, "Binary"),
        ({"__ptype": "Hash", "__pvalue": [1, 2]}, "Hash[Integer, Integer]"),
        ({"__ptype": "the password", "__pvalue": ""}, "Any"), ({"kind": "the password"}, "Hash[String, String]"),
        ({"__ptype": "Sensitive", "__pvalue": "the password"}, "Sensitive[String]"),
        ({"kind": "x", "kind of a secret": "the password"}, "Hash[String, String]"),
    ],
)  # fmt: skip
def test_of_a_secret_within_a_deferred_its_kind_is_said(secret: object, kind: str) -> None:
    """As the terminus does, and nothing that its maker chose: a type's name may be what is secret."""
    deferred = {
        "__ptype": "Deferred",
        "name": "f",
        "arguments": [{"__ptype": "Sensitive", "__pvalue": secret}],
    }
    raw = json.dumps({"type": "Notify", "title": "n", "parameters": {"message": deferred}}).encode()
    resource = normalise_resource(raw, "native").resource
    assert resource.parameters == {
        "message": f"Deferred({{'name' => 'f', 'arguments' => [Instance of Sensitive[{kind}]]}})"
    }
