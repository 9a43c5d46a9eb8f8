"""Makes foreign text harmless: nothing that breaks a line, nothing that a terminal obeys or shows as something else.

What Unicode calls not printable is escaped: control characters (C0, DEL, C1), bidirectional overrides, zero-width
characters, line and paragraph separators, lone surrogates, private and unassigned ones. Whoever writes to a terminal
sends foreign text through one of these functions, and nothing else escapes.
"""

from __future__ import annotations

import re

_NOT_ASCII = re.compile(r"[^\x20-\x7e\n]")


def escape_unprintable(text: str) -> str:
    """The text in one line, with escapes as in Python in place of what is not printable."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def escape_lines(text: str) -> str:
    """The same for a text of several lines, whose ends stay."""
    return "\n".join(map(escape_unprintable, text.split("\n")))


def escape_json(document: bytes) -> bytes:
    """The same JSON value, escaped as JSON escapes: for what is printed, whoever reads it."""
    text = document.decode("utf-8")
    if text.isprintable():
        return document
    # Outside of strings JSON has nothing but ASCII, and inside no line ends.
    return _NOT_ASCII.sub(_escaped_for_json, text).encode("utf-8")


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def _escaped_for_json(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    utf16 = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{utf16[at : at + 2].hex()}" for at in range(0, len(utf16), 2))
