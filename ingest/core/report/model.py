"""A report as ``store report`` version 8 has it, and the upgrades of older versions to that.

Source: PuppetDB, "Report wire format", versions 3 to 8, and what PuppetDB 7.12 makes of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from ingest.core.delivery.commands import plain_name, version_number
from ingest.core.json_text import converted, parse_json
from ingest.core.sensitive import conceal, may_hold_secrets
from ingest.errors import Rejected

Scalar = str | int | float | bool | None
UNCHANGED_VERSIONS = (7, 8)  # of the command, of which the payload is as the newest has it
NULL = msgspec.Raw(b"null")


class Event(msgspec.Struct, gc=False):
    status: str | None = None
    timestamp: Scalar = None
    name: str | None = None
    property: str | None = None
    new_value: Any = None
    old_value: Any = None
    corrective_change: bool | None = None
    message: str | None = None


class ReportedResource(msgspec.Struct, gc=False):
    resource_type: str
    resource_title: Scalar
    skipped: bool | None = None
    timestamp: Scalar = None
    file: str | None = None
    line: int | None = None
    containment_path: list[str] | None = None
    corrective_change: bool | None = None
    events: list[Event] = []


class Log(msgspec.Struct, gc=False):
    message: Scalar = None
    level: str | None = None
    source: str | None = None
    tags: list[str] = []
    file: str | None = None
    line: int | None = None
    time: Scalar = None


class MetricValue(msgspec.Struct, gc=False):
    category: str
    name: str
    value: Any = None


class ReportHead(msgspec.Struct):
    """The payload but for its lists of events and lines. ``metrics`` is None where the sender's version had none."""

    certname: str | None = None
    puppet_version: Scalar = None
    report_format: int | None = None
    configuration_version: Scalar = None
    start_time: Scalar = None
    end_time: Scalar = None
    producer_timestamp: Scalar = None
    producer: str | None = None
    environment: str | None = None
    transaction_uuid: str | None = None
    catalog_uuid: str | None = None
    code_id: str | None = None
    job_id: str | None = None
    cached_catalog_status: str | None = None
    status: str | None = None
    noop: bool | None = None
    noop_pending: bool | None = None
    corrective_change: bool | None = None
    type: str | None = None
    metrics: list[MetricValue] | None = None


class Report(ReportHead):
    """The payload. ``logs`` is None where the sender's version had none."""

    resources: list[ReportedResource] | None = None
    logs: list[Log] | None = None


class UncutReport(ReportHead):
    """The same with its lists as they stand there."""

    resources: msgspec.Raw = NULL
    logs: msgspec.Raw = NULL


class _Command(msgspec.Struct):
    """The whole message, read at once. What stands around the payload is of these types in every other message, too."""

    payload: UncutReport
    command: str | int | float | None = None
    version: str | int | float | None = None
    certname: str | int | float | None = None


_OF_RESOURCE = ("resource_type", "resource_title", "file", "line", "containment_path", "timestamp")
_report = msgspec.json.Decoder(Report)
_command = msgspec.json.Decoder(_Command)


def read_report(payload: bytes | memoryview, version: int) -> Report:
    """Of any version from 3 to 8, as one of version 8. Raises Rejected."""
    report = _read(payload, version)
    if version < 7 and report.catalog_uuid is None:
        report.catalog_uuid = report.transaction_uuid
    return report


def read_uncut(body: bytes | memoryview) -> tuple[UncutReport, str | None] | None:
    """The payload of a message that is a report without doubt, and the node that stands beside it. None: it has to be read as
    any other."""
    if may_hold_secrets(bytes(body)):
        return None
    try:
        found = _command.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if (
        plain_name(str(found.command)) != "store report"
        or version_number(found.version) not in UNCHANGED_VERSIONS
    ):
        return None
    return found.payload, str(found.certname or "") or None


def _read(payload: bytes | memoryview, version: int) -> Report:
    raw = bytes(payload)
    # Puppet redacts what it reports. What comes in clear in a form that we know is redacted as in catalogs.
    is_suspect = may_hold_secrets(raw)
    if version >= 6 and not is_suspect:
        try:
            return _report.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # bytes that are not UTF-8, numbers that are no int64; or told below
    document = parse_json(payload)
    if is_suspect:
        document = conceal(document, raw)
    if not isinstance(document, dict):
        raise Rejected("invalid", "the report is not an object")
    if version < 6:
        document = _upgraded(document)
    return converted(document, Report)


def _upgraded(old: Mapping[str, Any]) -> dict[str, Any]:
    """Versions 3 and 4 have dashes, all up to 5 a list of events instead of resources with theirs."""
    new = {key.replace("-", "_"): value for key, value in old.items()}
    new["resources"] = _resources(new.pop("resource_events", None) or [])
    return new


def _resources(events: Any) -> list[dict[str, Any]]:
    """In the order in which each resource has its first event. As PuppetDB has it, what an event says of its resource, and its
    time, make the resource."""
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise Rejected("invalid", "`resource_events` is not a list of objects")
    found: dict[str, dict[str, Any]] = {}
    for given in events:
        event = {key.replace("-", "_"): value for key, value in given.items()}
        about = {name: event.get(name) for name in _OF_RESOURCE}
        is_skipped = event.get("status") == "skipped"
        key = json.dumps([is_skipped, *about.values()])
        resource = found.setdefault(key, about | {"skipped": is_skipped, "events": []})
        if not is_skipped:
            resource["events"].append(event)
    return list(found.values())
