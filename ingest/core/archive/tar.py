"""Reads a .tgz as its bytes come, and writes one: the pure part, which knows neither files nor sockets.

Not ``tarfile`` for reading: it keeps every member's head, and reads a name as long as an archive says it is. This one holds
one member, of a bounded size, whatever arrives; names go nowhere near a file system.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
GZIP_WINDOW = 31  # zlib's number for "with a gzip header"
INFLATED_BYTES = 256 * 1024  # what is taken out of a compressed piece at once
LONG_NAME_BYTES = 64 * 1024  # of a name that stands in a member of its own; file systems end at 4 KiB
GZIP_LEVEL = 6  # the usual one: level 9 takes three times as long for a hundredth of the size
_FILE, _PAX, _PAX_OF_ALL, _GNU_NAME = b"0\0", b"x", b"g", b"L"


class Broken(Exception):
    """The archive cannot be read any further; what came before it counts."""


class Member(NamedTuple):
    """A file of the archive. ``body`` is None where ``problem`` says why it was passed over."""

    name: str
    body: bytes | None
    problem: str = ""


class ArchiveReader:
    """``feed`` it the bytes in pieces of any size, then ``finish``. Raises Broken."""

    def __init__(self, body_bytes_max: int) -> None:
        self._body_bytes_max = body_bytes_max
        self._inflating = zlib.decompressobj(GZIP_WINDOW)
        self._begun = self._ended = False
        self._buffer = bytearray()
        self._member: _Reading | None = None
        self._long: dict[str, str] = {}  # what the members before it say of the next one

    def feed(self, piece: bytes) -> Iterator[Member]:
        """The members that are complete with this piece."""
        for plain in self._inflate(piece):
            if self._ended:
                continue  # what stands behind the end is no part of it
            self._buffer += plain
            yield from self._take()

    def finish(self, *, is_cut: bool = False) -> None:
        """Raises Broken where it ends in the middle; ``is_cut``: whoever gave it says so."""
        if not self._begun:
            raise Broken("it is empty")
        if (
            is_cut
            or self._member is not None
            or self._buffer.strip(b"\0")
            or not (self._ended or self._inflating.eof)
        ):
            raise Broken("it ends in the middle")
        if not self._inflating.eof:
            raise Broken("its gzip ends in the middle")

    def _inflate(self, piece: bytes) -> Iterator[bytes]:
        """A bounded part of its contents at a time; several gzips behind each other are one."""
        while piece:
            if self._inflating.eof:
                piece = piece.lstrip(b"\0")  # tapes and copies are padded
                if not piece:
                    return
                self._inflating = zlib.decompressobj(GZIP_WINDOW)
            try:
                plain = self._inflating.decompress(piece, INFLATED_BYTES)
            except zlib.error as error:
                raise Broken("it is not gzip" if not self._begun else "its gzip is damaged") from error
            self._begun = True
            piece = self._inflating.unused_data if self._inflating.eof else self._inflating.unconsumed_tail
            yield plain

    def _take(self) -> Iterator[Member]:
        while not self._ended:
            if self._member is None and not self._next_head():
                return
            member = self._member
            if member is None:
                continue
            if not member.take(self._buffer):
                return
            self._member = None
            yield from self._complete(member)

    def _next_head(self) -> bool:
        """Whether there was one, or the end."""
        if len(self._buffer) < BLOCK:
            return False
        head = bytes(self._buffer[:BLOCK])
        del self._buffer[:BLOCK]
        if not head.strip(b"\0"):
            self._ended = True
            self._buffer.clear()
            return True
        name, size, kind = _head(head)
        if kind in (_PAX, _PAX_OF_ALL, _GNU_NAME):
            self._member = _Reading(name, size, kind, keeps=size <= LONG_NAME_BYTES)
            return True
        if "size" in self._long:
            size = _number_of_pax(self._long["size"])
        name = self._long.get("path", name)
        self._long = {}
        is_kept = kind in _FILE and size <= self._body_bytes_max
        self._member = _Reading(name, size, kind, keeps=is_kept)
        return True

    def _complete(self, member: _Reading) -> Iterator[Member]:
        if member.kind in (_PAX, _PAX_OF_ALL, _GNU_NAME):
            if not member.keeps:
                raise Broken(f"a name in it has {member.size} bytes")
            if member.kind == _GNU_NAME:
                self._long["path"] = bytes(member.body).rstrip(b"\0").decode("utf-8", "replace")
            elif member.kind == _PAX:
                self._long |= _pax(bytes(member.body))
            return
        if member.kind not in _FILE:
            if member.kind != b"5":  # a directory is nothing to tell of
                yield Member(member.name, None, "it is no file")
        elif not member.keeps:
            yield Member(member.name, None, f"it has {member.size} bytes, more than body_bytes_max")
        else:
            yield Member(member.name, bytes(member.body))


class _Reading:
    """A member that is being read, or passed over."""

    def __init__(self, name: str, size: int, kind: bytes, *, keeps: bool) -> None:
        self.name, self.size, self.kind, self.keeps = name, size, kind, keeps
        self.body = bytearray()
        self._missing = size
        self._padding = -size % BLOCK

    def take(self, buffer: bytearray) -> bool:
        """Whether it is complete."""
        piece = min(self._missing, len(buffer))
        if self.keeps:
            self.body += buffer[:piece]
        del buffer[:piece]
        self._missing -= piece
        if self._missing:
            return False
        padding = min(self._padding, len(buffer))
        del buffer[:padding]
        self._padding -= padding
        return not self._padding


class ArchiveWriter:
    """Gives the bytes of a .tgz a member at a time: ``add`` and at the end ``finish``."""

    def __init__(self, made_at_s: int) -> None:
        self._made_at_s = made_at_s
        self._deflating = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WINDOW)

    def add(self, name: str, body: bytes) -> bytes:
        """May be empty: the compressor keeps some back."""
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(body), self._made_at_s, 0o640
        head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        return b"".join(map(self._deflating.compress, (head, body, b"\0" * (-len(body) % BLOCK))))

    def finish(self) -> bytes:
        return self._deflating.compress(b"\0" * (2 * BLOCK)) + self._deflating.flush()


def _head(head: bytes) -> tuple[str, int, bytes]:
    """(name, size, kind)."""
    said = _number(head[148:156])
    summed = sum(head) - sum(head[148:156]) + 8 * 0x20
    if said != summed:
        raise Broken("it is damaged, or no tar")
    name = head[:100].rstrip(b"\0")
    if head[257:262] == b"ustar" and head[257:265] != b"ustar  \0" and (prefix := _text(head[345:500])):
        name = prefix + b"/" + _text(head[:100])
    return _text(name).decode("utf-8", "replace"), _number(head[124:136]), head[156:157]


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits, or for larger ones two's complement behind a mark (GNU)."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise Broken("it is damaged: a size that is no number") from error


def _number_of_pax(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Broken("it is damaged: a size that is no number")
    return int(text)


def _pax(records: bytes) -> dict[str, str]:
    """``LENGTH NAME=VALUE`` and a line's end, each; only what is used."""
    found = {}
    while records:
        length, space, _ = records.partition(b" ")
        if not (space and length.isdigit() and len(length) < 8 and len(length) < int(length) <= len(records)):
            raise Broken("it is damaged: a head that cannot be read")
        record, records = records[: int(length)], records[int(length) :]
        name, _, value = record[len(length) + 1 : -1].partition(b"=")
        if name in (b"path", b"size"):
            found[name.decode()] = value.decode("utf-8", "replace")
    return found
