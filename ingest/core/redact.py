"""Takes secrets out of a message that could not be stored, before it goes to quarantine.

A readable body is redacted exactly: parameters named in ``sensitive_parameters`` and rich values of type
Sensitive. Of an unreadable one nobody can tell what its strings are: it keeps its shape, not its values.
"""

from __future__ import annotations

import json
import re

from ingest.core.model import Json

REDACTED = "[redacted]"
# Bodies above this are kept as their first bytes only: a quarantine is for looking at.
KEPT_BYTES_MAX = 16 * 1024 * 1024

# Every string, so that a closing quote is never taken for an opening one; group 1 tells a key.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"(\s*:)?|"(?:[^"\\]|\\.)*\Z', re.DOTALL)
_NUMBER = re.compile(rb"(?<=[\[,:\s])-?\d[\d.eE+-]*")


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
        if isinstance(names, list) and isinstance(parameters, dict):
            hidden = {name for name in names if isinstance(name, str) and name in parameters}
            found += len(hidden)
            value = value | {"parameters": parameters | dict.fromkeys(hidden, REDACTED)}
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
    if isinstance(value, str) and '"sensitive_parameters"' in value:
        # Old bodies carry resources as JSON in a string.
        text, note = redact(value.encode("utf-8", "surrogatepass"))
        return text.decode("utf-8", "replace"), 1 if note else 0
    return value, 0


def _masked(body: bytes) -> bytes:
    without_strings = _STRING.sub(lambda match: match[0] if match[1] else b'"..."', body)
    return _NUMBER.sub(b"0", without_strings)


def _plain(body: bytes) -> bytes:
    """A body without any JSON string: printable only as far as it looks like a wrong format, not like data."""
    return body[:200]
