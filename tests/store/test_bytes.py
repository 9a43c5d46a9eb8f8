"""The bytes that were published come back: to collectors, from ``show`` and ``query``, in each form of a catalog."""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingest.core.catalog.normalise import normalise_resource
from ingest.core.catalog.storable import encode_resource
from ingest.core.catalog.wire import canonical_json
from ingest.core.delivery.work import Outcome
from ingest.core.raw_text import bytes_of
from ingest.store.catalog.reading import exported_resources
from ingest.store.connection import Connection
from lab.store_model import Pipeline, stored

NODE = "n.example.com"
FORMS = ("native", "legacy", "wire", "resources in a text", "payload in a text", "data in a text")
MIB = 1024 * 1024


def quoted(raw: bytes) -> bytes:
    """A JSON string of these bytes, as Puppet writes one: raw but for what has to be escaped."""
    escaped = re.sub(rb'[\x00-\x1f"\\]', lambda match: b"\\u%04x" % match[0][0], raw)
    return b'"%b"' % escaped


def body_of(form: str, content: bytes, title: bytes, file: bytes) -> bytes:
    """A catalog with one exported resource; ``content``, ``title`` and ``file`` are JSON strings."""
    resources = (
        b'[{"type":"File","title":%b,"exported":true,"tags":["file"],"file":%b,"line":1,'
        b'"parameters":{"content":%b,"list":[%b,{"k":%b}],%b:1}}]'
        % (title, file, content, content, content, content)
    )
    native = b'{"name":"n.example.com","version":1,"edges":[],"resources":%b}'
    wire = (
        b'{"certname":"n.example.com","version":"1","producer_timestamp":"2026-01-01T00:00:00Z","edges":[],'
        b'"resources":%b}' % resources
    )
    command = b'{"command":"replace catalog","version":9,"payload":%b}'
    legacy = b'{"document_type":"Catalog","data":%b}'
    return {
        "native": native % resources,
        "legacy": legacy % (native % resources),
        "wire": command % wire,
        "resources in a text": legacy % (native % quoted(resources)),
        "payload in a text": command % quoted(wire),
        "data in a text": legacy % quoted(native % resources),
    }[form]


def came_back(connection: Connection) -> tuple[bytes, bytes, bytes]:
    """(content, title, file) as ``show`` tells them; what ``query exported`` tells is the same."""
    shown = json.loads(canonical_json(stored(connection, NODE)))  # as a program reads the printed JSON
    (resource,) = shown["resources"]
    (collected,) = map(json.loads, map(canonical_json, exported_resources(connection, "File")))
    for name in ("title", "parameters"):
        assert collected[name] == resource[name]
    content = resource["parameters"]["content"]
    assert resource["parameters"]["list"] == [content, {"k": content}]
    assert resource["parameters"][content] == 1
    return tuple(map(bytes_of, (content, resource["title"], resource["file"])))  # type: ignore[return-value]


def take(
    connection: Connection, form: str, content: bytes, title: bytes, file: bytes
) -> tuple[bytes, bytes, bytes]:
    connection.execute("TRUNCATE catalogs, nodes CASCADE")
    pipeline = Pipeline(connection)
    body = body_of(form, content, title, file)
    assert pipeline.take(body) == [Outcome.STORED]
    assert pipeline.take(body) == [Outcome.UNCHANGED]
    return came_back(connection)


# Bytes that look like surrogates, each as UTF-8 would have it, and what stands beside them.
PIECES = st.sampled_from(
    [b"\xed\xb2\x80", b"\xed\xa0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xff", b"\x80", b"\xed", b"\xb2", b"\xed\xb2", b"caf\xe9",
     "é".encode(), "\U0001f600".encode(), b"\0", b"\\", b'"', b"\\udc80", b" ", b"\xc0\x80", b"\xf4\x90\x80\x80", b"a"]
)  # fmt: skip
any_bytes = st.binary(max_size=40) | st.lists(PIECES, max_size=8).map(b"".join)
through_the_store = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@through_the_store
@given(st.sampled_from(FORMS), any_bytes, any_bytes, any_bytes)
@example("native", b"\xed\xb2\x80\xff \xed\xa0\x80\xff", b"\xed\xb2\x80\xff", b"\xff")
@example("legacy", b"gr\xfc\xdf dich", b"/\xe9", b"/\xe9.pp")
@example("payload in a text", b"\xff\xed\xb2\x80", b"\xff", b"\xff")
def test_any_bytes_come_back(
    connection: Connection, form: str, content: bytes, title: bytes, file: bytes
) -> None:
    """In parameters, in their names and depths, in titles and file names, whatever the form."""
    title = b"t" + title  # an empty title has no name
    found = take(connection, form, quoted(content), quoted(title), quoted(file))
    assert found == (content, title, file)


@pytest.mark.parametrize("form", FORMS)
def test_an_escape_and_a_byte_that_look_alike_are_two(connection: Connection, form: str) -> None:
    """The escape of a lone surrogate is the three bytes it would have; the byte 0x80 is itself, in one body with it."""
    content = rb'"\udc80|%b|%b|\ud800|%b"' % (b"\x80", b"\xed\xb2\x80", b"\x80")
    found = take(connection, form, content, rb'"t\udc80"', rb'"f\udc80"')
    assert found == (b"\xed\xb2\x80|\x80|\xed\xb2\x80|\xed\xa0\x80|\x80", b"t\xed\xb2\x80", b"f\xed\xb2\x80")


@given(st.sampled_from(["native", "legacy", "puppetdb"]), any_bytes, any_bytes)
def test_two_texts_are_one_content_only_where_their_bytes_are(family: str, one: bytes, other: bytes) -> None:
    """Resources are found again by their digests: bytes that differ have different ones."""
    raws = [b'{"type":"File","title":"t","parameters":{"content":%b}}' % quoted(raw) for raw in (one, other)]
    digests = [encode_resource(normalise_resource(raw, family).resource)[0] for raw in raws]
    assert (digests[0] == digests[1]) == (one == other)


@pytest.mark.parametrize("form", ["native", "legacy", "wire"])
def test_megabytes_of_bytes_come_back(connection: Connection, form: str) -> None:
    """Nearly any binary of tens of kB holds what looks like a surrogate; this one holds many."""
    content = random.Random(17).randbytes(MIB) + b"\xed\xb2\x80\xff" * 1000
    body = body_of(form, b"HERE", b'"t"', b'"f"').replace(b',"list":[HERE,{"k":HERE}],HERE:1', b"")
    pipeline = Pipeline(connection)
    assert pipeline.take(body.replace(b"HERE", quoted(content))) == [Outcome.STORED]
    (resource,) = stored(connection, NODE)["resources"]
    assert bytes_of(resource["parameters"]["content"]) == content
    (collected,) = exported_resources(connection, "File")
    assert collected["parameters"] == resource["parameters"]
