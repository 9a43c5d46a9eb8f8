"""Which kind a message is: what its body says, wherever that stands, goes before its headers."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest

from ingest.core.catalog.decoding import open_decoder
from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.work import Deactivate, Descriptor, Full
from ingest.engine.decoders import Decoders
from ingest.errors import Rejected
from lab.decoding import work_of
from lab.store_model import LATE, resource, wire_body

SETTINGS = DecoderSettings(cache_bytes_max=1 << 20)
CATALOG = json.loads(wire_body("a.example", 1, [resource("/a"), resource("/b")]))
DEACTIVATION = {"command": "deactivate node", "version": 3, "payload": {"certname": "a.example"}}
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"command": "replace_catalog", "version": "9"},
    {"command": "deactivate_node", "version": "3"},
    {"command": "store report", "version": "8"},
    {"command": "no such thing", "version": "x"},
)


TIME = "2026-01-01T00:00:00Z"


def decode(body: bytes, headers: dict[str, str]) -> Any:
    return work_of(Decoders(SETTINGS), Descriptor(1, 1, 0, len(body), len(body), LATE, headers), body, {})


@pytest.mark.parametrize("headers", HEADERS)
def test_the_body_says_what_it_is(headers: dict[str, str]) -> None:
    """In any order of its members, and whatever the headers say."""
    for order in permutations(("command", "version", "payload")):
        catalog = json.dumps({name: CATALOG[name] for name in order}).encode()
        alone = work_of(
            open_decoder(SETTINGS), Descriptor(1, 1, 0, len(catalog), len(catalog), LATE, {}), catalog, {}
        )
        found = decode(catalog, headers)
        assert isinstance(found, Full)
        assert (found.header, found.content_digest) == (alone.header, alone.content_digest)
        deactivation = json.dumps({name: DEACTIVATION[name] for name in order}).encode()
        assert decode(deactivation, headers) == Deactivate(1, "a.example", LATE, LATE)


def test_the_last_of_two_commands_counts() -> None:
    """As parsers of JSON have it."""
    first, last = b'{"command":"replace catalog","version":9,', b'"command":"deactivate node","version":3}'
    body = first + b'"payload":{"certname":"a.example"},' + last
    assert decode(body, {}) == Deactivate(1, "a.example", LATE, LATE)


@pytest.mark.parametrize("form", ["native", "legacy"])
def test_a_body_without_a_command_is_a_catalog(form: str) -> None:
    """Also one that only speaks of commands."""
    catalog = {"name": "a.example", "version": 1, "resources": [], "edges": []}
    document = catalog if form == "native" else {"document_type": "Catalog", "data": catalog}
    catalog["resources"] = [{"type": "Exec", "title": "x", "parameters": {"command": "deactivate node"}}]
    found = decode(json.dumps(document).encode(), {})
    assert isinstance(found, Full)
    assert found.certname == "a.example"


@pytest.mark.parametrize("at_the_end", [False, True])
@pytest.mark.parametrize(
    ("command", "version", "reason", "text"),
    [
        ("store report", 1, "unsupported_version", "'store report' version 1 is not one of 3 - 8"),
        ("replace catalog", 1, "unsupported_version", "'replace catalog' version 1 is not one of 4 - 9"),
        ("deactivate node", 4, "unsupported_version", "'deactivate node' version 4 is not one of 1 - 3"),
        ("burn node", 1, "unknown_command", "the command 'burn node' is not one of PuppetDB's"),
        (
            "deactivate node",
            None,
            "unsupported_version",
            "'deactivate node' version None is not one of 1 - 3",
        ),
    ],
)
def test_what_is_not_understood_is_refused(
    command: str, version: int | None, reason: str, text: str, *, at_the_end: bool
) -> None:
    """With the same words, whether the command is told at once or by a parse of the whole."""
    members: list[tuple[str, Any]] = [
        ("command", command),
        ("version", version),
        ("payload", {"certname": "a"}),
    ]
    body = json.dumps(dict(reversed(members) if at_the_end else members)).encode()
    with pytest.raises(Rejected) as rejected:
        decode(body, {})
    assert (rejected.value.reason, rejected.value.text) == (reason, text)


def test_what_is_no_message_is_refused_as_a_catalog() -> None:
    """Nothing tells its kind."""
    for body, reason in (
        (b"", "unreadable"),
        (b"{", "unreadable"),
        (b"[]", "invalid"),
        (b'{"a":' * 999, "too_deep"),
    ):
        for headers in HEADERS[:2]:
            with pytest.raises(Rejected) as rejected:
                decode(body, headers)
            assert rejected.value.reason == reason


@pytest.mark.parametrize("spelling", [rb"\ud800", b"\xff", b"\xed\xa0\x80"])
@pytest.mark.parametrize(
    ("command", "version", "payload"),
    [
        ("deactivate node", 3, {}),
        ("configure expiration", 1, {"expire": {"facts": True, "HERE": 1}}),
        ("replace catalog inputs", 1, {"inputs": []}),
        ("replace facts", 5, {"values": {"a": {"HERE": 1}}}),
        ("store report", 8, {"start_time": TIME, "end_time": TIME, "logs": [{"HERE": 1}], "metrics": []}),
        ("replace catalog", 9, {"version": "1", "resources": [], "edges": []}),
    ],
)
def test_a_name_that_is_not_utf8_disturbs_nobody(
    command: str, version: int, payload: dict[str, Any], spelling: bytes
) -> None:
    """Of a member that nobody knows: it is passed over, in each kind of message."""
    document = {
        "command": command,
        "version": version,
        "payload": payload | {"certname": "a.example", "HERE": 1},
    }
    body = json.dumps(document).encode().replace(b"HERE", spelling)
    assert decode(body, {}).certname == "a.example"
    # A text like that in the place of something else is refused, and kills nobody.
    odd = json.dumps(document | {"payload": payload | {"certname": ["HERE"], "logs": "HERE"}}).encode()
    with pytest.raises(Rejected):
        decode(odd.replace(b"HERE", spelling), {})


FACTS = ("replace facts", 5, {"values": {"a": {"b": 1.0}, "c": "x"}, "producer_timestamp": TIME})
REPORT = (
    "store report", 8, {"start_time": TIME, "end_time": TIME, "producer_timestamp": TIME, "resources": [], "logs": [],
                        "metrics": [{"category": "a", "name": "b", "value": 1}]},
)  # fmt: skip


@pytest.mark.parametrize(("command", "version", "payload"), [FACTS, REPORT])
def test_what_is_read_at_once_is_what_others_read_in_steps(
    command: str, version: int, payload: dict[str, Any]
) -> None:
    """The command is the first member, or is found by a parse of its own; the payload is an object, or JSON in a string; the
    node is named within, beside it, or in a header."""
    within = payload | {"certname": "a.example"}
    members = {"command": command, "version": version, "payload": within}
    beside = {"command": command, "version": version, "certname": "a.example", "payload": payload}
    named = {"command": command.replace(" ", "_"), "version": str(version), "payload": payload}
    works = [
        decode(json.dumps(document).encode(), {"certname": "a.example"})
        for document in (
            members,
            dict(reversed(members.items())),
            members | {"payload": json.dumps(within)},
            beside,
            dict(reversed(beside.items())),
            named,
        )
    ]
    assert all(work == works[0] for work in works), works


@pytest.mark.parametrize(("command", "version", "payload"), [FACTS, REPORT])
def test_what_is_said_last_counts(command: str, version: int, payload: dict[str, Any]) -> None:
    """However it looked at first: another version, another command."""
    start = json.dumps({"command": command, "version": version, "payload": payload})[:-1].encode()
    for end, reason in (
        (b',"version":true}', "invalid"),
        (b',"certname":true}', "invalid"),
        (b',"version":99}', "unsupported_version"),
        (b',"command":"burn"}', "unknown_command"),
    ):
        with pytest.raises(Rejected) as rejected:
            decode(start + end, {"certname": "a.example"})
        assert rejected.value.reason == reason
    other = b',"command":"deactivate node","version":3,"payload":{"certname":"a.example"}}'
    assert decode(start + other, {}) == Deactivate(1, "a.example", LATE, LATE)
