"""``replace catalog inputs``: what a catalog was made from, such as the Hiera keys that were looked up.

Source: PuppetDB, "Catalog inputs wire format", version 1: ``{"certname", "producer_timestamp", "catalog_uuid", "inputs":
[[type, name], ...]}``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from ingest.core.delivery.decoding import DecoderSettings, KnownDigests
from ingest.core.delivery.envelope import open_envelope
from ingest.core.delivery.work import DIGEST_BYTES, Descriptor
from ingest.core.node.payload import certname_of, payload_of, time_in
from ingest.core.plain_text import UNSTORABLE
from ingest.core.uuids import parse_uuid
from ingest.errors import Rejected


class ReplaceInputs(msgspec.Struct, array_like=True, frozen=True, tag="inputs"):
    is_early: ClassVar[bool] = False

    delivery: int
    certname: str
    producer_timestamp: datetime
    received_at: datetime
    catalog_uuid: str | None
    digest: bytes  # of the inputs
    types: tuple[str, ...]
    names: tuple[str, ...]


INPUTS_WORKS = (ReplaceInputs,)


class InputsDecoder:
    """Remembers nothing."""

    def __init__(self, settings: DecoderSettings) -> None:
        pass  # it needs none of them

    def decode(
        self, descriptor: Descriptor, body: memoryview, known: KnownDigests
    ) -> Iterator[ReplaceInputs]:
        envelope = open_envelope(body, descriptor.headers, descriptor.arrived_at)
        payload = payload_of(envelope)
        pairs = sorted(set(_pairs(payload.get("inputs"))))
        text = msgspec.json.encode(pairs)
        given = payload.get("catalog_uuid")
        yield ReplaceInputs(
            descriptor.delivery,
            certname_of(envelope, payload),
            time_in(envelope, payload),
            descriptor.received_at,
            parse_uuid(str(given) if given else None, "catalog_uuid"),
            hashlib.sha256(text).digest()[:DIGEST_BYTES],
            tuple(type_ for type_, _ in pairs),
            tuple(name for _, name in pairs),
        )


def _pairs(inputs: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(inputs, list):
        raise Rejected("invalid", "`inputs` is not a list")
    for pair in inputs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise Rejected("invalid", f"an input is not a type and a name: {str(pair)[:60]}")
        yield UNSTORABLE.sub("\ufffd", pair[0]), UNSTORABLE.sub("\ufffd", pair[1])
