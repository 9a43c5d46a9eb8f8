"""``configure expiration``: whether a node may expire at all.

Source: PuppetDB, "Configure expiration wire format", version 1: ``{"certname", "expire": {"facts": bool},
"producer_timestamp"}``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar

import msgspec

from ingest.core.delivery.decoding import DecoderSettings, KnownDigests
from ingest.core.delivery.envelope import open_envelope
from ingest.core.delivery.work import Descriptor
from ingest.core.node.payload import certname_of, payload_of, time_in
from ingest.errors import Rejected


class ConfigureExpiration(msgspec.Struct, array_like=True, frozen=True, tag="expiration"):
    is_early: ClassVar[bool] = False

    delivery: int
    certname: str
    producer_timestamp: datetime
    received_at: datetime
    expires: bool


EXPIRATION_WORKS = (ConfigureExpiration,)


class ExpirationDecoder:
    """Remembers nothing."""

    def __init__(self, settings: DecoderSettings) -> None:
        pass  # it needs none of them

    def decode(
        self, descriptor: Descriptor, body: memoryview, known: KnownDigests
    ) -> Iterator[ConfigureExpiration]:
        envelope = open_envelope(body, descriptor.headers, descriptor.arrived_at)
        payload = payload_of(envelope)
        expire = payload.get("expire")
        expires = expire.get("facts") if isinstance(expire, dict) else None
        if not isinstance(expires, bool):
            raise Rejected("invalid", "'configure expiration' says neither true nor false in `expire.facts`")
        yield ConfigureExpiration(
            descriptor.delivery,
            certname_of(envelope, payload),
            time_in(envelope, payload),
            descriptor.received_at,
            expires,
        )
