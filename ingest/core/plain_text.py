"""Text that a column can hold as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ingest.errors import Rejected

CHARACTERS_MAX = 1024
UNSTORABLE = re.compile(
    "[\x00\ud800-\udfff]"
)  # PostgreSQL's text refuses U+0000 and, as UTF-8, lone surrogates


def are_plain(values: Iterable[str | None]) -> bool:
    """Whether none of them would be refused, nor all together; False: each must be asked for."""
    text = "".join(filter(None, values))
    return len(text) <= CHARACTERS_MAX and UNSTORABLE.search(text) is None


def require_plain(name: str, value: str | None) -> None:
    """Raises Rejected when a header's value cannot be a text column, or is absurdly long."""
    if value is None:
        return
    if UNSTORABLE.search(value):
        raise Rejected("invalid", f"{name} contains U+0000 or bytes that are not UTF-8")
    if len(value) > CHARACTERS_MAX:
        raise Rejected("invalid", f"{name} has {len(value)} characters, the limit is {CHARACTERS_MAX}")
