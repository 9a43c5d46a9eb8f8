"""Takes secrets out of a message that could not be stored, before it goes to quarantine.

A readable body is redacted exactly: parameters named in ``sensitive_parameters`` and rich values of type
Sensitive. Of an unreadable one nobody can tell what its strings are, nor where they end: it keeps its shape and the
names of members that every catalog has.
"""

from __future__ import annotations

import json
import re

from ingest.core.catalog.model import Json

REDACTED = "[redacted]"
# Bodies above this are kept as their first bytes only: a quarantine is for looking at.
KEPT_BYTES_MAX = 16 * 1024 * 1024

# A string, whole or cut off, or what stands outside of strings and is no punctuation.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\Z)|[^\s\[\]{}:,"]+', re.DOTALL)
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


def redact(body: bytes) -> tuple[bytes, str | None]:
    """(the body without secrets, what was done to it or None for nothing)."""
    note = []
    if len(body) > KEPT_BYTES_MAX:
        body = body[:KEPT_BYTES_MAX]
        note.append(f"cut to {KEPT_BYTES_MAX} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        masked = _masked(body) if b'"' in body else _plain(body)
        if masked != body:
            note.append("unreadable: values masked")
        return masked, "; ".join(note) or None
    try:
        clean, found = _clean(document)
    except RecursionError:
        return b"", "nested too deeply to redact: not kept"
    if not found:
        return body, "; ".join(note) or None
    note.append(f"{found} sensitive values redacted")
    return json.dumps(clean, ensure_ascii=False).encode("utf-8", "surrogatepass"), "; ".join(note)


def _clean(value: Json) -> tuple[Json, int]:
    """The value without secrets, and how many there were."""
    found = 0
    if isinstance(value, dict):
        if value.get("__ptype") == "Sensitive":
            return {"__ptype": "Sensitive", "__pvalue": REDACTED}, 1
        names = value.get("sensitive_parameters")
        parameters = value.get("parameters")
        if names and parameters:
            hidden, secrets = _hide(parameters, names)
            found += secrets
            value = value | {"parameters": hidden}
        result: dict[str, Json] = {}
        for key, item in value.items():
            result[key], more = _clean(item)
            found += more
        return result, found
    if isinstance(value, list):
        items = []
        for item in value:
            clean, more = _clean(item)
            items.append(clean)
            found += more
        return items, found
    if isinstance(value, str) and _may_hold_secrets(value):
        # Old bodies carry resources as JSON in a string.
        text, note = redact(value.encode("utf-8", "surrogatepass"))
        return text.decode("utf-8", "replace"), 1 if note else 0
    return value, 0


def _hide(parameters: Json, names: Json) -> tuple[Json, int]:
    """The parameters without those named, and how many there were."""
    if not isinstance(parameters, dict):
        return REDACTED, 1
    hidden = set(parameters)  # when nobody can tell which are meant
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        hidden &= set(names)
    return parameters | dict.fromkeys(hidden, REDACTED), len(hidden)


def _may_hold_secrets(text: str) -> bool:
    """Whether it may be a document itself, also one that holds another as a string."""
    return "sensitive_parameters" in text or "__ptype" in text


def _masked(body: bytes) -> bytes:
    return _TOKEN.sub(_mask, body)


def _mask(match: re.Match[bytes]) -> bytes:
    token = match[0]
    if token in _SHOWN:
        return token
    if token.startswith(b'"'):
        return b'"..."'
    return b"0" if _NUMBER.fullmatch(token) else b"..."


def _plain(body: bytes) -> bytes:
    """A body without any JSON string: printable only as far as it looks like a wrong format, not like data."""
    return body[:200]
