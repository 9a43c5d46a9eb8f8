"""Tells what a message is by its content alone, and finds its sections without parsing them.

Three families: the legacy queue body of Puppet 0.25 - 3.8, the native catalog of Puppet 4 - 8, and PuppetDB
commands. One pass of msgspec over the whole body finds the header and leaves ``resources`` and ``edges`` as the
bytes they are.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from ingest.core.catalog.model import Header
from ingest.core.catalog.nesting import require_shallow
from ingest.errors import Rejected

SUPPORTED = {
    "replace catalog": range(4, 10),
    "replace facts": range(2, 6),
    "store report": range(3, 9),
    "deactivate node": range(1, 4),
    "configure expiration": range(1, 2),
    "replace catalog inputs": range(1, 2),
}

Raw = msgspec.Raw
Scalar = str | int | float | None


# Every escape, so that a backslash is never taken for the begin of the next; group 1 is a lone surrogate.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u([dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
# The three bytes of a lone surrogate, each as PEP 383 has bytes that are not UTF-8.
_SURROGATE_BYTES = re.compile("\udced[\udca0-\udcbf][\udc80-\udcbf]")


class Skim(msgspec.Struct, frozen=True):
    """A catalog of which only the header is parsed."""

    family: str  # "legacy" | "native" | "puppetdb"
    version: int  # catalog_format, or the command's version
    header: Header
    resources: bytes | memoryview  # the JSON array as it lies in the body
    edges: bytes | memoryview


class Other(msgspec.Struct, frozen=True):
    """A PuppetDB command that is not ``replace catalog``."""

    command: str
    version: int
    certname: str | None
    producer_timestamp: datetime | None


class _Catalog(msgspec.Struct, kw_only=True):
    """Every member that a catalog's header may have, in any family."""

    name: Scalar = None
    certname: Scalar = None
    version: Scalar = None
    environment: Scalar = None
    producer: Scalar = None
    producer_timestamp: Scalar = None
    producer_timestamp_dashed: Scalar = msgspec.field(default=None, name="producer-timestamp")
    transaction_uuid: Scalar = None
    transaction_uuid_dashed: Scalar = msgspec.field(default=None, name="transaction-uuid")
    catalog_uuid: Scalar = None
    code_id: Scalar = None
    job_id: Scalar = None
    catalog_format: Scalar = None
    resources: Raw | msgspec.UnsetType = msgspec.UNSET
    edges: Raw | msgspec.UnsetType = msgspec.UNSET


class _Message(_Catalog, kw_only=True):
    """A whole body: a bare catalog, an envelope (``data``), or a command (``payload``)."""

    document_type: Scalar = None
    data: _Catalog | str | None = None
    command: Scalar = None
    payload: _Catalog | str | None = None


_message = msgspec.json.Decoder(_Message)
_catalog = msgspec.json.Decoder(_Catalog)
_slices = msgspec.json.Decoder(list[Raw])


def skim(body: bytes | memoryview, headers: Mapping[str, str], received_at: datetime) -> Skim | Other:
    """Finds the header and the sections. Raises Rejected when the message cannot be one that we store."""
    if not len(body):
        raise Rejected("unreadable", "the body is empty")
    try:
        message = _message.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = _decode(_message, _with_plain_surrogates(body))
    command = message.command or headers.get("command")
    if command is not None:
        return _command(str(command), message, headers, received_at)
    catalog = message.data if isinstance(message.data, _Catalog) else message
    if isinstance(message.data, str):
        catalog = _decode(_catalog, message.data.encode("utf-8", "surrogatepass"))
    resources = _section(catalog.resources, "resources")
    edges = _section(catalog.edges, "edges")
    # A bare catalog of an old Puppet goes the same way as a native one.
    family = "legacy" if message.data is not None else "native"
    if catalog.certname and not catalog.name:
        # A bare payload whose command and version are in nobody's header.
        return _payload(catalog, 9, None, headers, received_at)
    header = _header(catalog, str(catalog.name or ""), headers, received_at)
    return Skim(family, _integer(catalog.catalog_format, 0), header, resources, edges)


