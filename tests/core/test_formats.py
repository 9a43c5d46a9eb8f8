"""What a message is, by its content alone; and what is wrong with one that is none."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.formats import Command, Skim, skim, slices
from ingest.core.delivery.work import Claim, Deactivate, Descriptor, Full
from ingest.core.json_text import parse_json
from ingest.core.raw_text import bytes_of, plain_surrogates
from ingest.core.times import parse_time
from ingest.errors import Rejected
from lab.decoding import work_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIME = "2025-06-07T08:09:10.123456Z"
UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"
RESOURCES: list[dict[str, Any]] = [{"type": "File", "title": "/x", "parameters": {"a": [1, {"b": None}]}}]
SECTIONS: dict[str, Any] = {"resources": RESOURCES, "edges": []}
NATIVE: dict[str, Any] = {"name": "n", "version": 7, "environment": "e", **SECTIONS}
PAYLOAD: dict[str, Any] = {"certname": "n", "version": "7", "producer_timestamp": TIME, **SECTIONS}
COMMAND: dict[str, Any] = {"command": "replace catalog", "version": 9, "certname": "n", "payload": PAYLOAD}
LEGACY: dict[str, Any] = {"document_type": "Catalog", "data": NATIVE, "metadata": {"api_version": 1}}
OUTCOMES = {
    "stored",
    "unreadable", "invalid", "too_deep", "number_out_of_range", "unknown_command", "unsupported_version",
    "unsupported_command", "duplicate_resource", "invalid_relationship", "invalid_tag", "unknown_relationship",
    "dangling_edge",
}  # fmt: skip


def raw(document: Any) -> bytes:
    return json.dumps(document).encode()


def read(document: Any, **headers: str) -> Skim:
    found = skim(raw(document), headers, NOW)
    assert isinstance(found, Skim)
    return found


def decode(body: bytes, **headers: str) -> Claim | Full | Deactivate:
    descriptor = Descriptor(1, 1, 0, len(body), len(body), NOW, headers)
    return work_of(Decoding(1 << 20), descriptor, body, {})


def refusal(body: bytes, **headers: str) -> str:
    with pytest.raises(Rejected) as caught:
        decode(body, **headers)
    return caught.value.reason


def outcome(body: bytes) -> str:
    try:
        decode(body)
    except Rejected as rejected:
        return rejected.reason
    return "stored"


# Families


@pytest.mark.parametrize(
    ("document", "family", "version"),
    [
        (NATIVE, "native", 0),
        (NATIVE | {"catalog_format": 1}, "native", 1),
        (LEGACY, "legacy", 0),
        (LEGACY | {"data": json.dumps(NATIVE)}, "legacy", 0),
        (COMMAND, "puppetdb", 9),
        (COMMAND | {"command": "replace_catalog"}, "puppetdb", 9),
        (COMMAND | {"payload": json.dumps(PAYLOAD)}, "puppetdb", 9),
        (PAYLOAD, "puppetdb", 9),
    ],
)
def test_the_family_is_told_by_content(document: dict[str, Any], family: str, version: int) -> None:
    """An envelope, a command, a bare catalog, also as JSON within JSON; the sections are found in each."""
    found = read(document)
    assert (found.family, found.version, found.header.certname) == (family, version, "n")
    assert json.loads(bytes(found.resources)) == RESOURCES
    assert [json.loads(bytes(memoryview(one))) for one in slices(found.resources)] == RESOURCES
    assert bytes(found.edges) == b"[]"


@pytest.mark.parametrize("version", range(4, 10))
def test_versions_4_to_9_are_one(version: int) -> None:
    """Dashes before version 6, no catalog_uuid before 8: the header is that of version 9."""
    payload = {"name": "n", "version": "7", "transaction-uuid": UUID, "producer-timestamp": TIME, **SECTIONS}
    if version >= 6:
        payload = PAYLOAD | {"transaction_uuid": UUID}
    if version >= 8:
        payload |= {"catalog_uuid": UUID}
    found = read({"command": "replace catalog", "version": version, "payload": payload})
    assert found.version == version
    newest = COMMAND | {"payload": PAYLOAD | {"transaction_uuid": UUID, "catalog_uuid": UUID}}
    assert found.header == read(newest).header


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 3}, "unsupported_version"),
        ({"version": 10}, "unsupported_version"),
        ({"version": "x"}, "unsupported_version"),
        ({"version": None}, "unsupported_version"),
        ({"version": 9.5e300}, "unsupported_version"),
        ({"command": "replace the catalog"}, "unknown_command"),
        ({"command": 9}, "unknown_command"),
        ({"command": "replace facts", "version": 5}, "unsupported_command"),
        ({"command": ["replace catalog"]}, "invalid"),
        ({"payload": None}, "invalid"),
        ({"payload": 5}, "invalid"),
        ({"payload": "{"}, "unreadable"),
        ({"payload": PAYLOAD | {"resources": None}}, "invalid"),
        ({"payload": PAYLOAD | {"resources": {}}}, "invalid"),
        ({"payload": PAYLOAD | {"resources": [None]}}, "invalid"),
        ({"payload": PAYLOAD | {"resources": '"x"'}}, "invalid"),
        ({"payload": PAYLOAD | {"resources": "[" * 5000}}, "too_deep"),
        ({"payload": PAYLOAD | {"edges": "5"}}, "invalid"),
        ({"payload": PAYLOAD | {"edges": "{}"}}, "invalid"),
        ({"payload": PAYLOAD | {"edges": "null"}}, "invalid"),
        ({"payload": PAYLOAD | {"edges": '[{"x":' + "[" * 5000}}, "too_deep"),
        ({"payload": PAYLOAD | {"producer_timestamp": "yesterday"}}, "invalid"),
        ({"payload": PAYLOAD | {"transaction_uuid": "1"}}, "invalid"),
        ({"payload": PAYLOAD | {"certname": ["n"]}}, "invalid"),
        ({"payload": PAYLOAD | {"certname": "\ud800"}}, "invalid"),
        ({"payload": PAYLOAD | {"certname": "n\0"}}, "invalid"),
        ({"payload": PAYLOAD | {"version": True}}, "invalid"),
        ({"payload": SECTIONS, "certname": ""}, "invalid"),
    ],
)
def test_a_bad_command_is_refused_with_a_stable_word(change: dict[str, Any], reason: str) -> None:
    """The words are what counters and filters go by."""
    assert refusal(raw(COMMAND | change)) == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "unreadable"),
        (b"\0", "unreadable"),
        (b"--- !ruby/object:Puppet::Resource::Catalog\n", "unreadable"),
        (raw(NATIVE)[:-1], "unreadable"),
        (raw(NATIVE) + b"}", "unreadable"),
        (b"\xef\xbb\xbf" + raw(NATIVE), "unreadable"),
        (raw([NATIVE]), "invalid"),
        (b"null", "invalid"),
        (b"{}", "invalid"),
        (raw({"name": "n", "resources": []}), "invalid"),
        (raw({"name": "n", "edges": []}), "invalid"),
        (raw(SECTIONS), "invalid"),
        (raw(NATIVE).replace(b'"n"', b'"\xff"'), "invalid"),
        (raw(NATIVE).replace(b"null", b"1e999"), "number_out_of_range"),
        (raw(NATIVE).replace(b"null", b"NaN"), "unreadable"),
        (raw(NATIVE).replace(b"null", b"[" * 900 + b"]" * 900), "too_deep"),
        (raw(NATIVE).replace(b"null", b"[" * 9000), "too_deep"),
    ],
)
def test_what_is_no_catalog_is_refused_with_a_stable_word(body: bytes, reason: str) -> None:
    """Cut off, something else, or with a number that no double holds."""
    assert refusal(body) == reason


# Headers


def test_message_headers_fill_what_the_body_leaves_out() -> None:
    """Never more than that: the body wins."""
    headers = {
        "certname": "h", "producer": "hp", "producer_timestamp": TIME, "transaction_uuid": UUID,
        "environment": "he", "job_id": "hj",
    }  # fmt: skip
    bare = read(SECTIONS | {"version": 1}, **headers).header
    when = datetime(2025, 6, 7, 8, 9, 10, 123456, UTC)
    assert (bare.certname, bare.producer, bare.producer_timestamp) == ("h", "hp", when)
    assert (bare.transaction_uuid, bare.environment, bare.job_id) == (UUID, "he", "hj")
    other = UUID.replace("0f", "1f")
    own = {
        "name": "n",
        "producer": "p",
        "producer_timestamp": "2024-01-01T00:00:00+01:00",
        "environment": "e",
    }
    full = read(SECTIONS | own | {"transaction_uuid": other, "job_id": 5}, **headers).header
    assert (full.certname, full.producer, full.environment, full.job_id) == ("n", "p", "e", "5")
    assert full.transaction_uuid == other
    assert full.producer_timestamp == datetime(2023, 12, 31, 23, tzinfo=UTC)


def test_every_member_of_the_header_is_read() -> None:
    """In either family; a version that is not there is none that anybody made up."""
    said = {"environment": "e", "producer": "p", "code_id": "c", "job_id": "j", "transaction_uuid": UUID}
    said |= {"catalog_uuid": UUID.replace("0f", "1f"), "producer_timestamp": TIME}
    headers = [read(document).header for document in (NATIVE | said, COMMAND | {"payload": PAYLOAD | said})]
    for header in headers:
        found = msgspec.structs.asdict(header)
        assert found | {"producer_timestamp": TIME} == said | {"certname": "n", "version": "7"}
        assert header.producer_timestamp == parse_time(TIME, "")
    assert read({"name": "n", **SECTIONS}).header.version == ""
    assert read({"name": "n", **SECTIONS, "certname": "other"}).family == "native"  # Puppet's own names it so


def test_a_command_may_stand_in_the_headers_alone() -> None:
    """As PuppetDB's HTTP interface has it: the body is the payload."""
    found = read(PAYLOAD | {"certname": None}, command="replace catalog", version="9", certname="h")
    assert (found.family, found.version, found.header.certname) == ("puppetdb", 9, "h")
    assert refusal(raw(PAYLOAD), command="replace catalog", version="12") == "unsupported_version"
    assert refusal(raw(PAYLOAD), command="replace catalog") == "unsupported_version"


