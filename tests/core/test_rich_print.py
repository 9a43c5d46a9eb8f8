"""Rich data is printed as PuppetDB's terminus prints it: recorded from Puppet 7.23 and the terminus 7.12.1."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ingest.core.catalog.normalise import normalise_resource
from ingest.core.catalog.rich_print import Writer
from ingest.core.catalog.ruby_text import number, puppet_string
from ingest.errors import Rejected

# (the value in Puppet's language, in native JSON, what the terminus sends); tests/puppet/test_rich_values.py compares afresh.
RECORDED: list[tuple[str, Any, Any]] = json.loads(
    gzip.decompress((Path(__file__).parent / "rich_values.json.gz").read_bytes())
)


def test_enough_was_recorded() -> None:
    """Every data type, alone, in Deferred, as a key and in one."""
    assert len(RECORDED) > 600


@pytest.mark.parametrize("first", range(0, len(RECORDED), 50))
def test_a_value_is_printed_as_the_terminus_printed_it(first: int) -> None:
    """The value in Puppet's language names what failed."""
    for value, native, theirs in RECORDED[first : first + 50]:
        raw = json.dumps({"type": "Notify", "title": "n", "parameters": {"message": native}}).encode()
        ours = normalise_resource(raw, "native").resource.parameters["message"]
        assert json.dumps(ours) == json.dumps(theirs), value


def printed(value: Any) -> Any:
    raw = json.dumps({"type": "Notify", "title": "n", "parameters": {"message": value}}).encode()
    return normalise_resource(raw, "native").resource.parameters["message"]


def type_of(name: str, /, **members: Any) -> dict[str, Any]:
    return {"__ptype": f"Pcore::{name}Type"} | members


@pytest.mark.parametrize("spelt", ["type", "element_type"])
@pytest.mark.parametrize("resource", ["my::thing", "My::Thing"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Array", "Array[My::Thing]"),
        ("Optional", "Optional[My::Thing]"),
        ("Iterable", "Iterable[My::Thing]"),
    ],
)
def test_a_type_is_the_same_however_it_is_spelt(name: str, text: str, spelt: str, resource: str) -> None:
    """What is in it under either name that it has had, and a resource's type with capitals."""
    inner = type_of("Resource", type_name=resource)
    assert printed(type_of(name, **{spelt: inner})) == text


def rich(name: str, value: Any) -> dict[str, Any]:
    return {"__ptype": name, "__pvalue": value}


def in_key(*values: Any) -> dict[str, Any]:
    """A hash with a list for its key, which Ruby prints and not Puppet."""
    return rich("Hash", [list(values), 1])


def init(name: str, /, *arguments: Any, **members: Any) -> dict[str, Any]:
    more = {"init_args": list(arguments)} if arguments else {}
    return type_of("Init", type=type_of(name, **members), **more)


def alias(name: str, resolved: Any) -> dict[str, Any]:
    return type_of("TypeAlias", name=name, type_expr=None, resolved_type=resolved)


