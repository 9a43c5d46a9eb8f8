"""Rows of PuppetDB's queries as payloads of the commands that would make them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ingest.core.archive.report_form import report_payload

Row = Mapping[str, Any]
_OF_CATALOG = (
    "certname", "version", "environment", "producer", "producer_timestamp", "transaction_uuid", "catalog_uuid", "code_id",
    "job_id",
)  # fmt: skip
_OF_FACTS = ("certname", "environment", "producer", "producer_timestamp")
_OF_RESOURCE = ("type", "title", "exported", "tags", "parameters")


def catalog_payload(row: Row) -> dict[str, Any]:
    resources = [
        {name: one[name] for name in _OF_RESOURCE}
        | {name: one[name] for name in ("file", "line") if one.get(name) is not None}
        for one in _data(row, "resources")
    ]
    edges = [
        {
            "source": {"type": one["source_type"], "title": one["source_title"]},
            "target": {"type": one["target_type"], "title": one["target_title"]},
            "relationship": one["relationship"],
        }
        for one in _data(row, "edges")
    ]
    return {name: row.get(name) for name in _OF_CATALOG} | {"resources": resources, "edges": edges}


def facts_payload(row: Row, packages: Sequence[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {name: row.get(name) for name in _OF_FACTS}
    found["values"] = {one["name"]: one["value"] for one in _data(row, "facts")}
    if packages:
        found["package_inventory"] = [
            [one["package_name"], one["version"], one["provider"]] for one in packages
        ]
    return found


def inputs_payload(row: Row) -> dict[str, Any]:
    return {name: row.get(name) for name in ("certname", "producer_timestamp", "catalog_uuid", "inputs")}


def reports_payload(row: Row) -> dict[str, Any]:
    dropped = ("hash", "receive_time", "resources", "resource_events")
    head = {name: value for name, value in row.items() if name not in dropped}
    for name in ("metrics", "logs"):
        head[name] = _data(row, name)
    return report_payload(json.dumps(head), json.dumps(_data(row, "resource_events")))


def _data(row: Row, name: str) -> list[Any]:
    return (row.get(name) or {}).get("data") or []