@pytest.mark.parametrize("wrapped", [False, True])
def test_deactivate_node_in_every_version(wrapped: bool) -> None:
    """1: the name as a JSON text; 2: the name; 3: an object with a time. Without a time the receipt counts."""
    for version, payload in ((1, '"n"'), (2, "n"), (3, {"certname": "n", "producer_timestamp": TIME})):
        if wrapped and not isinstance(payload, str):
            payload = json.dumps(payload)
        found = skim(raw({"command": "deactivate node", "version": version, "payload": payload}), {}, NOW)
        assert isinstance(found, Command)
        assert (found.command, found.certname) == ("deactivate node", "n")
        when = parse_time(TIME, "") if version == 3 else NOW
        assert found.producer_timestamp == when


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes)),
)
def test_a_time_is_the_same_in_every_zone(moment: datetime, offset: timedelta) -> None:
    """Written in any zone, or in none (then UTC), it is the same moment."""
    utc = moment.replace(tzinfo=UTC)
    sign, minutes = "-" if offset < timedelta() else "+", abs(offset) // timedelta(minutes=1)
    written = (moment + offset).isoformat() + f"{sign}{minutes // 60:02}:{minutes % 60:02}"
    assert parse_time(written, "t") == parse_time(moment.isoformat(), "t") == utc
    assert parse_time(moment.isoformat() + "Z", "t").utcoffset() == timedelta()


