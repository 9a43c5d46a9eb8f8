"""What stands in a segment of the journal: records, each with its length and a checksum, one after the other.

A record says of one message, by its number, that it came (with all of it), that a delivery of it began, or that it is
gone. Whoever reads stops at the first one that is not whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import msgspec

from ingest.embedded.broker.parser import Body

MAGIC = b"ingestJ1"  # a segment begins with it
_HEAD = struct.Struct("<IIBQI")  # bytes that follow, checksum of all behind it, kind, number, bytes of names
_CHECKED_FROM = 8
HEAD_BYTES = _HEAD.size

_names = msgspec.msgpack.Decoder(list[bytes])


class Kind(IntEnum):
    MESSAGE = 1
    DELIVERED = 2
    GONE = 3


class Record(NamedTuple):
    kind: Kind
    number: int
    destination: str
    headers: dict[str, str]
    start: int  # where the record begins in its segment
    end: int
    body_bytes: int


def encode_message(number: int, destination: str, headers: dict[str, str], body: Body) -> tuple[bytes, Body]:
    """Of a message, to be written one behind the other: what stands before its body, and that."""
    texts = [destination, *(text for header in headers.items() for text in header)]
    names = msgspec.msgpack.encode([text.encode("utf-8", "surrogateescape") for text in texts])
    head = _HEAD.pack(len(names) + len(body), 0, Kind.MESSAGE, number, len(names)) + names
    checksum = zlib.crc32(body, zlib.crc32(memoryview(head)[_CHECKED_FROM:]))
    return head[:4] + struct.pack("<I", checksum) + head[_CHECKED_FROM:], body


def encode_mark(kind: Kind, number: int) -> bytes:
    head = _HEAD.pack(0, 0, kind, number, 0)
    return head[:4] + struct.pack("<I", zlib.crc32(head[_CHECKED_FROM:])) + head[_CHECKED_FROM:]


def read_records(segment: memoryview) -> Iterator[Record]:
    """All that are whole. Nothing for what does not begin as a segment does."""
    if segment[: len(MAGIC)] != MAGIC:
        return
    start = len(MAGIC)
    while (record := _record(segment, start)) is not None:
        yield record
        start = record.end


def _record(segment: memoryview, start: int) -> Record | None:
    if start + HEAD_BYTES > len(segment):
        return None
    length, checksum, kind, number, names_bytes = _HEAD.unpack_from(segment, start)
    end = start + HEAD_BYTES + length
    if end > len(segment) or zlib.crc32(segment[start + _CHECKED_FROM : end]) != checksum:
        return None
    if kind != Kind.MESSAGE:
        return Record(Kind(kind), number, "", {}, start, end, 0)
    body_at = start + HEAD_BYTES + names_bytes
    destination, *rest = (
        text.decode("utf-8", "surrogateescape")
        for text in _names.decode(segment[start + HEAD_BYTES : body_at])
    )
    headers = dict(zip(rest[::2], rest[1::2], strict=True))
    return Record(Kind.MESSAGE, number, destination, headers, start, end, end - body_at)
