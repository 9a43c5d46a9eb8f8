"""A catalog in PuppetDB's wire form (``replace catalog`` version 9), and canonical JSON of anything."""

from __future__ import annotations

import json

import msgspec

from ingest.core.catalog.model import Catalog, Json, Ref, Resource

_encode = msgspec.json.Encoder(order="sorted").encode


def to_wire(catalog: Catalog) -> dict[str, Json]:
    """The payload of the command, in a fixed order: resources by (type, title), edges sorted, tags sorted."""
    header = catalog.header
    return {
        "certname": header.certname,
        "version": header.version,
        "environment": header.environment,
        "producer": header.producer,
        "producer_timestamp": header.producer_timestamp.isoformat(timespec="milliseconds"),
        "transaction_uuid": header.transaction_uuid,
        "catalog_uuid": header.catalog_uuid,
        "code_id": header.code_id,
        "job_id": header.job_id,
        "resources": [_resource(resource) for resource in catalog.resources],
        "edges": [
            {"source": _ref(edge.source), "target": _ref(edge.target), "relationship": edge.relationship}
            for edge in catalog.edges
        ],
    }


def canonical(catalog: Catalog) -> bytes:
    """The wire form as canonical JSON: equal catalogs, equal bytes."""
    return canonical_json(to_wire(catalog))


def canonical_json(value: Json) -> bytes:
    """JSON with sorted keys and no spaces. Text that is not UTF-8 (lone surrogates) is escaped."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _resource(resource: Resource) -> dict[str, Json]:
    wire: dict[str, Json] = {
        "type": resource.type,
        "title": resource.title,
        "exported": resource.exported,
        "tags": list(resource.tags),
        "parameters": resource.parameters,
    }
    for name in ("kind", "file", "line"):
        if (value := getattr(resource, name)) is not None:
            wire[name] = value
    return wire | (resource.extra or {})


def _ref(ref: Ref) -> dict[str, Json]:
    return {"type": ref.type, "title": ref.title}
