"""A fact's value comes apart and together again, and what a message says of facts is what its version means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.work import Descriptor
from ingest.core.facts.decoding import FACTS_SHARE, FactsDecoder
from ingest.core.facts.leaves import LEAF, canonical_text, count_leaves, join, split
from ingest.core.facts.selection import patterns_of, selection
from ingest.core.facts.work import Factset, Inventory, Package
from ingest.core.raw_text import bytes_of
from ingest.errors import Misconfigured, Rejected
from lab import real_facts as corpus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE = datetime(2025, 1, 1, tzinfo=UTC)
TEXTS = st.text(st.characters(), max_size=12) | st.sampled_from(
    [
        "",
        '"',
        "\\",
        "\x00",
        "\x01",
        "\x02",
        "a.b",
        "#~",
        "[0]",
        "{}",
        '":"',
        "\ud800",
        "\udcff",
        "\x7f",
        "é",
        "🙂",
        ",",
    ]
)
NUMBERS = (
    st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -0.0, 0.0, 1, 1.0, 1e22, 1e-7, 10**40, -(2**63), 2**64])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


def leaves_of(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(leaves_of, value.values()))
    return sum(map(leaves_of, value)) if isinstance(value, list) else 1


def body(payload: Any, version: int = 5, **more: Any) -> bytes:
    return json.dumps({"command": "replace facts", "version": version, "payload": payload} | more).encode()


def decoder_of(blocklist: Sequence[str] = (), *, cache_bytes_max: int = 1 << 26) -> FactsDecoder:
    return FactsDecoder(DecoderSettings(cache_bytes_max=cache_bytes_max, facts_blocklist=tuple(blocklist)))


def decode(
    data: bytes, decoder: FactsDecoder | None = None, *, complete: bool = False, **headers: str
) -> Factset:
    descriptor = Descriptor(1, 1, 0, len(data), len(data), NOW, headers, complete)
    *_, work = (decoder or decoder_of()).decode(descriptor, memoryview(data), {})
    return work


def payload(values: Any, **more: Any) -> dict[str, Any]:
    return {
        "certname": "n",
        "environment": "e",
        "producer_timestamp": "2026-01-01T00:00:00Z",
        "values": values,
    } | more


def values_of(work: Factset) -> dict[str, Any]:
    assert work.shape is not None
    texts = map(join, work.shape.templates, work.leaves)
    return {name: json.loads(text) for name, text in zip(work.shape.names, texts, strict=True)}


@given(VALUES)
def test_a_value_comes_together_as_it_was(value: Any) -> None:
    """Whatever it is: the same JSON, and none of it in the wrong layer."""
    template, leaves = split(value)
    text = join(template, leaves)
    assert text == canonical_text(value)
    assert json.dumps(json.loads(text), sort_keys=True) == json.dumps(value, sort_keys=True)
    assert count_leaves(leaves) == leaves_of(value) == template.count(LEAF)


@given(VALUES, VALUES)
def test_two_values_of_one_template_differ_in_leaves_alone(one: Any, other: Any) -> None:
    """Equal parts are equal values: 1 is not 1.0, nor true, nor an empty hash an empty array."""
    assert (split(one) == split(other)) == (canonical_text(one) == canonical_text(other))


@given(VALUES, st.lists(st.sampled_from(["*", "a", "0", "x*", '"a.b"']), min_size=1, max_size=3))
def test_the_numbers_of_listed_leaves_are_those_of_the_split(value: Any, parts: list[str]) -> None:
    """A selection and a split count the leaves in one order."""
    chosen = selection([".".join(["f", *parts])], "--facts-volatile")
    counted = chosen.leaves("f", value)
    marked = split(_marked(value)).leaves.split(LEAF) if leaves_of(value) else []
    meant = [at for at, text in enumerate(marked) if _is_meant(json.loads(text), ["f", *parts])]
    assert counted == meant


def _marked(value: Any, path: tuple[str, ...] = ("f",)) -> Any:
    """Each leaf replaced by its path."""
    if isinstance(value, dict):
        return {key: _marked(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item, (*path, str(at))) for at, item in enumerate(value)]
    return json.dumps(path)


def _is_meant(text: str, parts: list[str]) -> bool:
    path = json.loads(text)
    tests = {
        "*": lambda name: True,
        "x*": lambda name: name.startswith("x"),
        '"a.b"': lambda name: name == "a.b",
    }
    return len(path) >= len(parts) and all(
        tests.get(part, part.__eq__)(name) for part, name in zip(parts, path, strict=False)
    )


@pytest.mark.parametrize("role", corpus.ROLES)
def test_real_facts_are_decoded_as_they_were_sent(role: str) -> None:
    """By a decoder that has met them and by one that has not."""
    decoder = decoder_of()
    for round_ in corpus.ROUNDS:
        data = corpus.body(role, round_)
        for complete in (False, True):
            work = decode(data, decoder, complete=complete)
        assert values_of(work) == json.loads(data)["payload"]["values"]
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(work), type=Factset) == work


@pytest.mark.parametrize(
    ("version", "given_", "certname", "at", "producer"),
    [
        (2, {"name": "old"}, "old", NOW, None),
        (2, {"name": "old", "producer-timestamp": "2025-01-01T00:00:00Z"}, "old", NOW, None),
        (3, {"name": "old", "producer-timestamp": "2025-01-01T00:00:00Z"}, "old", BEFORE, None),
        (4, {"certname": "n", "producer_timestamp": "2025-01-01T00:00:00Z"}, "n", BEFORE, None),
        (5, {"certname": "n", "producer_timestamp": 1735689600000, "producer": "p", "environment": None}, "n", BEFORE, "p"),
    ],
)  # fmt: skip
def test_every_version_means_what_puppetdb_takes_it_for(
    version: int, given_: dict[str, Any], certname: str, at: datetime, producer: str | None
) -> None:
    """Names with dashes, names of nodes, and times of arrival."""
    given_ = {"environment": "e", "values": {"a": "b"}} | given_
    for data in (body(given_, version), body(json.dumps(given_), version)):
        work = decode(data)
        assert (work.certname, work.producer_timestamp, work.producer) == (certname, at, producer)
        assert work.environment == given_["environment"]
        assert values_of(work) == {"a": "b"}


def test_a_payload_alone_is_known_by_its_headers() -> None:
    """As the front sends it on."""
    data = json.dumps(payload({"a": 1}, certname=None)).encode()
    work = decode(data, command="replace facts", version="5", certname="from-header")
    assert work.certname == "from-header"
    assert values_of(work) == {"a": 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (body(payload({"a": 1}), 6), "unsupported_version"),
        (body(payload({"a": 1}), 1), "unsupported_version"),
        (body(payload(None)), "invalid"),
        (body(payload([1])), "invalid"),
        (body(payload({"a": 1}, certname=None)), "invalid"),
        (body(payload({"a": 1}, certname="x" * 2000)), "invalid"),
        (body(payload({"a": 1}, producer_timestamp="yesterday")), "invalid"),
        (body(payload({"a": 1}, package_inventory={"a": 1})), "invalid"),
        (body(payload({"a": 1}, package_inventory=[["a", "1"]])), "invalid"),
        (body(payload({"a": 1}, package_inventory=[["a", 1, "apt"]])), "invalid"),
        (body(None), "invalid"),
        (body(payload({"a": 1}))[:-9], "unreadable"),
        (body(payload({})).replace(b'"values": {}', b'"values": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}"), "too_deep"),
        (body(payload({})).replace(b'"values": {}', b'"values": {"a": ' + b"[" * 300 + b"]" * 300 + b"}"), "too_deep"),
        (body(payload({})).replace(b'"values": {}', b'"values": {"a": 1e999}'), "number_out_of_range"),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_refused_by_name(data: bytes, reason: str) -> None:
    """Each with the reason that the quarantine shows."""
    with pytest.raises(Rejected) as refused:
        decode(data)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "raw",
    [
        b'"Z\xfcrich"',
        b'"lone \\ud800"',
        b'{"k\xff": "\\udc80"}',
        b'"nul \\u0000"',
        b'"both \\ud83d\\ude00 \xff"',
    ],
)
def test_text_that_is_no_text_comes_back(raw: bytes) -> None:
    """Bytes that are not UTF-8 and lone surrogates, as catalogs have them."""
    data = body(payload({"plain": "x"})).replace(b'"x"', b'"x", "odd": ' + raw)
    work = decode(data)
    assert work.shape is not None
    at = work.shape.names.index("odd")
    text = join(work.shape.templates[at], work.leaves[at])
    text.encode()  # it can be stored
    assert "\x00" not in text
    found = bytes_of(json.dumps(json.loads(text), ensure_ascii=False))
    expected = raw.replace(b"\\ud800", b"\xed\xa0\x80").replace(b"\\udc80", b"\xed\xb2\x80")
    expected = expected.replace(b"\\ud83d\\ude00", "😀".encode())
    assert found.replace(b"\xed\xb2\x80", b"\x80") == expected.replace(b"\xed\xb2\x80", b"\x80")


def test_what_is_blocked_is_not_there() -> None:
    """By path, with wildcards and in quotes, by regular expression, whole facts and parts of them."""
    values = {
        "ec2_metadata": {"ami": 1}, "mountpoints": {"/": {"size": 1, "available_bytes": 2}, "/var": {"available_bytes": 3}},
        "a.b": {"c": 1, "d": 2}, "list": [{"x": 1, "y": 2}, {"x": 3}], "kept": True, "secret_key": "s",
        "deep": {"password": "p", "user": "u"},
    }  # fmt: skip
    blocked = patterns_of('mountpoints.*.available_bytes ~^ec2_ "a.b".c list.*.x ~key$ ~password')
    work = decode(body(payload(values)), decoder_of(blocked))
    assert values_of(work) == {
        "mountpoints": {"/": {"size": 1}, "/var": {}}, "a.b": {"d": 2}, "list": [{"y": 2}, {}], "kept": True,
        "deep": {"user": "u"},
    }  # fmt: skip


@pytest.mark.parametrize("pattern", ["~(", "a..b", ".a", "a.", 'a"b', "~[a"])
def test_a_pattern_that_is_none_is_named(pattern: str) -> None:
    """With the setting that it stands in."""
    with pytest.raises(Misconfigured) as refused:
        selection([pattern], "--facts-blocklist")
    assert "--facts-blocklist" in str(refused.value)
    assert pattern in str(refused.value)


@pytest.mark.parametrize(
    "secret",
    [
        {"__ptype": "Sensitive", "__pvalue": "hush"},
        {"a": [{"__pcore_type__": "Sensitive", "__pcore_value__": "hush"}]},
        {"type": "X", "title": "t", "sensitive_parameters": ["password"], "parameters": {"password": "hush"}},
        '{"__ptype": "Sensitive", "__pvalue": "hush"}',
    ],
)
def test_what_says_that_it_is_secret_is_not_kept(secret: Any) -> None:
    """In any of the forms that catalogs have."""
    work = decode(body(payload({"f": secret, "kept": 1})))
    assert "hush" not in repr(work)
    assert values_of(work)["kept"] == 1


def test_the_order_of_members_does_not_matter() -> None:
    """Of facts, of keys, of packages."""
    one = payload({"a": {"x": 1, "y": 2}, "b": 1}, package_inventory=[["p", "1", "apt"], ["q", "1", "gem"]])
    other = payload(
        {"b": 1, "a": {"y": 2, "x": 1}},
        package_inventory=[["q", "1", "gem"], ["p", "1", "apt"], ["p", "1", "apt"]],
    )
    assert decode(body(one)).content_digest == decode(body(other)).content_digest


def test_a_shape_and_an_inventory_are_sent_once() -> None:
    """Unless a writer asks for all."""
    decoder = decoder_of()
    data = body(payload({"a": 1}, package_inventory=[["p", "1", "apt"]]))
    first, again, whole = decode(data, decoder), decode(data, decoder), decode(data, decoder, complete=True)
    assert (first.shape is None, again.shape, whole.shape) == (False, None, first.shape)
    assert again.inventory == Inventory(again.inventory.digest if again.inventory else b"", None)
    assert (
        whole.inventory
        == first.inventory
        == Inventory(whole.inventory.digest if whole.inventory else b"", [Package("p", "1", "apt")])
    )
    assert (first.is_complete, whole.is_complete) == (False, True)


def test_caches_are_bounded() -> None:
    """Ever new facts and ever new shapes leave no more than the bound."""
    decoder = decoder_of(cache_bytes_max=800_000)
    for number in range(3000):
        decode(body(payload({f"fact_{number}": "x" * 100, "same": number})), decoder)
    assert 0 < decoder.facts_remembered < 800_000 * FACTS_SHARE / 350