@given(st.text(st.characters(codec=None), max_size=30) | st.integers() | st.floats())
def test_whatever_is_no_time_is_refused(text: object) -> None:
    """A time or Rejected, whatever stands there."""
    try:
        found = parse_time(text, "producer_timestamp")
    except Rejected:
        return
    assert found.tzinfo is UTC


# JSON

PIECES: list[tuple[bytes, str]] = [
    (b"a", "a"), (b'\\"', '"'), (b"\\\\", "\\"), (b"\\n", "\n"), (b"\\u0000", "\0"), ("é".encode(), "é"), (b"\\u00e9", "é"),
    (b"\\ud83d\\ude00", "\U0001f600"), ("\U0001f600".encode(), "\U0001f600"), (b"\\ud800", "\udced\udca0\udc80"),
    (b"\\uDFFF", "\udced\udcbf\udcbf"), (b"\\udce9", "\udced\udcb3\udca9"), (b"\xed\xa0\x80", "\udced\udca0\udc80"),
    (b"\\\\ud800", "\\ud800"), (b"u", "u"), (b" ", " "),
]  # fmt: skip
BROKEN = [(b"\xff", "\udcff"), (b"\xe9", "\udce9"), (b"\xfe", "\udcfe")]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=6), max_size=4), st.sampled_from([None, *BROKEN]))
def test_texts_are_read_piece_by_piece(
    texts: list[list[tuple[bytes, str]]], broken: tuple[bytes, str] | None
) -> None:
    """Escapes of every kind, lone surrogates among them, which are three bytes that are not UTF-8; also where another
    text of the same document has such bytes: they become surrogates, from which they can be recovered."""
    separated = [[piece for pair in text for piece in (pair, (b".", "."))] for text in texts]
    if broken:
        separated.append([(b".", "."), broken, (b".", ".")])
    document = b"[" + b",".join(b'"' + b"".join(r for r, _ in text) + b'"' for text in separated) + b"]"
    assert parse_json(document) == ["".join(t for _, t in text) for text in separated]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_any_json_value_is_read_as_python_reads_it(value: Any) -> None:
    """Integers of any size, floats, odd texts: the same value with the same types. What Python has as lone surrogates
    are bytes here."""
    text = json.dumps(value)
    found = json.dumps(parse_json(text.encode()), ensure_ascii=False)
    expected = json.dumps(json.loads(text), ensure_ascii=False)
    assert bytes_of(found) == expected.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("prefix", [b"", b'"\xff",'])
