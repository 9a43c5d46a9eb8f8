"""Puppet's own PuppetDB terminus is the oracle: it made the wire form of the same catalogs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.core.catalog import edges
from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.model import Catalog
from ingest.core.catalog.normalise import normalise
from ingest.core.catalog.wire import canonical_json, to_wire
from lab import real_catalogs as corpus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CASES = [(role, round_) for role in corpus.ROLES for round_ in corpus.ROUNDS]


def read(body: bytes) -> Catalog:
    skimmed = skim(body, {}, NOW)
    assert isinstance(skimmed, Skim)
    return normalise(skimmed)


@pytest.mark.parametrize(("role", "round_"), CASES)
def test_native_becomes_what_the_terminus_makes_of_it(role: str, round_: int) -> None:
    """Resources and edges of a native catalog equal those of its wire form."""
    native = to_wire(read(corpus.body(role, round_, "native")))
    wire = to_wire(read(corpus.body(role, round_, "wire")))
    for member in ("certname", "version", "environment", "resources", "edges"):
        assert canonical_json(native[member]) == canonical_json(wire[member])


@pytest.mark.parametrize(("role", "round_"), CASES)
def test_the_wire_form_loses_nothing(role: str, round_: int) -> None:
    """Normalising a wire catalog changes only the order of what has none."""
    body = corpus.body(role, round_, "wire")
    assert to_wire(read(body)) == canonical_payload(json.loads(body)["payload"])


@pytest.mark.parametrize("role", corpus.ROLES)
def test_three_families_of_one_catalog_are_one(role: str) -> None:
    """A legacy body, a native one and a PuppetDB command of one catalog have the same resources and edges."""
    document = json.loads(corpus.body(role, 1, "native"))
    for resource in document["resources"]:
        del resource["kind"]  # Puppet 3 knew no such thing
    payload = json.loads(corpus.body(role, 1, "wire"))["payload"]
    for resource in payload["resources"]:
        del resource["kind"]
    legacy = {"document_type": "Catalog", "data": document, "metadata": {"api_version": 1}}
    older = legacy | {
        "data": document | {name: json.dumps(document[name]) for name in ("resources", "edges")}
    }
    command = {"command": "replace catalog", "version": 9, "certname": document["name"], "payload": payload}
    found = [to_wire(read(json.dumps(d).encode())) for d in (document, legacy, older, command)]
    for other in found[1:]:
        for member in ("resources", "edges"):
            assert canonical_json(other[member]) == canonical_json(found[0][member])


def canonical_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """A wire payload with everything in the canonical order."""
    resources = [r | {"tags": sorted(set(r["tags"]))} for r in payload["resources"]]
    return payload | {
        "resources": sorted(resources, key=lambda r: (r["type"], r["title"])),
        "edges": sorted(
            payload["edges"],
            key=lambda e: (
                *(e[end][part] for end in ("source", "target") for part in ("type", "title")),
                e["relationship"],
            ),
        ),
    }


@pytest.mark.parametrize("form", ["native", "wire"])
def test_no_edge_of_puppets_goes_the_long_way(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ends are known by the very bytes that Puppet and its terminus write."""

    def the_long_way(raw: bytes) -> Any:
        raise AssertionError(raw[:100])

    monkeypatch.setattr(edges, "_lenient_edges", the_long_way)
    for role in corpus.ROLES:
        assert read(corpus.body(role, 1, form)).edges
