"""What PostgreSQL can hold, and what to do with the rest so that nothing is lost.

text refuses U+0000 and (as UTF-8) lone surrogates; jsonb also changes numbers: it keeps no exponent, so
1e+22 comes back as an integer. Such a value goes into the column in its nearest searchable form, and the
whole of it, exact, into a bytea beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from typing import NamedTuple

from ingest.core import pgcopy
from ingest.core.bounded_cache import BoundedCache
from ingest.core.catalog.model import Json, Resource
from ingest.core.catalog.wire import canonical_json
from ingest.core.delivery.work import DIGEST_BYTES, Content
from ingest.core.json_text import parse_json
from ingest.core.plain_text import UNSTORABLE
from ingest.errors import Rejected

# What Puppet calls kinds, as the letters that the column has.
KINDS = {"compilable_type": b"c", "defined_type": b"d", "unknown": b"u", "class": b"k", "node": b"n"}
_KIND_FIELDS: dict[str | None, bytes] = {kind: pgcopy.bytea(letter) for kind, letter in KINDS.items()}
_DIGEST_LENGTH = pgcopy.bytea(bytes(DIGEST_BYTES))[:-DIGEST_BYTES]  # what stands before a digest


class Position(NamedTuple):
    """Where a resource is declared."""

    digest: bytes
    fields: bytes  # COPY fields file, line, exact


TYPES_BYTES_MAX, POSITIONS_BYTES_MAX = 1024 * 1024, 16 * 1024 * 1024
# A fleet has some hundred types; its manifests have some ten thousand lines that declare something.
_type_fields: BoundedCache[str, bytes] = BoundedCache(
    TYPES_BYTES_MAX, lambda type_, field: 200 + sys.getsizeof(type_) + len(field), entry_bytes_max=4096
)
_positions: BoundedCache[tuple[str | None, int | None], Position] = BoundedCache(
    POSITIONS_BYTES_MAX,
    lambda place, found: 400 + sys.getsizeof(place[0]) + len(found.fields),
    entry_bytes_max=8192,
)


def encode_resource(resource: Resource, *, has_floats: bool = True) -> tuple[bytes, Content]:
    """(digest, content): a resource as encoded COPY fields, and the key by which equal ones are found.
    ``has_floats`` says whether any of its numbers may be one.

    The digest is SHA-256, cut to 160 bits, over everything but the position: nobody can find two contents with
    one digest, so a node cannot put its resource in another's place.
    """
    kind = resource.kind
    names = canonical_json(
        (resource.type, resource.title, resource.exported, kind, resource.tags, resource.extra)
    )
    parameters = canonical_json(resource.parameters)
    document = b"\n".join((names, parameters))
    digest = hashlib.sha256(document).digest()[:DIGEST_BYTES]
    exact = None
    type_, title = resource.type, resource.title
    # Of all escapes only those of control characters and lone surrogates are written as \u.
    has_escapes = document.find(b"\\") >= 0 and document.find(b"\\u") >= 0
    if (has_floats or has_escapes) and _SUSPECT.search(document):
        type_, title = nearest_text(type_), nearest_text(title)
        if not _holds_plain(resource.parameters):
            parameters = canonical_json(nearest(resource.parameters))
            exact = _whole(resource)
    if (
        resource.extra
        or (kind is not None and kind not in KINDS)
        or title is not resource.title
        or type_ is not resource.type
    ):
        exact = _whole(resource)
    head = b"".join(
        (
            _DIGEST_LENGTH,
            digest,
            pgcopy.TRUE if resource.exported else pgcopy.FALSE,
            _type_fields.get(type_) or _new_type_field(type_),
            pgcopy.text(title),
            _KIND_FIELDS.get(kind, pgcopy.NULL),
        )
    )
    tail = pgcopy.jsonb(parameters) + (pgcopy.NULL if exact is None else pgcopy.bytea(exact))
    return digest, Content(head, "\n".join(resource.tags), tail)


def parameters_in(content: Content) -> dict[str, Json]:
    """The parameters of an encoded resource, as they were."""
    tail = content.tail
    end = 4 + int.from_bytes(tail[:4], "big")
    if tail[end:] == pgcopy.NULL:
        return dict(parse_json(tail[5:end]))
    # Not parse_json, which takes half a pair of surrogates for the bytes that somebody meant: here they are as they were read.
    return dict(json.loads(tail[end + 4 :])["parameters"])


def _new_type_field(type_: str) -> bytes:
    field = pgcopy.text(type_)
    _type_fields.put(type_, field)
    return field


def encode_position(file: str | None, line: int | None) -> Position:
    """A position, encoded. Raises Rejected."""
    place = (file, line)
    return _positions.get(place) or _new_position(place)


def _new_position(place: tuple[str | None, int | None]) -> Position:
    file, line = place
    exact = None
    if file is not None and UNSTORABLE.search(file):
        exact = file.encode("utf-8", "surrogatepass")
        file = nearest_text(file)
    if line is not None and not 0 <= line < 1 << 63:
        raise Rejected("invalid", "a resource's line is not a number that a file can have")
    fields = b"".join((pgcopy.text(file), pgcopy.int8(line), pgcopy.bytea(exact)))
    position = Position(hashlib.sha256(fields).digest()[:DIGEST_BYTES], fields)
    _positions.put(place, position)
    return position


def nearest_text(text: str) -> str:
    """The text with U+FFFD for what PostgreSQL cannot hold."""
    return UNSTORABLE.sub("\ufffd", text) if UNSTORABLE.search(text) else text


def nearest(value: Json) -> Json:
    """The JSON value with each string in its nearest form."""
    if isinstance(value, str):
        return nearest_text(value)
    if isinstance(value, list):
        return [nearest(item) for item in value]
    if isinstance(value, dict):
        # Sorted: where two keys have one nearest form, which of them stays is the same for equal values.
        return {nearest_text(key): nearest(value[key]) for key in sorted(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _whole(resource: Resource) -> bytes:
    """Everything of the resource but its position, as JSON."""
    return canonical_json(
        {
            "type": resource.type,
            "title": resource.title,
            "exported": resource.exported,
            "kind": resource.kind,
            "tags": list(resource.tags),
            "parameters": resource.parameters,
            "extra": resource.extra,
        }
    )


# Anything that looks like an exponent, a negative zero or an escape that PostgreSQL refuses. Searching the
# document is quick; only where this finds something are the values themselves looked at.
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|\d[eE][+-]?\d|-0\.0")


def _holds_plain(value: Json) -> bool:
    if isinstance(value, str):
        return UNSTORABLE.search(value) is None
    if isinstance(value, float):
        # jsonb prints a float with a positive exponent as an integer, and knows no negative zero.
        return (
            math.isfinite(value) and not (value.is_integer() and "e" in repr(value)) and repr(value) != "-0.0"
        )
    if isinstance(value, list):
        return all(map(_holds_plain, value))
    if isinstance(value, dict):
        return all(UNSTORABLE.search(key) is None and _holds_plain(item) for key, item in value.items())
    return True