@pytest.mark.parametrize(
    ("number", "reason"),
    [(b"1e999", "number_out_of_range"), (b"-1E+400", "number_out_of_range"), (b"NaN", "unreadable"),
     (b"-Infinity", "unreadable"), (b"1" * 5000, "unreadable"), (b"01", "unreadable"), (b"+1", "unreadable")],
)  # fmt: skip
def test_a_number_that_no_double_holds_is_refused(prefix: bytes, number: bytes, reason: str) -> None:
    """Whichever of the two readers meets it; infinity is never stored."""
    with pytest.raises(Rejected) as caught:
        parse_json(b"[" + prefix + number + b"]")
    assert caught.value.reason == reason


def meant(text: bytes) -> bytes:
    """The bytes that a JSON string stands for, read from left to right."""
    units: list[int] = []  # code units of UTF-16, and raw bytes below zero
    at = 0
    while at < len(text):
        if text[at] != ord("\\"):
            units.append(-text[at])
            at += 1
        elif text[at + 1] == ord("u"):
            units.append(int(text[at + 2 : at + 6], 16))
            at += 6
        else:
            units.append(-ord({"n": "\n"}.get(chr(text[at + 1]), chr(text[at + 1]))))
            at += 2
    found, rest = b"", iter(units)
    pending: list[int] = []
    for unit in [*rest, 0]:
        if unit > 0:
            pending.append(unit)
            continue
        halves = b"".join(one.to_bytes(2, "little") for one in pending)
        found += halves.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
        pending.clear()
        found += bytes([-unit]) if unit else b""
    return found


ODD_PIECES = st.sampled_from(
    [b"\\\\", b"\\\\\\\\", b"\\ud800", b"\\udc80", b"\\uDBFF", b"\\uDFFF", b"\\u00e9", b"u", b"d800", b"x", b"\\n", b"\\/",
     b"\x80", b"\xed\xb2\x80", b"\xed\xa0\x80", b"\xc3\xa9"]
)  # fmt: skip


@given(st.lists(ODD_PIECES).map(b"".join))
def test_a_string_is_the_bytes_that_it_stands_for(text: bytes) -> None:
    """The escape of a lone surrogate behind any number of backslashes, in pairs or not, beside raw bytes that look
    like it: the bytes come back, so two texts are one only where their bytes are."""
    assert bytes_of(parse_json(b'"%b"' % text)) == meant(text)


