"""Rows in PostgreSQL's binary COPY format, made where the values are at hand.

Source: PostgreSQL documentation, "COPY", section "Binary Format". A field is its length (int32) and its
bytes; NULL is the length -1. Field encodings are those of each type's binary send/receive functions.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from functools import lru_cache

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
NULL = struct.pack(">i", -1)
TRUE = struct.pack(">i?", 1, True)
FALSE = struct.pack(">i?", 1, False)
_ZERO = struct.pack(">id", 8, 0.0)

_length = struct.Struct(">i")
_int4 = struct.Struct(">ii")
_int8 = struct.Struct(">iq")
_count = struct.Struct(">h")
# dimensions, has-null flag, element type, size, lower bound: the header of a one-dimensional array.
_array_header = struct.Struct(">iiiii")
# Of pg_type.dat.
BOOL_OID, BYTEA_OID, INT8_OID, INT2_OID, INT4_OID, TEXT_OID, FLOAT8_OID = 16, 17, 20, 21, 23, 25, 701
TIMESTAMPTZ_OID, UUID_OID, JSONB_OID, CHAR_OID = 1184, 2950, 3802, 18
INT2_ARRAY_OID, INT4_ARRAY_OID, TEXT_ARRAY_OID = 1005, 1007, 1009
ELEMENT_OIDS = {INT2_ARRAY_OID: INT2_OID, INT4_ARRAY_OID: INT4_OID, TEXT_ARRAY_OID: TEXT_OID}
_SIZE_AT, _ELEMENTS_AT = 16, 24  # in a field of such an array
_BLOCK = 256  # values
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def row(*fields: bytes) -> bytes:
    """One row of encoded fields."""
    return _count.pack(len(fields)) + b"".join(fields)


def count(fields: int) -> bytes:
    """What stands before the fields of a row that is put together elsewhere."""
    return _count.pack(fields)


def fields_of(row: bytes) -> list[bytes]:
    """The encoded fields of a row, each with its length in front."""
    (fields,) = _count.unpack_from(row)
    found: list[bytes] = []
    at = _count.size
    for _ in range(fields):
        (length,) = _length.unpack_from(row, at)
        end = at + _length.size + max(0, length)
        found.append(row[at:end])
        at = end
    return found


def joined_arrays(element_oid: int, fields: Collection[bytes]) -> tuple[bytes, list[bytes], list[bytes]]:
    """The elements of encoded arrays of one dimension as one array, without the length in front, and where each of them begins
    and ends there, as fields: an array of arrays would have to be even. NULL begins and ends at NULL."""
    firsts, lasts, elements, total = [], [], [], 0
    for field in fields:
        if field == NULL:
            firsts.append(NULL)
            lasts.append(NULL)
            continue
        firsts.append(int4(total + 1))
        if len(field) > _ELEMENTS_AT:
            total += int.from_bytes(field[_SIZE_AT : _SIZE_AT + 4], "big")
            elements.append(field[_ELEMENTS_AT:])
        lasts.append(int4(total))
    if not total:
        return struct.pack(">iii", 0, 0, element_oid), firsts, lasts
    return b"".join((_array_header.pack(1, 0, element_oid, total, 1), *elements)), firsts, lasts


def name_digest(name: str) -> bytes:
    """The key of a short name (a tag) among the content tables: 20 bytes."""
    return hashlib.sha256(name.encode()).digest()[:20]


def bytea(value: bytes | None) -> bytes:
    return NULL if value is None else _length.pack(len(value)) + value


def text(value: str | None) -> bytes:
    """A string without U+0000 and without lone surrogates, or NULL."""
    if value is None:
        return NULL
    data = value.encode()
    return _length.pack(len(data)) + data


def boolean(value: bool) -> bytes:
    return TRUE if value else FALSE


def boolean_or_null(value: bool | None) -> bytes:
    return NULL if value is None else boolean(value)


def int4(value: int | None) -> bytes:
    return NULL if value is None else _int4.pack(4, value)


def int8(value: int | None) -> bytes:
    return NULL if value is None else _int8.pack(8, value)


def jsonb(value: bytes) -> bytes:
    """JSON text as jsonb; the leading 1 is the version of the binary format."""
    return _length.pack(len(value) + 1) + b"\x01" + value


def timestamptz(value: datetime) -> bytes:
    return _int8.pack(8, microseconds(value))


def microseconds(value: datetime) -> int:
    """Microseconds since 2000-01-01 UTC, as PostgreSQL counts."""
    since = value - _POSTGRES_EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def uuid_or_null(value: str | None) -> bytes:
    """``value``: in its canonical form."""
    return NULL if value is None else bytea(bytes.fromhex(value.replace("-", "")))


def int4_array(values: Iterable[int]) -> bytes:
    """An int4[] field, made without a Python loop: each element is its length 4 and its value."""
    numbers = array("i", values)
    count = len(numbers)
    if count == 0:
        return _length.pack(12) + struct.pack(">iii", 0, 0, INT4_OID)
    _swap(numbers)
    pairs = array("i", bytes(8 * count))
    pairs[0::2] = array("i", b"\0\0\0\x04" * count)
    pairs[1::2] = numbers
    return b"".join(
        (_length.pack(20 + 8 * count), _array_header.pack(1, 0, INT4_OID, count, 1), pairs.tobytes())
    )


def int2_array(values: Iterable[int]) -> bytes:
    """An int2[] field of values from 0 to 32767."""
    packed = array("h", values)
    if not packed:
        return _length.pack(12) + struct.pack(">iii", 0, 0, INT2_OID)
    # Each element is the length 2 (int32) and its value (int16): three 16-bit words.
    count = len(packed)
    _swap(packed)
    words = array("h", b"\0\0\0\x02\0\0" * count)
    words[2::3] = packed
    body = words.tobytes()
    return _length.pack(20 + len(body)) + _array_header.pack(1, 0, INT2_OID, count, 1) + body


def int8_array(values: Collection[int]) -> bytes:
    """An int8[] field."""
    return _array_of_eight(INT8_OID, "q", values)


def float8_array(values: Collection[float]) -> bytes:
    """A float8[] field; integers become the nearest doubles."""
    return _array_of_eight(FLOAT8_OID, "d", values)


def float8_array_zeros_null(values: Collection[float]) -> bytes:
    """The same with NULL for each zero, -0.0 aside: PostgreSQL has a bit for it instead of eight bytes."""
    field = float8_array(values)
    if not values:
        return field
    # A zero's twelve bytes stand nowhere but where an element begins: the last one of its length is no zero.
    body = field[24:].replace(_ZERO, NULL)
    return _length.pack(20 + len(body)) + _array_header.pack(1, 1, FLOAT8_OID, len(values), 1) + body


def _array_of_eight(element_oid: int, code: str, values: Collection[float]) -> bytes:
    count = len(values)
    if not count:
        return _length.pack(12) + struct.pack(">iii", 0, 0, element_oid)
    # Each element is its length 8 (int32) and its value. A long array goes in blocks: each length has a format of its own.
    words: list[float] = [8] * (2 * count)
    words[1::2] = values
    whole = count - count % _BLOCK
    blocks = [
        _eights(code, _BLOCK).pack(*words[2 * at : 2 * (at + _BLOCK)]) for at in range(0, whole, _BLOCK)
    ]
    body = b"".join((*blocks, _eights(code, count - whole).pack(*words[2 * whole :])))
    return _length.pack(20 + len(body)) + _array_header.pack(1, 0, element_oid, count, 1) + body


@lru_cache(256)
def _eights(code: str, count: int) -> struct.Struct:
    return struct.Struct(">" + ("i" + code) * count)


def array_of(element_oid: int, fields: Collection[bytes]) -> bytes:
    """An array of encoded fields, without the length in front: a parameter, not a field."""
    if not fields:
        return struct.pack(">iii", 0, 0, element_oid)
    return _array_header.pack(1, NULL in fields, element_oid, len(fields), 1) + b"".join(fields)


def digest_array(digests: Collection[bytes]) -> bytes:
    """A bytea[] of digests, all of them 20 bytes long, without the length in front: a parameter, not a field."""
    if not digests:
        return struct.pack(">iii", 0, 0, BYTEA_OID)
    length = _length.pack(20)
    return b"".join((_array_header.pack(1, 0, BYTEA_OID, len(digests), 1), length, length.join(digests)))


def read_int4_array(field: bytes) -> array[int]:
    """The values of an int4[] as PostgreSQL sends it (no NULLs), without the length in front."""
    if len(field) <= 12:
        return array("i")
    numbers = array("i", field[20:])[1::2]
    _swap(numbers)
    return numbers


def _swap(numbers: array[int]) -> None:
    if sys.byteorder == "little":
        numbers.byteswap()