def slices(section: bytes | memoryview) -> list[Raw]:
    """The JSON of each element. Raises Rejected when the section is no JSON array."""
    try:
        return _slices.decode(section)
    except (msgspec.DecodeError, RecursionError):
        # A section that was a string may have lone surrogates, which elsewhere ``skim`` has dealt with.
        found: list[Raw] = _decode(_slices, _with_plain_surrogates(section))
        return found


def parse_json(raw: bytes | memoryview | Raw) -> Any:
    """Any JSON value, also with bytes that are not UTF-8 (kept as lone surrogates, PEP 383) and with lone
    surrogate escapes. Raises Rejected for numbers that no double can hold."""
    require_shallow(raw)
    try:
        return msgspec.json.decode(raw)
    except RecursionError as error:
        raise Rejected("too_deep", "the JSON is nested too deeply") from error
    except (UnicodeDecodeError, msgspec.DecodeError):
        text = _text_of(_with_plain_surrogates(raw))
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_no_constant)
    except RecursionError as error:
        raise Rejected("too_deep", "the JSON is nested too deeply") from error
    except ValueError as error:
        raise Rejected("unreadable", f"no JSON: {error}") from error


def parse_time(text: object, name: str) -> datetime:
    """An aware datetime in UTC from ISO 8601, or Rejected."""
    try:
        found = datetime.fromisoformat(str(text))
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Rejected("invalid", f"{name} is no ISO 8601 time: {str(text)[:60]!r}") from error


def _command(
    command: str, message: _Message, headers: Mapping[str, str], received_at: datetime
) -> Skim | Other:
    name = command.replace("_", " ").strip()
    if name not in SUPPORTED:
        raise Rejected("unknown_command", f"the command {command[:60]!r} is not one of PuppetDB's")
    in_body = message.command is not None
    given = message.version if in_body else headers.get("version")
    version = _integer(given, -1)
    if version not in SUPPORTED[name]:
        known = SUPPORTED[name]
        raise Rejected(
            "unsupported_version",
            f"'{name}' version {str(given)[:20]} is not one of {known[0]} - {known[-1]}",
        )
    payload = message.payload if in_body else message
    if isinstance(payload, str):
        if name == "deactivate node" and not payload.lstrip().startswith(("{", '"')):
            payload = _Catalog(certname=payload)
        elif payload.lstrip().startswith('"'):
            payload = _Catalog(certname=str(parse_json(payload.encode("utf-8", "surrogatepass"))))
        else:
            payload = _decode(_catalog, payload.encode("utf-8", "surrogatepass"))
    if payload is None:
        raise Rejected("invalid", f"'{name}' has no payload")
    certname = (message.certname if in_body else None) or headers.get("certname")
    if name == "replace catalog":
        return _payload(payload, version, certname, headers, received_at)
    timestamp = payload.producer_timestamp or payload.producer_timestamp_dashed
    return Other(
        name,
        version,
        str(payload.certname or certname or "") or None,
        parse_time(timestamp, "producer_timestamp") if timestamp else received_at,
    )


def _payload(
    payload: _Catalog, version: int, certname: Scalar, headers: Mapping[str, str], received_at: datetime
) -> Skim:
    """``replace catalog`` of any version as version 9."""
    name = str(payload.certname or payload.name or certname or "")
    header = _header(payload, name, headers, received_at)
    if version < 8 and header.catalog_uuid is None:
        header = msgspec.structs.replace(header, catalog_uuid=header.transaction_uuid)
    return Skim(
        "puppetdb",
        version,
        header,
        _section(payload.resources, "resources"),
        _section(payload.edges, "edges"),
    )


