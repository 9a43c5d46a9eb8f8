"""``deactivate node`` in all three versions: a name in a string, a name in JSON in a string, an object with a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from ingest.core.delivery.decoding import DecoderSettings, KnownDigests
from ingest.core.delivery.envelope import Envelope, open_envelope
from ingest.core.delivery.work import Deactivate, Descriptor
from ingest.core.json_text import converted, parse_json
from ingest.core.plain_text import require_plain
from ingest.core.raw_text import bytes_of
from ingest.core.times import parse_time
from ingest.errors import Rejected

Scalar = str | int | float | None


class _Payload(msgspec.Struct):
    certname: Scalar = None
    producer_timestamp: Scalar = None
    producer_timestamp_dashed: Scalar = msgspec.field(default=None, name="producer-timestamp")


class DeactivationDecoder:
    """Remembers nothing."""

    def __init__(self, settings: DecoderSettings) -> None:
        pass  # it needs none of them

    def decode(self, descriptor: Descriptor, body: memoryview, known: KnownDigests) -> Iterator[Deactivate]:
        """One deactivation. Raises Rejected."""
        envelope = open_envelope(body, descriptor.headers, descriptor.arrived_at)
        payload = _read(envelope)
        certname = str(payload.certname or envelope.certname or "")
        if not certname:
            raise Rejected("invalid", f"'{envelope.command}' names no node")
        require_plain("certname", certname)
        yield Deactivate(
            descriptor.delivery,
            certname,
            _producer_timestamp(payload, envelope) or envelope.arrived_at,
            descriptor.received_at,
        )


def _read(envelope: Envelope) -> _Payload:
    document = parse_json(envelope.payload) if len(envelope.payload) else None
    if isinstance(document, str) and document.lstrip().startswith(("{", '"')):
        document = parse_json(bytes_of(document))
    if document is None:
        raise Rejected("invalid", f"'{envelope.command}' has no payload")
    if isinstance(document, str):
        return _Payload(certname=document)
    return converted(document, _Payload)


def _producer_timestamp(payload: _Payload, envelope: Envelope) -> datetime | None:
    for given in (
        payload.producer_timestamp,
        payload.producer_timestamp_dashed,
        envelope.headers.get("producer_timestamp"),
    ):
        if given is not None and given != "":
            return parse_time(given, "producer_timestamp")
    return None
