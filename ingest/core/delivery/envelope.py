"""Which command a message is, and where its payload lies: PuppetDB's envelope, in the body or in the message's headers.

Catalogs are told apart by their content as well, and most of them without a parse: ``core.catalog.recognise``. Every other
kind begins here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import msgspec

from ingest.core.delivery.commands import Scalar, plain_name, version_number
from ingest.core.json_text import parse_json
from ingest.core.raw_text import bytes_of, plain_surrogates
from ingest.errors import Rejected


class Envelope(NamedTuple):
    command: str  # PuppetDB's name of it, with spaces
    version: int  # -1: it is not a number
    certname: str | None  # as the envelope or the headers have it; the payload has its own
    payload: bytes | memoryview  # JSON; empty: there is none
    arrived_at: datetime  # the time of what names none
    headers: Mapping[str, str]


class _Envelope(msgspec.Struct):
    command: Scalar = None
    version: Scalar = None
    certname: Scalar = None
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_envelope = msgspec.json.Decoder(_Envelope)


def open_envelope(body: bytes | memoryview, headers: Mapping[str, str], arrived_at: datetime) -> Envelope:
    """Raises Rejected when it is no command at all. Whether its kind and version are understood is not asked here."""
    found = _read(body, headers)
    return Envelope(
        plain_name(str(found.command)),
        version_number(found.version),
        str(found.certname or headers.get("certname") or "") or None,
        _unwrapped(memoryview(b"" if found.payload is msgspec.UNSET else found.payload)),
        arrived_at,
        headers,
    )


def read_command(body: bytes | memoryview, headers: Mapping[str, str]) -> tuple[str, Scalar]:
    """Its name and its version as given; the payload is passed over. Raises Rejected when it is no command at all."""
    found = _read(body, headers)
    return plain_name(str(found.command)), found.version


def _read(body: bytes | memoryview, headers: Mapping[str, str]) -> _Envelope:
    found = _Envelope() if headers.get("command") and bytes(body[:1]) == b'"' else _decode(body)
    if found.command:
        return found
    if not headers.get("command"):
        raise Rejected("invalid", "neither the body nor the headers name a command")
    return _Envelope(headers["command"], headers.get("version"), None, msgspec.Raw(body))


def _decode(body: bytes | memoryview) -> _Envelope:
    try:
        return _envelope.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return _envelope.decode(plain_surrogates(body))
    except RecursionError as error:
        raise Rejected("too_deep", "the JSON is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise Rejected("invalid", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Rejected("unreadable", str(error)) from error


def _unwrapped(payload: memoryview) -> bytes | memoryview:
    """Commands of old had their payload as JSON in a string."""
    if bytes(payload[:1]) != b'"':
        return payload
    text = bytes_of(str(parse_json(payload)))
    # `deactivate node` 1: a JSON string in a string, or a bare name in one.
    return text if text[:1] in (b"{", b'"') else bytes(payload)
