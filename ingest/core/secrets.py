"""Takes secrets out of a message that could not be stored, before it goes to quarantine.

A readable body is redacted exactly. Of an unreadable one nobody can tell what its strings are, nor where they end: of
that its shape is kept and the names of members that every catalog has; and of what would take too much memory to look at
the same, of its beginning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

from ingest.core.deferred import TYPE_KEYS
from ingest.core.passwords import hide_passwords
from ingest.core.raw_text import bytes_of, text_of
from ingest.core.sensitive import Concealing, may_hold_secrets, parse

REDACTED = "[redacted]"
# Larger bodies are not kept: a quarantine is for looking at, and the largest real catalog seen has 3.3 MB.
KEPT_BYTES_MAX = 8 * 1024 * 1024
# Of what is unreadable: enough to see what it is. To mask 16 MB took a writer 9 s.
MASKED_BYTES_MAX = 64 * 1024
# What reading a body and writing it again may take.
LOOKED_AT_BYTES_MAX = 64 * 1024 * 1024


def redact(body: bytes | memoryview) -> tuple[bytes | None, str | None]:
    """(the body without secrets, or None when it cannot be kept; what was done to it, or None for nothing)."""
    if len(body) > KEPT_BYTES_MAX:
        return None, f"larger than {KEPT_BYTES_MAX} bytes: not kept"
    data = bytes(body)
    is_suspect = may_hold_secrets(data)
    if not is_suspect and _is_json(data):
        return data, None
    if _memory_bytes(data) > LOOKED_AT_BYTES_MAX:
        return _shape(data, "too much in it to look at")
    try:
        document, had_twins = parse(data)
        walk = Concealing({TYPE_KEYS[0]: "Sensitive", "__pvalue": REDACTED}, REDACTED, _masked_text)
        clean = walk.value(document)
    except (ValueError, RecursionError):
        return _shape(data, "unreadable")
    notes = []
    if walk.found:
        notes.append(f"{walk.found} sensitive values redacted")
    if had_twins:
        notes.append("members that stood twice dropped")
    if not notes:
        return data, None
    return bytes_of(json.dumps(clean, ensure_ascii=False)), "; ".join(notes)


def redact_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without what they call secret, and without passwords."""
    return {name: hide_passwords(_header(value)) for name, value in headers.items()}


def _header(value: str) -> str:
    if not may_hold_secrets(value):
        return value
    kept, note = redact(bytes_of(value))
    return value if note is None else text_of(kept or b"")


def _is_json(body: bytes) -> bool:
    """Whether all of it is one JSON value; a look that takes no memory. False for some that is, with lone surrogates."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _memory_bytes(body: bytes) -> int:
    """About what it takes to read that body and to write it again: objects, lists, strings, numbers, and texts."""
    return (
        240 * body.count(b"{") + 90 * body.count(b"[") + 30 * body.count(b'"') + 40 * body.count(b",")
        + 8 * len(body)
    )  # fmt: skip


# A string, whole or cut off, or what stands outside of strings and is no punctuation.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[^\s\[\]{}:,"]++', re.DOTALL)
_NUMBER = re.compile(rb"-?\d[\d.eE+-]*")
# By name: after a stray quote strings and what is between them have changed places.
_SHOWN = frozenset(
    (
        b"true", b"false", b"null", b'"aliases"', b'"certname"', b'"catalog_format"', b'"catalog_uuid"', b'"classes"',
        b'"code_id"', b'"command"', b'"data"', b'"document_type"', b'"edges"', b'"environment"', b'"exported"',
        b'"file"', b'"job_id"', b'"kind"', b'"line"', b'"metadata"', b'"name"', b'"parameters"', b'"payload"',
        b'"producer"', b'"producer_timestamp"', b'"relationship"', b'"resources"', b'"sensitive_parameters"',
        b'"source"', b'"tags"', b'"target"', b'"title"', b'"transaction_uuid"', b'"type"', b'"version"', b'"virtual"',
    )
)  # fmt: skip


def _shape(body: bytes, why: str) -> tuple[bytes, str | None]:
    masked = _masked(body[:MASKED_BYTES_MAX])
    notes = [f"{why}: values masked"] if masked != body else []
    if len(body) > MASKED_BYTES_MAX:
        notes.append(f"the first {MASKED_BYTES_MAX} of {len(body)} bytes")
    return masked, ", ".join(notes) or None


def _masked_text(text: str) -> str:
    return text_of(_masked(bytes_of(text)))


def _masked(body: bytes) -> bytes:
    return _TOKEN.sub(_mask, body)


def _mask(match: re.Match[bytes]) -> bytes:
    token = match[0]
    if token in _SHOWN:
        return token
    if token.startswith(b'"'):
        return b'"..."'
    return b"0" if _NUMBER.fullmatch(token) else b"..."