ANY, UNIT, ONE_OR_TWO = type_of("Any"), type_of("Unit"), type_of("Integer", **{"from": 1, "to": 2})
# What Puppet 7.23 makes of it (ToStringifiedConverter), also of what its own language cannot say.
THEIRS: dict[str, tuple[Any, Any]] = {
    "any where nothing is said": (type_of("Array", element_type=ANY), "Array"),
    "any in a hash": (type_of("Hash", key_type=ANY, value_type=ANY), "Hash"),
    "any that is there": (type_of("NotUndef", type=ANY), "NotUndef"),
    "any and a size": (type_of("Array", element_type=ANY, size_type=ONE_OR_TWO), "Array[Any, 1, 2]"),
    "no types and a size": (type_of("Tuple", types=[], size_type=ONE_OR_TWO), "Tuple"),
    "a runtime without a name": (type_of("Runtime", runtime="ruby", name_or_pattern=None), "Runtime[ruby, undef]"),
    "a name without a runtime": (type_of("Runtime", runtime=None, name_or_pattern="X"), "Runtime[undef, 'X']"),
    "a runtime that is a symbol": (
        type_of("Runtime", runtime=rich("Symbol", "ruby"), name_or_pattern="X"), "Runtime[ruby, 'X']",
    ),
    "a type by name": (type_of("TypeReference", type_string="Foo[1]"), "TypeReference['Foo[1]']"),
    "a resource of mixed case": (type_of("Resource", type_name="AbC::dE"), "AbC::dE"),
    "a resource at the end of the alphabet": (type_of("Resource", type_name="ZbC::dE"), "ZbC::dE"),
    "a resource in small letters": (type_of("Resource", type_name="abC::dE"), "Abc::De"),
    "an alias of Puppet's": (alias("RichDataKey", type_of("Scalar")), "RichDataKey"),
    "another alias": (alias("A", type_of("Scalar")), "A = Scalar"),
    "an alias of an object type": (
        alias("A", type_of("Object", _pcore_init_hash={
            "name": "X",
            "attributes": {
                "a": {"type": type_of("Integer"), "final": True},
                "c": {"type": type_of("Hash"), "kind": "constant", "value": {"kind": "x"}},
            },
            "constants": {"k": {"kind": "x"}},
            "functions": {"f": {"type": type_of("Callable"), "final": True}, "g": type_of("Callable")},
            "equality": [],
        })),
        "A = Object[{name => 'X', attributes => {'a' => {type => Integer, final => true}, "
        "'c' => {type => Hash, kind => constant, value => {'kind' => 'x'}}}, constants => {'k' => {'kind' => 'x'}}, "
        "functions => {'f' => {type => Callable, final => true}, 'g' => Callable}, equality => []}]",
    ),
    "an object type without a name": (type_of("Object", _pcore_init_hash={}), None),
    "an expression with options": (rich("Regexp", "(?i-mx:a)"), "/(?i-mx:a)/"),
    "an expression with options in a key": (in_key(rich("Regexp", "(?i-mx:a)")), {"[/(?i-mx:a)/]": 1}),
    "what an expression escapes": (
        in_key(rich("Regexp", "(?-imx:\U00010000a\uffff\xe9\x80/)")),
        {"[/\\u{10000}a\\uFFFF\\u00E9\\u0080\\//]": 1},
    ),
    "symbols": (
        in_key(*(rich("Symbol", text) for text in ("a", "a b", "a?", "\xe9!", "a=", "1"))),
        {"[:a, :\"a b\", :a?, :\xe9!, :a=, :\"1\"]": 1},
    ),
    "versions in a key": (
        in_key(rich("SemVer", "1.2.3"), rich("SemVerRange", ">=1.0.0")), {"[1.2.3, >=1.0.0]": 1},
    ),
    "an address with a port in a key": (
        in_key(rich("URI", "https://h:80/p:q")), {"[#<URI::HTTPS https://h:80/p:q>]": 1},
    ),
    "a secret in a key": (in_key(rich("Sensitive", "x")), {"[#<Sensitive [value redacted]>]": 1}),
    "secrets in a Deferred": (
        {"__ptype": "Deferred", "name": "f", "arguments": [rich("Sensitive", [1]), rich("Sensitive", "x")]},
        "Deferred({'name' => 'f', 'arguments' => [Instance of Sensitive[Array[Integer]], Instance of Sensitive[String]]})",
    ),
    "a key without a value": (rich("Hash", [1]), {"1": None}),
    "a key that is a symbol": (rich("Hash", [rich("Symbol", "a b"), 1]), {"a b": 1}),
    "a type that is no text": ({"__ptype": 5, "a": 1}, {"reserved key: __ptype": 5, "a": 1}),
    "an object of a type that stands there": (
        {"__ptype": type_of("Object", _pcore_init_hash={"name": "W"}), "a": 1}, "W({'a' => 1})",
    ),
}  # fmt: skip
# The types that can be made of undef stand in a Struct as those that may be undef.
ACCEPTS_UNDEF: dict[str, tuple[Any, bool]] = {
    "Unit": (UNIT, True),
    "Data": (alias("Data", type_of("Scalar")), True),
    "RichData": (alias("RichData", type_of("Scalar")), True),
    "Init[String]": (init("String"), True),
    "Init[String, '%x']": (init("String", "%x"), True),
    "Init[Array]": (init("Array"), False),
    "Init[Array, true]": (init("Array", True), True),
    "Init[Tuple[Integer]]": (init("Tuple", types=[type_of("Integer")]), False),
    "Init[Tuple[Integer], true]": (init("Tuple", True, types=[type_of("Integer")]), True),
    "Init[Hash]": (init("Hash"), True),
    "Init[Hash, 'tree']": (init("Hash", "tree"), False),
    "Init[Struct]": (init("Struct", elements=[]), True),
    "Init[Struct, 'tree']": (init("Struct", "tree", elements=[]), False),
    "Init[Sensitive]": (init("Sensitive"), True),
    "Init[Integer]": (init("Integer"), False),
    "Init[My]": (type_of("Init", type=alias("My", type_of("String"))), True),
    "Init[Mine]": (type_of("Init", type=alias("Mine", type_of("Array"))), False),
    "Init[Mine, true]": (type_of("Init", type=alias("Mine", type_of("Array")), init_args=[True]), True),
    "Init['no type']": (type_of("Init", type="no type"), False),
}
# What no Puppet writes is printed as far as it goes.
ODD: dict[str, tuple[Any, str]] = {
    "a bound that is no number": (type_of("Integer", **{"from": True}), "Integer[true]"),
    "a size that is no type": (type_of("String", size_type_or_value={"__ptype": "X", "from": 1}), "String"),
    "a size that is a text": (
        type_of("Collection", size_type=rich("Pcore::IntegerType", "x")), "Collection",
    ),
    "an element that is none": (type_of("Struct", elements=[1, {"__ptype": "Pcore::StructElement"}]),
                                "Struct[{undef => undef}]"),
    "a class whose name is none": (type_of("Class", class_name=5), "Class[]"),
    "parameters of no type": (type_of("ObjectTypeExten", init_parameters=[1]), "Object[1]"),
    "a value of no type": (
        type_of("Struct", elements=[{"__ptype": "E", "key_type": type_of("Optional", type="a"), "value_type": 1}]),
        "Struct[{Optional['a'] => 1}]",
    ),
    "a value of a type that has none": ({"__ptype": "W", "a": rich("LocalRef", "$['a']")}, "W({'a' => '$[\\'a\\']'})"),
    "a secret of a type with arguments": (
        {"__ptype": "W", "a": rich("Sensitive[String]", "x")},
        "W({'a' => Instance of Sensitive[Undef]})",
    ),
    "a runtime that is none": (type_of("Runtime", runtime=1, name_or_pattern=2), "Runtime[1, 2]"),
    "an object type that says itself what it is": (type_of("Object", name="W"), "W"),
}  # fmt: skip


