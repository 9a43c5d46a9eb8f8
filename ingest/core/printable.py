"""Makes foreign text harmless in a line: nothing that breaks it, nothing that a terminal obeys."""

from __future__ import annotations


def escape_unprintable(text: str) -> str:
    """The text with escapes in place of line ends, control characters and lone surrogates."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
