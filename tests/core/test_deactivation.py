"""A deactivation in all its forms, against the reader of any command's header."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core.catalog.formats import Command, skim
from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.work import Deactivate, Descriptor
from ingest.core.node.decoding import DeactivationDecoder
from ingest.engine.decoders import Decoders
from ingest.errors import Rejected
from lab.decoding import work_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIME = "2025-06-07T08:09:10.123456Z"
SETTINGS = DecoderSettings(cache_bytes_max=1 << 20)
NAMES = st.sampled_from(["a.example", " a", "é", "1", '{"', "[x]", "null"])
PAYLOADS = st.one_of(
    NAMES.filter(lambda name: not name.startswith("{")),
    NAMES.filter(lambda name: not name.startswith("{")).map(json.dumps),
    st.fixed_dictionaries(
        {"certname": NAMES | st.integers(0, 9)},
        optional={
            "producer_timestamp": st.sampled_from([TIME, "", None]),
            "producer-timestamp": st.sampled_from([TIME, "2024-01-01T00:00:00+02:00"]),
            "other": st.just([1]),
        },
    ).flatmap(lambda payload: st.sampled_from([payload, json.dumps(payload), f" {json.dumps(payload)}"])),
)
HEADERS = st.dictionaries(st.just("producer_timestamp"), st.just("2023-01-01T00:00:00Z"), max_size=1)


def decode(body: bytes, headers: dict[str, str]) -> Deactivate:
    descriptor = Descriptor(1, 1, 0, len(body), len(body), NOW, headers)
    alone = work_of(DeactivationDecoder(SETTINGS), descriptor, body, {})
    assert work_of(Decoders(SETTINGS), descriptor, body, {}) == alone
    assert isinstance(alone, Deactivate)
    return alone


@settings(deadline=None)
@given(PAYLOADS, st.integers(1, 3), HEADERS, st.permutations(["command", "version", "payload", "certname"]))
def test_all_forms_say_the_same(
    payload: Any, version: int, headers: dict[str, str], order: list[str]
) -> None:
    """Whatever the order of members and wherever the command stands."""
    members = {"command": "deactivate node", "version": version, "payload": payload, "certname": "other"}
    body = json.dumps({name: members[name] for name in order}).encode()
    expected = skim(body, headers, NOW)
    assert isinstance(expected, Command)
    found = decode(body, headers)
    assert (found.certname, found.producer_timestamp) == (expected.certname, expected.producer_timestamp)


@pytest.mark.parametrize("name", ["deactivate_node", "deactivate node"])
def test_the_headers_tell_the_command(name: str) -> None:
    """Then the body is the payload, also a bare string, and the certname's header counts where it has none."""
    headers = {"command": name, "version": "3", "certname": "of.header"}
    assert decode(b'{"certname": "a", "producer_timestamp": "%b"}' % TIME.encode(), headers) == Deactivate(
        1, "a", datetime.fromisoformat(TIME), NOW
    )
    assert decode(b"{}", headers).certname == "of.header"
    assert decode(b'"a"', headers).certname == "a"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "invalid"),
        (None, "invalid"),
        (["a"], "invalid"),
        ({"certname": ["a"]}, "invalid"),
        ({"certname": "a\0"}, "invalid"),
        ({"certname": "a", "producer_timestamp": "yesterday"}, "invalid"),
        ('{"certname": ', "unreadable"),
        ('{"a":' * 1000, "too_deep"),
    ],
)
def test_what_names_no_node_or_no_time_is_refused(payload: Any, reason: str) -> None:
    """Each with the reason that it goes to quarantine with."""
    body = json.dumps({"command": "deactivate node", "version": 3, "payload": payload}).encode()
    with pytest.raises(Rejected) as rejected:
        decode(body, {})
    assert rejected.value.reason == reason
