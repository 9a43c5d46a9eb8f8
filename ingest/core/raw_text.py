"""Text that need not be UTF-8, as strings from which the very bytes come back.

One rule: a JSON string is the bytes that it stands for, raw ones as they are, escapes as UTF-8, and the escape of a lone
surrogate as the three bytes it would have there. Bytes that are not UTF-8 are lone surrogates U+DC80 to U+DCFF
(PEP 383), and no others occur: two byte strings never share a text, and no two halves ever make a pair by chance.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

_ANY = re.compile(rb"\\u[dD][89a-fA-F]")
# Escapes of surrogates in a row. The backslashes before them are in pairs, or the first of these would be one of a pair.
_SURROGATES = re.compile(rb"(?<!\\)(?:\\\\)*+((?:\\u[dD][89a-fA-F][0-9a-fA-F]{2})++)")


def text_of(data: bytes) -> str:
    """The text of any bytes; ``bytes_of`` gives them back."""
    return data.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """The bytes of a text that ``text_of`` made; of others, whatever surrogates they have as three bytes each."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def plain_surrogates(body: bytes | memoryview | msgspec.Raw) -> bytes:
    """The same JSON with lone surrogate escapes, which msgspec refuses, as the three bytes they stand for."""
    data = bytes(body)
    if not _ANY.search(data):
        return data
    plain = bytearray()
    copied = 0
    for match in _SURROGATES.finditer(data):
        begin, end = match.span(1)
        plain += data[copied:begin]
        run = match[1]
        plain += _known(run) if len(run) <= _KNOWN_BYTES_MAX else _characters(run)
        copied = end
    plain += data[copied:]
    return bytes(plain)


def _characters(run: bytes) -> bytes:
    """Two halves that follow each other are a character: UTF-16 puts them together."""
    halves = run.decode("unicode_escape").encode("utf-16-le", "surrogatepass")
    return halves.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


# Of millions in one text, the same few: each costs a quarter of what it would.
_KNOWN_BYTES_MAX = 12
_known = lru_cache(4096)(_characters)
