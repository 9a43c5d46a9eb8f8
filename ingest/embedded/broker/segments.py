"""The files of the journal: how one is written, read, read again after a kill, and given back."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import structlog

from ingest.config.directories import make_private, require_private
from ingest.embedded.broker.parser import Body
from ingest.embedded.broker.records import Kind, Record, read_records
from ingest.errors import Misconfigured

PARTS_IN_WRITE_MAX = 1024  # IOV_MAX of Linux
SUFFIX = ".segment"


class Place(NamedTuple):
    """Where a message's record lies."""

    segment: Segment
    offset: int
    length: int
    body_bytes: int

    def read(self) -> bytes:
        return _read(self.segment.fd, self.offset, self.length)

    def read_body(self) -> bytes:
        return _read(self.segment.fd, self.offset + self.length - self.body_bytes, self.body_bytes)


class Segment:
    """One file. ``live`` are the messages in it that are not gone."""

    def __init__(self, path: Path, fd: int, size: int) -> None:
        self.path = path
        self.number = int(path.stem)
        self.fd = fd
        self.size = size
        self.live: dict[int, Place] = {}
        self.live_bytes = 0

    @classmethod
    def create(cls, directory: Path, number: int) -> Self:
        path = directory / f"{number:012}{SUFFIX}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        _sync_directory(directory)
        return cls(path, fd, 0)

    def add(self, number: int, place: Place) -> None:
        self.live[number] = place
        self.live_bytes += place.length

    def remove(self, number: int) -> None:
        self.live_bytes -= self.live.pop(number).length

    def close(self) -> None:
        os.close(self.fd)

    def delete(self) -> None:
        self.close()
        self.path.unlink()
        # Before the next is deleted: one that came back without those behind it would bring back what is gone.
        _sync_directory(self.path.parent)


def lock_directory(directory: Path) -> int:
    """A descriptor that keeps other brokers out while it is open. Raises Misconfigured."""
    try:
        make_private(directory)
        require_private(directory)  # journals are whole messages
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured("--data-dir", f"cannot use {directory}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Misconfigured("--data-dir", f"another broker uses {directory}") from error
    return lock


def write(fd: int, offset: int, parts: Sequence[Body], *, durably: bool) -> None:
    """Raises OSError. What could not be written whole is cut off again."""
    at = offset
    try:
        for first in range(0, len(parts), PARTS_IN_WRITE_MAX):
            at = _write(fd, at, list(parts[first : first + PARTS_IN_WRITE_MAX]))
        if durably:
            os.fdatasync(fd)
    except OSError:
        os.ftruncate(fd, offset)
        raise


class Found(NamedTuple):
    """What the last broker left behind."""

    segments: deque[Segment]
    messages: dict[int, tuple[Place, Record]]  # that are not gone
    delivered: set[int]
    numbers: set[int]  # the highest of each segment


def read_segments(directory: Path, log: structlog.stdlib.BoundLogger) -> Found:
    """Of a segment that is torn, or damaged, what lies before that place; nothing is written to it any more."""
    found = Found(deque(), {}, set(), {0})
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        segment = Segment(path, fd, os.fstat(fd).st_size)
        end = _replay(segment, found)
        if end < segment.size:
            log.warning("journal_torn", segment=str(path), at=end, bytes_not_read=segment.size - end)
        found.segments.append(segment)
    return found


def _replay(segment: Segment, found: Found) -> int:
    """Up to where the segment is whole."""
    if not segment.size:
        return 0
    end = highest = 0
    with mmap.mmap(segment.fd, segment.size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as text:
        for record in read_records(text):
            end, highest = record.end, max(highest, record.number)
            if record.kind is Kind.MESSAGE:
                place = Place(segment, record.start, record.end - record.start, record.body_bytes)
                found.messages[record.number] = (place, record)
            elif record.kind is Kind.GONE:
                found.messages.pop(record.number, None)
                found.delivered.discard(record.number)
            else:
                found.delivered.add(record.number)
    found.numbers.add(highest)
    return end


def _write(fd: int, offset: int, parts: list[Body]) -> int:
    while parts:
        written = os.pwritev(fd, parts, offset)
        offset += written
        while parts and written >= len(parts[0]):
            written -= len(parts.pop(0))
        if written:
            parts[0] = memoryview(parts[0])[written:]
    return offset


def _read(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) < length:  # Linux reads at most 2 GiB at once, and a message is far smaller
        raise OSError(f"{length} bytes at {offset} are not there")
    return data


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