def _header(catalog: _Catalog, certname: str, headers: Mapping[str, str], received_at: datetime) -> Header:
    certname = certname or headers.get("certname", "")
    if not certname:
        raise Rejected("invalid", "the catalog names no node: neither name, certname nor a certname header")

    def either(value: Scalar, name: str) -> str | None:
        return _text(value) if value is not None else headers.get(name) or None

    timestamp = either(catalog.producer_timestamp or catalog.producer_timestamp_dashed, "producer_timestamp")
    version = _text(catalog.version)
    return Header(
        certname=certname,
        producer_timestamp=(
            parse_time(timestamp, "producer_timestamp")
            if timestamp
            else _time_of(catalog.version, received_at)
        ),
        version="" if version is None else version,
        environment=either(catalog.environment, "environment"),
        producer=either(catalog.producer, "producer"),
        transaction_uuid=_uuid(
            either(catalog.transaction_uuid or catalog.transaction_uuid_dashed, "transaction_uuid"),
            "transaction_uuid",
        ),
        catalog_uuid=_uuid(_text(catalog.catalog_uuid), "catalog_uuid"),
        code_id=_text(catalog.code_id),
        job_id=either(catalog.job_id, "job_id"),
    )


def _time_of(version: Scalar, received_at: datetime) -> datetime:
    """A catalog without a timestamp is ordered by its version where that is a time, else by its receipt."""
    try:
        seconds = int(version) if isinstance(version, int | str) and not isinstance(version, bool) else -1
        if 0 < seconds < 1 << 33:  # until the year 2242
            return datetime.fromtimestamp(seconds, UTC)
    except ValueError:
        pass
    return received_at


def _uuid(text: str | None, name: str) -> str | None:
    if not text:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise Rejected("invalid", f"{name} is no UUID: {text[:60]!r}") from error


def _text(value: Scalar) -> str | None:
    return None if value is None else str(value)


def _integer(value: Scalar, default: int) -> int:
    try:
        return default if value is None else int(value)
    except (ValueError, OverflowError):
        return -1


def _section(raw: Raw | msgspec.UnsetType, name: str) -> bytes | memoryview:
    """A section's JSON array. Puppet up to 2.7 wrapped it into a string once more."""
    if raw is msgspec.UNSET:
        raise Rejected("invalid", f"no catalog: it has no {name}")
    data = memoryview(raw)
    if bytes(data[:1]) == b'"':
        return str(parse_json(data)).encode("utf-8", "surrogatepass")
    if bytes(data[:1]) != b"[":
        raise Rejected("invalid", f"{name} is no list")
    return data


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes | memoryview) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        require_shallow(body)  # what else is wrong with it depends on how deep the parser came
        raise _refused(error) from error


def _refused(error: Exception) -> Rejected:
    """What to say of a text that a parser refused."""
    if isinstance(error, msgspec.ValidationError):
        return Rejected("invalid", str(error))
    if isinstance(error, RecursionError):
        return Rejected("too_deep", "the JSON is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return Rejected("invalid", "the header is not UTF-8")
    return Rejected("unreadable", str(error))


def _with_plain_surrogates(body: bytes | memoryview | Raw) -> bytes:
    """The same JSON with lone surrogate escapes, which msgspec refuses, as the three bytes they would be."""

    def plain(match: re.Match[bytes]) -> bytes:
        return match[0] if match[1] is None else chr(int(match[1], 16)).encode("utf-8", "surrogatepass")

    return _ESCAPES.sub(plain, bytes(body))


def _text_of(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "surrogateescape")
    # Between bytes that are no UTF-8 the escapes of lone surrogates are still what they are.
    return _SURROGATE_BYTES.sub(lambda match: _surrogate_of(match[0]), text)


def _surrogate_of(escaped: str) -> str:
    return escaped.encode("utf-8", "surrogateescape").decode("utf-8", "surrogatepass")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Rejected("number_out_of_range", f"the number {text[:40]} does not fit a double")
    return number


def _no_constant(text: str) -> float:
    raise Rejected("unreadable", f"{text} is no JSON")