@pytest.mark.parametrize("case", THEIRS)
def test_a_value_is_printed_as_puppet_prints_it(case: str) -> None:
    """Asked of Puppet, value by value."""
    native, theirs = THEIRS[case]
    assert json.dumps(printed(native)) == json.dumps(theirs)


@pytest.mark.parametrize("name", ACCEPTS_UNDEF)
def test_a_key_says_whether_it_need_not_be_there(name: str) -> None:
    """Where its value may be undef, it need not, and that it has to is what is said; else the other way round."""
    value, can_be_undef = ACCEPTS_UNDEF[name]
    key = type_of("String", size_type_or_value="k")
    forms = [key, type_of("Optional", type=key)]
    elements = [{"__ptype": "Pcore::StructElement", "key_type": form, "value_type": value} for form in forms]
    shown = [printed(type_of("Struct", elements=[element])) for element in elements]
    keys = ["NotUndef['k']", "'k'"] if can_be_undef else ["'k'", "Optional['k']"]
    assert shown == [f"Struct[{{{key} => {name}}}]" for key in keys]


@pytest.mark.parametrize("case", ODD)
def test_what_no_puppet_writes_is_printed_as_far_as_it_goes(case: str) -> None:
    """It is no reason to refuse a catalog."""
    native, text = ODD[case]
    assert printed(native) == text


