"""A stored report in the form in which it is sent: events stand in the resource that they are of.

As ``puppet db export`` does it: events of a resource are together if they have the same time, and a resource that was skipped
has no events of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec

_OF_RESOURCE = ("resource_type", "resource_title", "file", "line", "containment_path", "timestamp")
_OF_EVENT = (
    "status", "timestamp", "name", "property", "new_value", "old_value", "corrective_change", "message",
)  # fmt: skip


class _StoredEvent(msgspec.Struct):
    resource_type: str | None
    resource_title: str | None
    file: str | None
    line: int | None
    containment_path: list[str] | None
    status: str | None
    timestamp: str
    name: str | None
    property: str | None
    new_value: msgspec.Raw
    old_value: msgspec.Raw
    corrective_change: bool | None
    message: str | None


_events = msgspec.json.Decoder(list[_StoredEvent])
_head = msgspec.json.Decoder(dict[str, msgspec.Raw])


def report_payload(head: str, events: str) -> dict[str, Any]:
    """The payload of ``store report`` version 8; what nobody has to look at is left as it is (Raw)."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for event in _events.decode(events):
        skipped = event.status == "skipped"
        key = (
            event.resource_type, event.resource_title, event.file, event.line, tuple(event.containment_path or ()),
            event.containment_path is None, event.timestamp, skipped,
        )  # fmt: skip
        resource = found.get(key)
        if resource is None:
            resource = {name: getattr(event, name) for name in _OF_RESOURCE}
            found[key] = resource | {"skipped": skipped, "corrective_change": None, "events": []}
            resource = found[key]
        if not skipped:
            resource["events"].append({name: getattr(event, name) for name in _OF_EVENT})
            resource["corrective_change"] = _either(resource["corrective_change"], event.corrective_change)
    values = dict(_head.decode(head))
    whole: dict[str, Any] = {
        name: raw if name in ("metrics", "logs") else msgspec.json.decode(raw) for name, raw in values.items()
    }
    return whole | {"resources": list(found.values())}


def _either(one: bool | None, other: bool | None) -> bool | None:
    return other if one is None else one or bool(other)
