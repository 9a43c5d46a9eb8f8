"""What the small commands about a node have in common: its name, and when they were made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ingest.core.delivery.envelope import Envelope
from ingest.core.json_text import parse_json
from ingest.core.plain_text import require_plain
from ingest.core.sensitive import conceal, may_hold_secrets
from ingest.core.times import parse_time
from ingest.errors import Rejected


def payload_of(envelope: Envelope) -> Mapping[str, Any]:
    """The payload's members, with underscores in their names. Raises Rejected."""
    raw = bytes(envelope.payload)
    document = parse_json(raw) if raw else None
    if may_hold_secrets(raw):
        document = conceal(document, raw)  # what is refused is quoted
    if not isinstance(document, dict):
        raise Rejected("invalid", f"the payload of '{envelope.command}' is not an object")
    return {key.replace("-", "_"): value for key, value in document.items()}


def certname_of(envelope: Envelope, payload: Mapping[str, Any]) -> str:
    """Raises Rejected when nobody is named."""
    certname = payload.get("certname") or envelope.certname
    if not isinstance(certname, str) or not certname:
        raise Rejected("invalid", f"'{envelope.command}' names no node")
    require_plain("certname", certname)
    return certname


def time_in(envelope: Envelope, payload: Mapping[str, Any]) -> datetime:
    """When it was made; where nobody says it, when it came."""
    for given in (payload.get("producer_timestamp"), envelope.headers.get("producer_timestamp")):
        if given is not None and given != "":
            return parse_time(given, "producer_timestamp")
    return envelope.arrived_at
