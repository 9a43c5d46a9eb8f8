"""Tells what a message is by its content alone, and finds its sections without parsing them.

Three families: the legacy queue body of Puppet 0.25 - 3.8, the native catalog of Puppet 4 - 8, and PuppetDB
commands. One pass of msgspec over the whole body finds the header and leaves ``resources`` and ``edges`` as the
bytes they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from ingest.core.catalog.model import Header
from ingest.core.delivery.commands import PUPPETDB, plain_name, refusal, require_version
from ingest.core.json_text import parse_json
from ingest.core.nesting import require_shallow
from ingest.core.raw_text import bytes_of, plain_surrogates
from ingest.core.times import parse_time
from ingest.core.uuids import parse_uuid
from ingest.errors import Rejected

Raw = msgspec.Raw
Scalar = str | int | float | None


class Skim(msgspec.Struct, frozen=True):
    """A catalog of which only the header is parsed."""

    family: str  # "legacy" | "native" | "puppetdb"
    version: int  # catalog_format, or the command's version
    header: Header
    resources: bytes | memoryview  # the JSON array as it lies in the body
    edges: bytes | memoryview

    @property
    def certname(self) -> str:
        return self.header.certname


class Command(msgspec.Struct, frozen=True):
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


class _Wrapped(_Catalog, kw_only=True):
    """The same, with what may be a document in a string left as it is."""

    document_type: Scalar = None
    data: Raw | msgspec.UnsetType = msgspec.UNSET
    command: Scalar = None
    payload: Raw | msgspec.UnsetType = msgspec.UNSET


_message = msgspec.json.Decoder(_Message)
_wrapped = msgspec.json.Decoder(_Wrapped)
_catalog = msgspec.json.Decoder(_Catalog)
_slices = msgspec.json.Decoder(list[Raw])


def skim(body: bytes | memoryview, headers: Mapping[str, str], arrived_at: datetime) -> Skim | Command:
    """Finds the header and the sections; ``arrived_at`` counts where the producer says nothing of the time. Raises Rejected
    when the message cannot be one that we store."""
    if not len(body):
        raise Rejected("unreadable", "the body is empty")
    try:
        message = _message.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = _read_slowly(plain_surrogates(body))
    command = message.command or headers.get("command")
    if command is not None:
        return _command(str(command), message, headers, arrived_at)
    catalog = message.data if isinstance(message.data, _Catalog) else message
    if isinstance(message.data, str):
        catalog = _decode(_catalog, plain_surrogates(bytes_of(message.data)))
    resources = _section(catalog.resources, "resources")
    edges = _section(catalog.edges, "edges")
    # A bare catalog of an old Puppet goes the same way as a native one.
    family = "legacy" if message.data is not None else "native"
    if catalog.certname and not catalog.name:
        # A bare payload whose command and version are in nobody's header.
        return _payload(catalog, 9, None, headers, arrived_at)
    header = _header(catalog, str(catalog.name or ""), headers, arrived_at)
    return Skim(family, _integer(catalog.catalog_format, 0), header, resources, edges)


def _read_slowly(body: bytes) -> _Message:
    """A body that msgspec does not take at once. Bytes that are not UTF-8 are welcome in what lies in a string."""
    try:
        message: _Message = _decode(_message, body)
        return message
    except Rejected as rejected:
        refusal = rejected
    wrapped: _Wrapped = _decode(_wrapped, body)
    members: dict[str, Any] = {name: getattr(wrapped, name) for name in _Wrapped.__struct_fields__}
    strings = {
        name: str(parse_json(raw))
        for name in ("data", "payload")
        if (raw := members.pop(name)) is not msgspec.UNSET and bytes(memoryview(raw)[:1]) == b'"'
    }
    if not strings:
        raise refusal
    return _Message(**(members | strings))


def slices(section: bytes | memoryview) -> list[Raw]:
    """The JSON of each element. Raises Rejected when the section is no JSON array."""
    try:
        return _slices.decode(section)
    except (msgspec.DecodeError, RecursionError):
        # A section that was a string may have lone surrogates, which elsewhere ``skim`` has dealt with.
        found: list[Raw] = _decode(_slices, plain_surrogates(section))
        return found


def _command(
    command: str, message: _Message, headers: Mapping[str, str], arrived_at: datetime
) -> Skim | Command:
    name = plain_name(command)
    in_body = message.command is not None
    given = message.version if in_body else headers.get("version")
    if name not in PUPPETDB:
        raise refusal(name, given)
    version = require_version(name, given, PUPPETDB[name])
    payload = message.payload if in_body else message
    if isinstance(payload, str):
        if name == "deactivate node" and not payload.lstrip().startswith(("{", '"')):
            payload = _Catalog(certname=payload)
        elif payload.lstrip().startswith('"'):
            payload = _Catalog(certname=str(parse_json(bytes_of(payload))))
        else:
            payload = _decode(_catalog, plain_surrogates(bytes_of(payload)))
    if payload is None:
        raise Rejected("invalid", f"'{name}' has no payload")
    certname = (message.certname if in_body else None) or headers.get("certname")
    if name == "replace catalog":
        return _payload(payload, version, certname, headers, arrived_at)
    return Command(
        name,
        version,
        str(payload.certname or certname or "") or None,
        _producer_timestamp(payload, headers) or arrived_at,
    )


def _payload(
    payload: _Catalog, version: int, certname: Scalar, headers: Mapping[str, str], arrived_at: datetime
) -> Skim:
    """``replace catalog`` of any version as version 9."""
    name = str(payload.certname or payload.name or certname or "")
    header = _header(payload, name, headers, arrived_at)
    if version < 8 and header.catalog_uuid is None:
        header = msgspec.structs.replace(header, catalog_uuid=header.transaction_uuid)
    return Skim(
        "puppetdb",
        version,
        header,
        _section(payload.resources, "resources"),
        _section(payload.edges, "edges"),
    )


def _header(catalog: _Catalog, certname: str, headers: Mapping[str, str], arrived_at: datetime) -> Header:
    certname = certname or headers.get("certname", "")
    if not certname:
        raise Rejected("invalid", "the catalog names no node: neither name, certname nor a certname header")

    def either(value: Scalar, name: str) -> str | None:
        return _text(value) if value is not None else headers.get(name) or None

    version = _text(catalog.version)
    return Header(
        certname=certname,
        producer_timestamp=_producer_timestamp(catalog, headers) or arrived_at,
        version="" if version is None else version,
        environment=either(catalog.environment, "environment"),
        producer=either(catalog.producer, "producer"),
        transaction_uuid=parse_uuid(
            either(catalog.transaction_uuid or catalog.transaction_uuid_dashed, "transaction_uuid"),
            "transaction_uuid",
        ),
        catalog_uuid=parse_uuid(_text(catalog.catalog_uuid), "catalog_uuid"),
        code_id=_text(catalog.code_id),
        job_id=either(catalog.job_id, "job_id"),
    )


def _producer_timestamp(catalog: _Catalog, headers: Mapping[str, str]) -> datetime | None:
    """What the producer says, in the body or else in the message's headers. Its version is no time: Puppet takes that when
    it parses the manifests, each of its processes for itself, and goes on with it for as long as they do not change."""
    for given in (
        catalog.producer_timestamp,
        catalog.producer_timestamp_dashed,
        headers.get("producer_timestamp"),
    ):
        if given is not None and given != "":
            return parse_time(given, "producer_timestamp")
    return None


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
        raise Rejected("invalid", f"not a catalog: it has no {name}")
    data = memoryview(raw)
    if bytes(data[:1]) == b'"':
        return bytes_of(str(parse_json(data)))
    if bytes(data[:1]) != b"[":
        raise Rejected("invalid", f"`{name}` is not a list")
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
