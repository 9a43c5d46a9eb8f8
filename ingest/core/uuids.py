"""UUIDs as messages name them."""

from __future__ import annotations

import uuid

from ingest.errors import Rejected


def parse_uuid(text: str | None, name: str) -> str | None:
    """In its canonical form; ``name`` is whose it is. Raises Rejected."""
    if not text:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise Rejected("invalid", f"{name} is not a UUID: {text[:60]!r}") from error
