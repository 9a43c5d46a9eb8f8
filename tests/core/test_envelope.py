"""Which command a message is, and what lies in it: in the body, in the headers, or in a string once more."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.core.delivery.envelope import open_envelope, read_command
from ingest.errors import Rejected

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAYLOAD: dict[str, Any] = {"certname": "p", "values": {}}
HEADERS = {"command": "replace_facts", "version": "5", "certname": "h"}


@pytest.mark.parametrize(
    ("body", "headers", "certname"),
    [
        ({"command": "replace facts", "version": 5, "payload": PAYLOAD}, {}, None),
        ({"command": "replace_facts", "version": "5", "payload": PAYLOAD}, {}, None),
        ({"payload": PAYLOAD, "certname": "e", "version": 5, "command": "replace facts"}, {}, "e"),
        ({"command": "replace facts", "version": 5, "certname": "e", "payload": PAYLOAD}, HEADERS, "e"),
        ({"command": "replace facts", "version": 5, "payload": PAYLOAD}, {"certname": "h"}, "h"),
        ({"command": "replace facts", "version": 5, "payload": json.dumps(PAYLOAD)}, {}, None),
        (PAYLOAD, HEADERS, "h"),
    ],
)
def test_an_envelope_has_its_command_and_its_payload(
    body: Any, headers: dict[str, str], certname: str | None
) -> None:
    """However it is written and wherever it stands; what the body says goes before the headers."""
    raw = json.dumps(body).encode()
    found = open_envelope(raw, headers, NOW)
    assert (found.command, found.version, found.certname) == ("replace facts", 5, certname)
    assert json.loads(bytes(found.payload)) == PAYLOAD
    assert (found.arrived_at, found.headers) == (NOW, headers)
    name, version = read_command(raw, headers)
    assert (name, int(str(version))) == ("replace facts", 5)


@pytest.mark.parametrize(
    ("body", "headers", "payload"),
    [
        (b'{"command":"deactivate node","version":1,"payload":"\\"n\\""}', {}, b'"n"'),
        (b'{"command":"deactivate node","version":1,"payload":"n"}', {}, b'"n"'),
        (b'{"command":"deactivate node","version":3,"payload":"{\\"certname\\":\\"n\\"}"}', {}, b'{"certname":"n"}'),
        (b'{"command":"deactivate node","version":3}', {}, b""),
        (b'"n"', {"command": "deactivate node", "version": "2"}, b'"n"'),
        (b'"{}"', {"command": "deactivate node", "version": "2"}, b"{}"),
    ],
)  # fmt: skip
def test_a_payload_in_a_string_is_unwrapped(body: bytes, headers: dict[str, str], payload: bytes) -> None:
    """A name alone stays a JSON string; where there is nothing, there is none."""
    found = open_envelope(body, headers, NOW)
    assert (found.command, bytes(found.payload)) == ("deactivate node", payload)


@pytest.mark.parametrize(
    ("version", "number"), [("5", 5), (5, 5), (5.0, 5), (None, -1), ("five", -1), ("", -1)]
)
def test_a_version_is_a_number_or_none(version: Any, number: int) -> None:
    """What is none is told by who asks for one."""
    raw = json.dumps({"command": "replace facts", "version": version, "payload": {}})
    assert open_envelope(raw.encode(), {}, NOW).version == number


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (b'{"payload":{}}', "invalid", ["body", "headers", "command"]),
        (b'"n"', "invalid", ["object"]),
        (b'{"command":["x"]}', "invalid", ["command"]),
        (b'{"command":', "unreadable", ["truncated"]),
        (b'{"command":"x","payload":' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep", ["deep"]),
    ],
)
def test_what_is_no_command_is_refused_for_what_is_wrong(body: bytes, reason: str, words: list[str]) -> None:
    """With a stable word, and a text that says more."""
    with pytest.raises(Rejected) as caught:
        open_envelope(body, {}, NOW)
    assert caught.value.reason == reason
    assert [word for word in words if word not in caught.value.text] == []
