"""Queue bodies as Puppet 0.25 to 3.8 sent them: what each version did to a catalog on its way, undone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.model import Catalog
from ingest.core.catalog.normalise import normalise
from ingest.core.catalog.wire import canonical_json, to_wire
from ingest.core.delivery.work import Outcome
from ingest.store.connection import Connection
from lab.store_model import Pipeline, expected, stored

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH_S = 1_300_000_000  # a catalog's version: seconds since 1970
MAIN = {"type": "Class", "title": "main", "exported": False, "tags": ["class"]}


def catalog(*resources: dict[str, Any], **members: Any) -> dict[str, Any]:
    """``data`` of an envelope: main contains everything else."""
    edges = [{"source": "Class[main]", "target": f"{r['type']}[{r['title']}]"} for r in resources]
    return {
        "name": "old.example", "version": EPOCH_S, "environment": "production", "tags": ["settings"],
        "classes": ["settings", "main"], "resources": [MAIN, *resources], "edges": edges,
    } | members  # fmt: skip


def file(title: str, **parameters: Any) -> dict[str, Any]:
    return {
        "type": "File", "title": title, "exported": False, "tags": ["file", "class"], "file": "/etc/site.pp",
        "line": 3, "parameters": parameters,
    }  # fmt: skip


def enveloped(data: dict[str, Any], *, ensure_ascii: bool = True) -> bytes:
    envelope = {"document_type": "Catalog", "data": data, "metadata": {"api_version": 1}}
    return json.dumps(envelope, ensure_ascii=ensure_ascii).encode()


def read(raw: bytes) -> Catalog:
    skimmed = skim(raw, {}, NOW)
    assert isinstance(skimmed, Skim)
    return normalise(skimmed)


def parameters(raw: bytes, title: str = "/x") -> dict[str, Any]:
    return {r.title: r.parameters for r in read(raw).resources}[title]


def state(raw: bytes) -> list[bytes | str]:
    """Resources and edges as they are stored, whatever the form of the body was."""
    wire = to_wire(read(raw))
    return [canonical_json(wire["resources"]), canonical_json(wire["edges"])]


def test_the_envelope_may_be_missing() -> None:
    """The old reader took ``data`` where there was one, else the hash itself."""
    data = catalog(file("/x", content="x"))
    assert read(json.dumps(data).encode()) == read(enveloped(data))


@pytest.mark.parametrize("wrapped", [("resources",), ("edges",), ("resources", "edges")])
def test_sections_may_be_json_within_json(wrapped: tuple[str, ...]) -> None:
    """Puppet 0.25 to 2.7 put ``resources`` and ``edges`` into strings; escapes then stand twice."""
    data = catalog(file("/x", content='é "quoted" \\ back \n line \u2028'))
    wrapping = {name: json.dumps(data[name]) for name in wrapped}
    assert read(enveloped(data | wrapping)) == read(enveloped(data))


def test_escapes_and_raw_utf8_are_the_same() -> None:
    """Up to 2.6.2 everything beyond ASCII was escaped, later nothing was."""
    data = catalog(file("/x", content="é ß 漢 😀", owner="Jürgen"))
    assert state(enveloped(data)) == state(enveloped(data, ensure_ascii=False))
    assert parameters(enveloped(data)) == {"content": "é ß 漢 😀", "owner": "Jürgen"}


def test_escapes_of_control_characters_are_read() -> None:
    """PSON escapes what JSON does, an optional slash, and U+0000; U+007F stands raw."""
    raw = enveloped(catalog(file("/x", content="HERE"))).replace(
        b"HERE", rb"\b\f\n\r\t\"\\\/\u0000\u001f" + b"\x7f"
    )
    assert parameters(raw)["content"] == '\b\f\n\r\t"\\/\0\x1f\x7f'


@pytest.mark.parametrize("wrapped", [False, True], ids=["list", "string"])
def test_raw_bytes_can_be_recovered(wrapped: bool) -> None:
    """File contents that are not UTF-8 (Latin-1, binary) come as they are, also within a wrapped section."""
    contents = bytes(byte for byte in range(0x20, 0x100) if byte not in b'"\\') + "é".encode()
    data = catalog(file("/x", content="HERE"))
    if wrapped:
        data["resources"] = json.dumps(data["resources"])
    found = parameters(enveloped(data).replace(b"HERE", contents))["content"]
    assert found.encode("utf-8", "surrogateescape") == contents


def test_collapsed_arrays_mean_lists_of_one() -> None:
    """Up to Puppet 3 a list of one became its member: tags and relationships are lists all the same."""
    collapsed = file("/x", require="File[/y]", before=["File[/z]"], alias="the x", mode="0644") | {
        "tags": "file"
    }
    found = read(enveloped(catalog(collapsed, file("/y"), file("/z"))))
    resource = {r.title: r for r in found.resources}["/x"]
    assert resource.tags == ("file",)
    assert resource.parameters["alias"] == ["the x"]
    assert {(str(e.source), str(e.target), e.relationship) for e in found.edges} >= {
        ("File[/y]", "File[/x]", "required-by"),
        ("File[/x]", "File[/z]", "before"),
    }
    spread = file("/x", require=["File[/y]"], before="File[/z]", alias=["the x"], mode="0644") | {
        "tags": ["file"]
    }
    again = read(enveloped(catalog(spread, file("/y"), file("/z"))))
    assert again.edges == found.edges


def test_members_that_are_nil_or_empty_are_absent() -> None:
    """No ``file``, ``line``, ``parameters`` or ``environment``: nothing is made up for them."""
    data = catalog({"type": "Notify", "title": "n", "exported": False, "tags": []})
    del data["environment"]
    found = read(enveloped(data))
    resource = {r.title: r for r in found.resources}["n"]
    assert (resource.file, resource.line, resource.parameters) == (None, None, {})
    assert found.header.environment is None


def test_references_stay_text_and_nested_ones_stay_objects() -> None:
    """``Type[title]`` also inside lists; within a hash Puppet wrote the whole resource."""
    nested = {"key": {"type": "File", "title": "/y", "exported": False, "parameters": {"mode": "0600"}}}
    raw = enveloped(catalog(file("/x", backup="File[/y]", list=["File[/y]", "a"], hash=nested), file("/y")))
    assert parameters(raw) == {"backup": "File[/y]", "list": ["File[/y]", "a"], "hash": nested}


def test_edges_may_say_more_and_titles_may_hold_anything() -> None:
    """``event`` and ``callback`` are passed over; brackets and line breaks belong to the title."""
    title = "odd [title]\nwith ] a ::name["
    data = catalog(file(title))
    data["edges"][0] |= {"event": "ALL_EVENTS", "callback": "refresh"}
    (edge,) = read(enveloped(data)).edges
    assert (edge.target.title, edge.relationship) == (title, "contains")


@pytest.mark.parametrize("version", [EPOCH_S, str(EPOCH_S), EPOCH_S * 1000, 0, -1, "release 7", ""])
def test_the_version_is_no_time(version: object) -> None:
    """Puppet takes it when it parses the manifests, and keeps it over many compiles: the order is that of arrival."""
    found = read(enveloped(catalog(version=version)))
    assert found.header.producer_timestamp == NOW
    assert found.header.version == str(version)


BODIES = {
    "plain": enveloped(catalog(file("/x", content="é"))),
    "bare": json.dumps(catalog(file("/x", content="é"))).encode(),
    "wrapped": enveloped(catalog() | {"resources": json.dumps([MAIN, file("/x")]), "edges": "[]"}),
    "raw bytes": enveloped(catalog(file("/x", content="HERE"))).replace(b"HERE", b"caf\xe9 \xff\xfe"),
    "raw title": enveloped(catalog(file("/HERE"))).replace(b"HERE", b"caf\xe9"),
    "nul": enveloped(catalog(file("/x", content="a\0b"))),
    "lone surrogate": enveloped(catalog(file("/x", content="HERE"))).replace(b"HERE", rb"a\ud83db"),
    "collapsed": enveloped(catalog(file("/x", require="Class[main]") | {"tags": "file"})),
    "exported": enveloped(catalog(file("/x") | {"exported": True})),
}


@pytest.mark.parametrize("form", BODIES)
def test_what_is_stored_is_what_was_sent(connection: Connection, form: str) -> None:
    """Through decoder, writer and tables and back; and the same body once more is unchanged."""
    pipeline = Pipeline(connection)
    assert pipeline.take(BODIES[form]) == [Outcome.STORED]
    assert stored(connection, "old.example") == expected(BODIES[form])
    assert pipeline.take(BODIES[form]) == [Outcome.UNCHANGED]
