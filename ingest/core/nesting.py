"""How deeply a JSON text may be nested: a rule of our own, for where parsers give up differs from Python to Python.

CPython 3.11 refuses some 900 levels, 3.13 some ten thousand, 3.14 as many as the machine's stack has room for, and what
was refused as too deep by one is cut off or not refused at all by another. So it is counted: in each resource, in
what stands around the sections, and in whatever a parser did not understand.
"""

from __future__ import annotations

import re
from itertools import accumulate

import msgspec

from ingest.errors import Rejected

# Ruby's JSON writes and reads 100 levels unless told otherwise. Twice as many are some 400 calls of ours, of the 1000
# that Python allows by default.
DEPTH_MAX = 200

# A JSON text that is not longer is not deeper: every level has two brackets.
SHALLOW_BYTES = 2 * DEPTH_MAX

_OTHER_BYTES = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_AS_BRACES = bytes.maketrans(b"[]", b"{}")
_STRING = re.compile(rb'"[^"]*(?:"|\Z)')
_STEP = [1 if byte == ord("{") else -1 for byte in range(256)]


def require_shallow(text: bytes | memoryview | msgspec.Raw, braces: int | None = None) -> None:
    """Raises Rejected for a text that is nested too deeply, whether it is JSON or not. ``braces``: how many open in it, where
    somebody has counted them."""
    if not isinstance(text, bytes):
        text = bytes(text)
    if braces is None:
        braces = text.count(b"{")
    if braces + text.count(b"[") > DEPTH_MAX and _depth(_brackets(text)) > DEPTH_MAX:
        raise Rejected("too_deep", f"the JSON is nested more than {DEPTH_MAX} levels deep")


def _depth(left: bytes) -> int:
    """Of brackets alone; exact up to DEPTH_MAX, else only more than that."""
    peeled = 0
    # Most of a document lies in its outermost levels: seen from inside, a few are peeled off at the speed of memory.
    while peeled < 3 and left:
        if b"{" * (DEPTH_MAX + 1) in left:
            return DEPTH_MAX + 1
        left = left.replace(b"{}", b"")
        peeled += 1
    return max(accumulate(map(_STEP.__getitem__, left)), default=0) + peeled


def _brackets(text: bytes) -> bytes:
    """The text without its strings and all that is no bracket; each bracket a brace."""
    escapes = text.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in text else text
    quotes = escapes.translate(_AS_BRACES, _OTHER_BYTES)
    # Two quotes side by side are a string, or the end of one and the begin of the next: then the two become one, which
    # is as good.
    left = quotes.replace(b'""', b"")
    return _STRING.sub(b"", left) if b'"' in left else left