@pytest.mark.parametrize(
    "text",
    [b'"' * 4096, b'"\\' * 2048, b"\\" * 4096, b"\\\\u" * 1024, b"\\ud800" * 700, b"\\\\ud800" * 600, b"\\ud83d\\ude00" * 340],
    ids=["quotes", "quotes and backslashes", "backslashes", "escaped", "lone", "escaped lone", "pairs"],
)  # fmt: skip
def test_hostile_text_costs_by_its_length(text: bytes) -> None:
    """Nothing is kept of each escape: to match them one by one took eighty times the text, and two seconds for 4 MB."""
    long = text * 256
    tracemalloc.start()
    try:
        plain_surrogates(long)
        with pytest.raises(Rejected):
            skim(long, {}, NOW)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(long)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("surrogate", ["\\ud800", "\\udce9", "\\udcc3\\udca9"])
def test_a_lone_surrogate_in_a_section_that_is_a_string(surrogate: str) -> None:
    """Sections as JSON within a string, with the escape on either level: the same text as in plain JSON."""
    plain = raw(SECTIONS | {"name": "n"}).replace(b"/x", surrogate.encode())
    inner = json.dumps(RESOURCES).replace("/x", surrogate)
    once = json.dumps(inner)
    for wrapped in (once, once.replace("\\\\u", "\\u")):
        body = b'{"name":"n","edges":"[]","resources":' + wrapped.encode() + b"}"
        found = skim(body, {}, NOW)
        expected = skim(plain, {}, NOW)
        assert isinstance(found, Skim)
        assert isinstance(expected, Skim)
        assert [parse_json(one) for one in slices(found.resources)] == [
            parse_json(one) for one in slices(expected.resources)
        ]
        assert isinstance(decode(body), Full)


# Whatever arrives

WRAPPED = NATIVE | {"resources": json.dumps(RESOURCES), "edges": "[]"}
SEEDS = [
    raw(NATIVE), raw(COMMAND), raw(LEGACY), raw(LEGACY | {"data": WRAPPED}),
    raw(COMMAND | {"payload": json.dumps(PAYLOAD)}),
]  # fmt: skip
SNIPPETS = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"5", b"null", b"true", b'""', b"[]", b"{}", b"1e999",
    b"\xff", b"\\ud800", b'"sensitive_parameters":5,', b'"tags":{},', b'"aliases":1,', b'"__ptype":"Hash",',
    b'"before":{},', b'"exported":1,',
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(SNIPPETS)), min_size=1, max_size=3
    ),
)
def test_a_damaged_body_is_work_or_refused(body: bytes, damages: list[tuple[float, int, bytes]]) -> None:
    """A few bytes cut out or put in, anywhere: no other exception, and a word from the list."""
    for at, deleted, inserted in damages:
        place = int(at * len(body))
        body = body[:place] + inserted + body[place + deleted :]
    assert outcome(body) in OUTCOMES


MEMBERS = st.sampled_from(
    ["parameters", "tags", "sensitive_parameters", "aliases", "virtual", "exported", "kind", "file", "line", "type", "title"]
)  # fmt: skip
RICH = st.fixed_dictionaries(
    {"__ptype": st.sampled_from(["Sensitive", "Hash", "Regexp", "Default", "Pcore::IntegerType", "X"]) | json_values},
    optional={"__pvalue": json_values},
)  # fmt: skip
PARAMETERS = st.dictionaries(
    st.sampled_from(["alias", "before", "require", "tag", "name", "path", "x", "__ptype", "__pvalue"]),
    json_values | RICH | st.sampled_from(["File[/x]", "File[]", "File[/x", "File[a]b", ["Class[a]"]]),
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(MEMBERS, json_values, max_size=3),
    st.none() | PARAMETERS,
    st.lists(st.dictionaries(st.sampled_from(["source", "target", "relationship"]),
                             json_values | st.sampled_from(["File[/x]", "x"])), max_size=2),
    st.sampled_from(["native", "legacy", "puppetdb"]),
)  # fmt: skip
def test_any_value_in_any_member_is_work_or_refused(
    members: dict[str, Any], parameters: dict[str, Any] | None, edges: list[Any], family: str
) -> None:
    """JSON of the right shape with the wrong types: no other exception, and a word from the list."""
    resource = RESOURCES[0] | members | ({} if parameters is None else {"parameters": parameters})
    sections = {"resources": [resource], "edges": edges}
    document = {
        "native": NATIVE | sections,
        "legacy": LEGACY | {"data": NATIVE | sections},
        "puppetdb": COMMAND | {"payload": PAYLOAD | sections},
    }[family]
    assert outcome(raw(document)) in OUTCOMES
