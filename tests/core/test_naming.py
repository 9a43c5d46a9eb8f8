"""Whose a message is, told from its two ends: what it says where a catalog or command says it, or nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.core.delivery.naming import _TOKEN, Named, look
from ingest.core.delivery.routing import END_BYTES, START_BYTES
from lab import real_catalogs as corpus

LATIN1 = (
    b'{"document_type": "Catalog", "data": {"name": "lat.example.com", "version": 1, "tags": ["settings"], '
    b'"resources": [{"type": "File", "title": "/etc/motd", "parameters": {"content": "gr\xfc\xdf dich"}}]}}'
)
MANY = b'"resources":[' + b",".join([b'{"parameters":{"name":"no","certname":"no"}}'] * 500) + b"]"


def named(body: bytes, **headers: str) -> Named:
    return look(headers, body[:START_BYTES], body[-END_BYTES:])


@pytest.mark.parametrize(
    ("body", "certname"),
    [
        (LATIN1, "lat.example.com"),
        (LATIN1[:100], "lat.example.com"),
        (LATIN1.replace(b"lat.", b"l\xe4t."), None),
        (LATIN1.replace(b"lat.", b"l\\u00e4t."), "l\u00e4t.example.com"),
        (LATIN1.replace(b"lat.", b"l\\ud800t."), None),
        (LATIN1.replace(b"lat.", b"l\\u0000t."), None),
        (b'{"command":"replace catalog","version":9,"payload":{"certname":"n","resources":[', "n"),
        (b'{"command":"deactivate node","version":3,"certname":"outer","payload":"..."}', "outer"),
        (b'{"certname":"outer","payload":{"certname":"inner"}}', "inner"),
        (b'{"name":"n","resources":[]}', "n"),
        (b'{"tags":["name","certname"],"name":"n"}', "n"),
        (b'{"resources":[{"certname":"no","name":"no"}]}', None),
        (b'{"parameters":{"certname":"no"}}', None),
        (b'{"payload":{"resources":[{"certname":"no"}]}}', None),
        (b'{"payload":{"deeper":{"certname":"no"}}}', None),
        (b'[{"certname":"no"}]', None),
        (b'"certname":"no"', None),
        (b'{"x":"\\"certname\\":\\"no\\"","certname":"yes"}', "yes"),
        (b'{"payload":{' + MANY + b',"edges":[],"certname":"at.the.end"}}', "at.the.end"),
        (b'{"payload":{' + MANY + b',"edges":[],"certname":"n","version":"1","code_id":null}}', "n"),
        (b'{"payload":{' + MANY + b',"edges":[]}}', None),
        (b'{"payload":{' + MANY[:-1] + b',{"a":{"certname":"no"}}],"edges":[]}}', None),
        (b'{"document_type":"Catalog","data":{"certname":"n"}}', "n"),
        (b'{"document_type":"Catalog","data":{"certname":"no","name":"n"}}', "n"),
        (b'{"name":"no","certname":"n"}', "n"),
        (b'{"certname":17}', None),
        (b'{"certname":""}', None),
        (b'{"certname":"' + b"n" * 2000 + b'"}', None),
        (b'{"certname":"n', None),
        (b"\x1f\x8b\x08gzip", None),
        (b"", None),
    ],
)
def test_a_name_is_right_or_absent(body: bytes, certname: str | None) -> None:
    """However broken the rest is, and whatever resources are called."""
    assert named(body).certname == certname


@pytest.mark.parametrize("form", ["wire", "native", "legacy"])
@pytest.mark.parametrize("role", corpus.ROLES)
def test_the_node_of_a_real_catalog_is_named(role: str, form: str) -> None:
    """Of each form, and cut anywhere behind its beginning too."""
    body = corpus.body(role, 1, "wire" if form == "wire" else "native")
    if form == "legacy":
        body = b'{"document_type":"Catalog","data":' + body + b',"metadata":{"api_version":1}}'
    certname = json.loads(corpus.body(role, 1, "wire"))["certname"]
    assert named(body).certname == certname


def test_headers_name_what_the_body_does_not() -> None:
    """The body goes first; of headers only text that is what it seems."""
    assert named(b"{", certname="h", producer="p", command="replace_catalog") == Named(
        "h", "p", "replace_catalog"
    )
    assert named(b'{"certname":"b","producer":"q","command":"c"}', certname="h", producer="p") == Named(
        "b", "q", "c"
    )
    assert named(b"", certname="caf\ufffd", producer="a\0b") == Named(None, None, None)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_can_be_looked_at(start: bytes, end: bytes) -> None:
    """Nothing is raised, and what is found can stand in a column."""
    found = look({}, b'{"certname":"' + start, end)
    for text in found:
        assert text is None or (text and "\0" not in text and text.encode())


def test_a_look_is_quick_on_hostile_ends() -> None:
    """No pattern goes over the same bytes again and again."""
    for piece in (b'"', b'\\"', b'{"a":', b"[", b'"certname":"', b',"a":1', b' ,"certname":"x"'):
        for times in (1, 5000):
            body = piece * times
            look({}, body[:START_BYTES], body[-END_BYTES:])


@pytest.mark.parametrize(
    ("body", "producer"),
    [
        (b'{"command":"replace catalog","payload":{"certname":"n","producer":"p"}}', "p"),
        (b'{"document_type":"Catalog","data":{"name":"n","producer":"p"}}', "p"),
        (b'{"name":"n","producer":"p"}', "p"),
        (b'{"producer":"no","payload":{"producer":"p"}}', "p"),
        (b'{"payload":{"resources":[{"producer":"no"}]}}', "h"),
        (b"{}", "h"),
    ],
)
def test_a_producer_is_who_the_message_says(body: bytes, producer: str) -> None:
    """Where its certname may stand; else the header's."""
    assert named(body, producer="h").producer == producer


@given(
    st.lists(st.sampled_from([b'"', b"\\", b" ", b"\n", b"\x01", b"{", b":", b"a", b"\xff"])).map(b"".join)
)
@example(b" " * START_BYTES)
@example(b'"\\"' * 2000)
def test_each_byte_is_looked_at_once(start: bytes) -> None:
    """Tokens follow each other without a gap: nothing is begun again behind where it failed."""
    if start.endswith(b"\\"):
        start += b"x"
    assert b"".join(match[0] for match in _TOKEN.finditer(start)) == start
