"""The payload of ``replace facts``, of every version as of version 5; the values are not looked at here.

Source: PuppetDB's ``facts/normalize-facts``: 2 and 3 call the node ``name``, 3 writes ``producer-timestamp``, 2 counts as
made when it arrived; 4 has no producer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from ingest.core.delivery.commands import PUPPETDB, plain_name, require_version, version_number
from ingest.core.delivery.envelope import Envelope
from ingest.core.json_text import converted, parse_json
from ingest.core.plain_text import require_plain
from ingest.core.raw_text import bytes_of
from ingest.core.times import parse_time
from ingest.errors import Rejected

VERSIONS = PUPPETDB["replace facts"]
Raw = msgspec.Raw
Scalar = str | int | float | None


class Payload(NamedTuple):
    certname: str
    producer_timestamp: datetime
    environment: str | None
    producer: str | None
    values: Mapping[str, Raw]  # JSON by the fact's name
    packages: Raw | None


class _Payload(msgspec.Struct):
    certname: Scalar = None
    name: Scalar = None
    environment: Scalar = None
    producer: Scalar = None
    producer_timestamp: Scalar = None
    producer_timestamp_dashed: Scalar = msgspec.field(default=None, name="producer-timestamp")
    values: dict[str, Raw] | None = None
    package_inventory: Raw | None = None


class _Command(msgspec.Struct):
    """The whole message, read at once."""

    payload: _Payload
    command: Scalar = None
    version: Scalar = None
    certname: Scalar = None


_payload = msgspec.json.Decoder(_Payload)
_command = msgspec.json.Decoder(_Command)


def read_payload(envelope: Envelope) -> Payload:
    """Raises Rejected."""
    version = require_version("replace facts", envelope.version, VERSIONS)
    return _checked(version, _decode(envelope.payload), envelope)


def read_at_once(body: memoryview, headers: Mapping[str, str], arrived_at: datetime) -> Payload | None:
    """Of a message that is ``replace facts`` without doubt. None: it has to be read as any other. Raises Rejected."""
    try:
        found = _command.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    version = version_number(found.version)
    if plain_name(str(found.command)) != "replace facts" or version not in VERSIONS:
        return None
    certname = str(found.certname or headers.get("certname") or "") or None
    return _checked(
        version, found.payload, Envelope("replace facts", version, certname, b"", arrived_at, headers)
    )


def _checked(version: int, found: _Payload, envelope: Envelope) -> Payload:
    """``envelope``: what stands around it. Raises Rejected."""
    if found.values is None:
        raise Rejected("invalid", "`values` is missing: the facts by their names")
    certname = _text((found.name if version < 4 else None) or found.certname or envelope.certname)
    if not certname:
        raise Rejected("invalid", "the facts name no node: there is no certname")
    headers = envelope.headers
    environment = _text(found.environment) or headers.get("environment") or None
    producer = (_text(found.producer) or headers.get("producer") or None) if version > 4 else None
    for name, value in (("certname", certname), ("environment", environment), ("producer", producer)):
        require_plain(name, value)
    return Payload(
        certname,
        _time(version, found, envelope),
        environment,
        producer,
        found.values,
        found.package_inventory if version > 4 else None,
    )


def _time(version: int, found: _Payload, envelope: Envelope) -> datetime:
    if version > 2:
        given: Any
        for given in (
            found.producer_timestamp,
            found.producer_timestamp_dashed,
            envelope.headers.get("producer_timestamp"),
        ):
            if given not in (None, ""):
                return parse_time(given, "producer_timestamp")
    return envelope.arrived_at


def _text(value: Scalar) -> str | None:
    return None if value is None else str(value)


def _decode(payload: bytes | memoryview) -> _Payload:
    if not len(payload):
        raise Rejected("invalid", "'replace facts' has no payload")
    try:
        return _payload.decode(payload)
    except RecursionError as error:
        raise Rejected("too_deep", "the JSON is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    # With bytes that are not UTF-8, or with lone surrogates: read whole, and its parts written as JSON that can be read.
    document = parse_json(payload)
    if not isinstance(document, dict):
        raise Rejected("invalid", "the payload of 'replace facts' is not an object")
    values = document.get("values")
    if isinstance(values, dict):
        document = {**document, "values": {}}
    found = converted(document | {"package_inventory": None}, _Payload)
    if isinstance(values, dict):
        found.values = {name: _raw(value) for name, value in values.items()}
    if document.get("package_inventory") is not None:
        found.package_inventory = _raw(document["package_inventory"])
    return found


def _raw(value: Any) -> Raw:
    """In the bytes that it came as: an escape would be read as a surrogate of its own the next time."""
    return Raw(bytes_of(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)))