def test_what_has_an_address_in_ruby_has_none_here() -> None:
    """An object or a type in a key is what Puppet prints of it, which does not change from run to run."""
    found = printed(in_key({"__ptype": "W", "a": [1]}, type_of("Array", element_type=type_of("String"))))
    assert found == {"[#<W({'a' => [1]})>, #<Array[String]>]": 1}
    assert printed(in_key(rich("Binary", "/wD+"))) == {"[#<Instance of Binary>]": 1}
    assert printed(rich("Hash", [rich("Sensitive", "x"), 1])) == {"Sensitive [value redacted]": 1}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"__pcore_type__": "Regexp", "__pcore_value__": "a/b"}, "/a\\/b/"),
        ({"__pcore_type__": "Regexp", "value": "a/b"}, "/a\\/b/"),
        ({"__pcore_type__": "W", "value": "x", "n": 1}, "W({'value' => 'x', 'n' => 1})"),
        ({"__pcore_type__": {"name": "W"}, "n": 1}, "W({'n' => 1})"),
        ({"__ptype": "Regexp", "value": "x"}, "Regexp({'value' => 'x'})"),
        ([{"__pcore_type__": "Pcore::IntegerType", "from": 1}], ["Integer[1]"]),
    ],
    ids=["Puppet 5", "Puppet 4", "an object of Puppet 4", "its type", "of now", "in a list"],
)
def test_values_of_older_puppets_are_the_same(value: Any, text: Any) -> None:
    """They call the keys otherwise; "value" is one of them with some types only, and never with those of now."""
    assert printed(value) == text


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        ("\\\\'", "'\\\\\\''"),
        ("\\'", "'\\''"),
        ("a\\\\b", "'a\\\\b'"),
        ("it's \\ 'q'", "'it\\'s \\ \\'q\\''"),
        ("'\\", "'\\'\\'"),
        ("\\\\\\'", "'\\\\\\''"),
    ],
)
def test_quotes_and_backslashes_are_as_puppet_writes_them(text: str, theirs: str) -> None:
    """A quote behind a backslash that stands for itself is not quoted twice, one behind two of them is."""
    assert puppet_string(text) == theirs


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1234567890123456.0, "-1.234567890123456e+15"),
        (1200000000000000.0, "1.2e+15"),
        (1001000000000000.0, "1.001e+15"),
        (-1e15, "-1.0e+15"),
        (-2e15, "-2.0e+15"),
        (1e16, "1.0e+16"),
        (1.5e22, "1.5e+22"),
        (-1.5e-7, "-1.5e-07"),
        (1e-7, "1.0e-07"),
        (999999999999999.0, "999999999999999.0"),
        (-0.0, "-0.0"),
    ],
)
def test_a_float_is_written_as_ruby_writes_it(value: float, text: str) -> None:
    """With an exponent from 1e15 on, and with digits behind the point."""
    assert number(value) == text


def test_what_a_resource_may_print_is_bounded_in_all() -> None:
    """To the character, over all of its values; then the catalog is refused, and that is the reason."""
    writer = Writer(6)
    assert [writer.text([1]), writer.text([2])] == ["[1]", "[2]"]
    with pytest.raises(Rejected) as refused:
        writer.text([])
    assert refused.value.reason == "too_large_when_printed"


def deferred(name: str, *arguments: Any) -> dict[str, Any]:
    return {"__ptype": "Deferred", "name": name, "arguments": list(arguments)}


MAKES_SECRET = deferred("new", type_of("Sensitive"), "hunter2")
PRINTED_SECRET = "Deferred({'name' => 'new', 'arguments' => [Sensitive, 'hunter2']})"


@pytest.mark.parametrize(
    ("native", "theirs"),
    [
        (MAKES_SECRET, PRINTED_SECRET),
        (
            deferred("f", 1, MAKES_SECRET, 2),
            f"Deferred({{'name' => 'f', 'arguments' => [1, {PRINTED_SECRET}, 2]}})",
        ),
        ({"__ptype": "W", "a": MAKES_SECRET}, f"W({{'a' => {PRINTED_SECRET}}})"),
        (rich("Hash", [MAKES_SECRET, 1]), {PRINTED_SECRET: 1}),
    ],
    ids=["alone", "in another", "in an object", "as a key"],
)
def test_a_secret_that_the_agent_is_to_make_is_the_same_in_both_forms(native: Any, theirs: Any) -> None:
    """In native form, and as the terminus prints it: what comes from either queue is one state."""
    raw = json.dumps({"type": "Notify", "title": "n", "parameters": {"message": theirs}}).encode()
    kept = normalise_resource(raw, "puppetdb").resource.parameters["message"]
    assert "hunter2" not in json.dumps(kept)
    assert printed(native) == kept


def test_a_rich_hash_that_is_no_list_is_refused() -> None:
    """There is no telling what is a key in it; wherever it stands."""
    for value in (rich("Hash", {"a": 1}), in_key(rich("Hash", "a"))):
        with pytest.raises(Rejected, match="not a list of keys and values") as refused:
            printed(value)
        assert refused.value.reason == "invalid"
