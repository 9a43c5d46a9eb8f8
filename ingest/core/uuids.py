"""UUIDs as messages name them."""

from __future__ import annotations

import re
import uuid

from ingest.errors import Rejected

_CANONICAL = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse_uuid(text: str | None, name: str) -> str | None:
    """In its canonical form; ``name`` is whose it is. Raises Rejected."""
    if not text:
        return None
    if _CANONICAL.fullmatch(text):
        return text  # as nearly everybody writes it
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise Rejected("invalid", f"{name} is not a UUID: {text[:60]!r}") from error
