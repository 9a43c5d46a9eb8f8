"""Whose a message is, told by a look at its two ends: for one that nobody can or shall read whole.

Only what stands where a catalog or a command has it counts, and only text that is what it seems: a name that cannot be
told is none. What the body says goes before the message's headers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

NAME_BYTES_MAX = 1024  # PostgreSQL's index entries have 2704 at most

_INSIDE = rb'(?:[^"\\\x00-\x1f]++|\\.)*+'
_STRING = b'"' + _INSIDE + b'"'
# Each byte is looked at once, whatever it is: a string that does not end is not looked for again behind its beginning.
_TOKEN = re.compile(rb"(%s)|([\[\]{}:,])|(\"%s|[^\s\[\]{}:,\"]++)|\s++" % (_STRING, _INSIDE), re.DOTALL)
_SCALARS = rb"(?:\s*,\s*%s\s*:\s*(?:%s|[\w.+-]+))*" % (_STRING, _STRING)
# The last member, or one with nothing but scalars behind it: no resource's parameters end like that.
_AT_END = re.compile(rb'[\]}"\d]\s*,\s*"(certname)"\s*:\s*(%s)%s\s*\}\s*\}?\s*\Z' % (_STRING, _SCALARS))
_WANTED = frozenset(("certname", "name", "producer", "command"))
_ENVELOPES = frozenset(("payload", "data"))


class Named(NamedTuple):
    """None: not told."""

    certname: str | None
    producer: str | None
    command: str | None


def look(headers: Mapping[str, str], start: bytes, end: bytes) -> Named:
    """``start`` and ``end`` are the body's first START_BYTES and its last END_BYTES (``routing.py``), or less."""
    found: dict[tuple[str, str], str] = {}
    for envelope, name, raw in _members(start):
        if (text := _text(raw)) is not None:
            found.setdefault((envelope, name), text)
    at_end = None if any(name == "certname" for _, name in found) else _AT_END.search(end)
    if at_end and (text := _text(at_end[2])) is not None:
        found["", "certname"] = text

    def first(*places: tuple[str, str]) -> str | None:
        return next((found[place] for place in places if place in found), None)

    return Named(
        certname=first(
            ("payload", "certname"), ("data", "name"), ("data", "certname"), ("", "certname"), ("", "name")
        )
        or _plain(headers.get("certname")),
        producer=first(("payload", "producer"), ("data", "producer"), ("", "producer"))
        or _plain(headers.get("producer")),
        command=first(("", "command")) or _plain(headers.get("command")),
    )


def _members(start: bytes) -> Iterator[tuple[str, str, bytes]]:
    """(the envelope it stands in or "", its name, its string as JSON) of the wanted members, in their order."""
    keys: list[str | None] = []  # of each open object or list: under which name it lies; None in a list
    name: str | None = None  # of the member whose value is due
    last: bytes | None = None
    for match in _TOKEN.finditer(start):
        string, mark = match[1], match[2]
        if string is not None:
            if name is not None and name in _WANTED and (envelope := _envelope(keys)) is not None:
                yield envelope, name, string
            last, name = string, None
        elif mark == b":":
            name = _text(last) if last is not None else None
        elif mark in (b"{", b"["):
            keys.append(name if mark == b"{" and len(keys) else "" if mark == b"{" else None)
            name = last = None
        elif mark in (b"}", b"]"):
            if not keys:
                return
            keys.pop()
            name = last = None
        elif match[3] is not None:
            name = last = None


def _envelope(keys: list[str | None]) -> str | None:
    """Where the member stands: "" at the top, or in an envelope there; None anywhere else."""
    if len(keys) == 1:
        return keys[0]
    return keys[1] if len(keys) == 2 and keys[1] in _ENVELOPES else None


def _text(raw: bytes) -> str | None:
    if len(raw) > NAME_BYTES_MAX:
        return None
    try:
        return _plain(json.loads(raw))
    except ValueError:
        return None


def _plain(text: object) -> str | None:
    """Text that can stand in a column as it is."""
    if not isinstance(text, str) or not text or "\0" in text or "\ufffd" in text:
        return None
    try:
        return text if len(text.encode()) <= NAME_BYTES_MAX else None
    except UnicodeEncodeError:
        return None
