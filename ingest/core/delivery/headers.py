"""What goes on with a message of its headers: what producers may say of it, and its origin."""

from __future__ import annotations

from collections.abc import Mapping

from ingest.core.delivery.arrival import STAMP_HEADERS
from ingest.core.delivery.producers import PUBLISHER

KEPT = frozenset(
    ("certname", "producer", "producer_timestamp", "transaction_uuid", "environment", "job_id", "command",
     "version", "content-type", "message-id", "destination", "redelivered", *STAMP_HEADERS)
)  # fmt: skip
VALUE_BYTES_MAX = 1024  # a descriptor stays far below the pipe's size


def kept_headers(headers: Mapping[str, str], user_header: str | None) -> dict[str, str]:
    """What the decoder and the quarantine need; and who published, where the broker tells it in ``user_header``."""
    kept = {name: _cut(value) for name, value in headers.items() if name in KEPT}
    publisher = headers.get(user_header) if user_header is not None else None
    if publisher is not None:
        kept[PUBLISHER] = _cut(publisher)
    return kept


def unacknowledgeable(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The verdict on a message that the broker gave nothing to acknowledge it by."""
    if "ack" in headers or "message-id" in headers:
        return None
    return "unacknowledgeable", "the broker sent neither an ack nor a message-id header"


def _cut(value: str) -> str:
    """In bytes, not in characters: thirty-two descriptors of a hostile producer must fit into a decoder's pipe, or the
    receiver waits for the decoder that waits for the database, and sends no heart-beats. What was not UTF-8 is U+FFFD."""
    if len(value) <= VALUE_BYTES_MAX and value.isascii():  # most of them
        return value
    plain = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return plain.encode()[:VALUE_BYTES_MAX].decode(errors="ignore")
