"""A fact's value as a template and its leaves: what nodes share, and what changes from run to run.

A template is the canonical JSON of a value with U+0001 in the place of each leaf, and leaves are the JSON of each, with
U+0001 between them. Canonical JSON writes control characters as escapes, so neither ever has one of its own. An empty
hash or array is part of the template.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import msgspec

from ingest.core.catalog.model import Json

LEAF = "\x01"
_encode = msgspec.json.Encoder(order="sorted").encode
# Structure and keys, then a leaf; or the structure that ends the text.
_PIECE = re.compile(
    r'((?:[\[\]{},]|"(?:[^"\\]++|\\.)*+":)*+)("(?:[^"\\]++|\\.)*+"|[^\[\]{},:"]++)?', re.DOTALL
)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Split(NamedTuple):
    """One value."""

    template: str
    leaves: str  # "": it has none


def canonical_text(value: Json) -> str:
    """JSON with sorted keys and no spaces; of escapes only those of control characters and of lone surrogates."""
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # json.dumps leaves DEL as it is, as msgspec does.
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def split(value: Json) -> Split:
    text = canonical_text(value)
    if text[:1] not in ("{", "["):
        return Split(LEAF, text)
    pieces, leaves = [], []
    for piece, leaf in _PIECE.findall(text):
        pieces.append(piece)
        if not leaf:
            break
        leaves.append(leaf)
    return Split(LEAF.join(pieces), LEAF.join(leaves))


def join(template: str, leaves: str) -> str:
    """The canonical JSON that was split."""
    if not leaves:
        return template
    text = [""] * (2 * leaves.count(LEAF) + 3)
    text[0::2] = template.split(LEAF)
    text[1::2] = leaves.split(LEAF)
    return "".join(text)


def count_leaves(leaves: str) -> int:
    return leaves.count(LEAF) + 1 if leaves else 0
