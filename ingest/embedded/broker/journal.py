"""What the broker gave a receipt for, on disk: it is there again after a kill, a full disk or a power failure.

Theory of operation. Everything that happens to a message is a record at the end of the newest *segment*, a file. Records
that came while the last ones were on their way to the disk go together: one write and one fdatasync for all of them,
in a thread, while the broker's own goes on. ``position`` counts what was recorded, ``durable`` what is on disk; a receipt
waits until its ``position`` is. What is gone leaves its record behind, so segments are given back from the oldest on:
when nothing in it is left, or so little in all of them that the rest is copied to the newest end, some with each turn.

Only the oldest is ever deleted, so a message cannot be forgotten later than the record that says that it is gone.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import structlog

from ingest.embedded.broker.parser import Body
from ingest.embedded.broker.records import MAGIC, Kind, encode_mark, encode_message
from ingest.embedded.broker.segments import Place, Segment, lock_directory, read_segments, write
from ingest.errors import Unavailable

SEGMENT_BYTES = 64 * 1024 * 1024
SEGMENTS_MIN, SEGMENTS_MAX = 16, 128  # each of them is an open file
COPIED_BYTES = 1024 * 1024  # of old records in one turn of the broker: less than a millisecond
DISK_FREE_BYTES_MIN = 64 * 1024 * 1024  # on the file system; below it nothing is taken
DISK_LOOKED_AT_EVERY_S = 1.0


class Recovered(NamedTuple):
    """A message that was there when the last broker ended."""

    number: int
    destination: str
    headers: dict[str, str]
    body_bytes: int
    delivered: bool  # a delivery had begun


class _Entry(NamedTuple):
    """A message's record in a batch: where it will lie, relative to the batch."""

    number: int
    offset: int
    length: int
    body_bytes: int


class _Batch(NamedTuple):
    """Records on their way to the disk."""

    future: Future[None]
    segment: Segment
    start: int
    entries: list[_Entry]
    position: int  # of the last of them


class Journal:
    """Belongs to the broker's thread."""

    def __init__(
        self,
        directory: Path,
        disk_bytes_max: int,
        *,
        wake: Callable[[], None] = lambda: None,
        segment_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A good third of ``disk_bytes_max`` is for messages: what is gone is not given back at once. ``wake`` is called
        from a thread when something has become durable. Raises Misconfigured for a directory that cannot be used, or that
        another broker uses."""
        self.position = self.durable = 0
        self.failure = ""  # why what became "durable" in this turn is not
        self.last_number = 0  # of any message that is known
        self._directory = directory
        self._disk_bytes_max = disk_bytes_max
        few = max(SEGMENT_BYTES, disk_bytes_max // SEGMENTS_MAX)
        self._segment_bytes = segment_bytes or min(few, disk_bytes_max // SEGMENTS_MIN)
        self._wake = wake
        self._clock = clock
        self._log = structlog.get_logger()
        self._looked_at_s, self._free_bytes = float("-inf"), 0
        self._parts: list[Body] = []  # recorded and not yet on their way
        self._parts_bytes = 0
        self._entries: list[_Entry] = []
        self._under_way: _Batch | None = None
        self._places: dict[int, Place | None] = {}  # of every message that is not gone; None: on its way
        self._segments: deque[Segment] = deque()
        self._copied: dict[int, None] = {}  # numbers on their way from the oldest segment to the newest
        self._lock = lock_directory(directory)
        self._executor = ThreadPoolExecutor(1, "journal")

    def recover(self) -> Iterator[Recovered]:
        """To be called first, and to its end; in their order."""
        found = read_segments(self._directory, self._log)
        self._segments = found.segments
        self.last_number = max(found.numbers)
        for number, (place, record) in sorted(found.messages.items()):
            self._places[number] = place
            place.segment.add(number, place)
            yield Recovered(
                number, record.destination, record.headers, record.body_bytes, number in found.delivered
            )
        self._log.info("journal_read", messages=len(found.messages), bytes=self.disk_bytes)
        self._open_next()

    @property
    def _live_bytes(self) -> int:
        """Of the messages that are not gone; those on their way are."""
        under_way = self._under_way
        on_the_way = under_way.segment.size - under_way.start if under_way else 0
        return sum(segment.live_bytes for segment in self._segments) + on_the_way + self._parts_bytes

    @property
    def disk_bytes(self) -> int:
        return sum(segment.size for segment in self._segments) + self._parts_bytes

    def refusal(self, needed_bytes: int) -> str:
        """Why a message of that size cannot be taken now; empty: it can."""
        # Twice that, and two segments, lie on the disk at most; below it is what is gone and not given back yet.
        if self._live_bytes + needed_bytes > self._disk_bytes_max // 2 - 2 * self._segment_bytes:
            return f"the broker's disk limit of {self._disk_bytes_max} bytes is reached"
        now_s = self._clock()
        if now_s >= self._looked_at_s + DISK_LOOKED_AT_EVERY_S:
            found = os.statvfs(self._directory)
            self._looked_at_s, self._free_bytes = now_s, found.f_bavail * found.f_frsize
        if self._free_bytes < DISK_FREE_BYTES_MIN + needed_bytes:
            return "the broker's disk is full"
        return ""

    # What happens to messages

    def message(self, number: int, destination: str, headers: dict[str, str], body: Body) -> None:
        parts = encode_message(number, destination, headers, body)
        length = sum(map(len, parts))
        self._places[number] = None
        self._entries.append(_Entry(number, self._parts_bytes, length, len(body)))
        self._record(*parts)

    def delivered(self, number: int) -> None:
        if number in self._places:
            self._record(encode_mark(Kind.DELIVERED, number))

    def gone(self, number: int) -> None:
        if number not in self._places:
            return  # it was never written
        place = self._places.pop(number)
        if place is not None:
            place.segment.remove(number)
        self._record(encode_mark(Kind.GONE, number))

    def is_durable(self, number: int) -> bool:
        return self._places.get(number) is not None

    def body(self, number: int) -> bytes:
        """Of a durable message."""
        place = self._places[number]
        assert place is not None
        return place.read_body()

    # Onto the disk

    def turn(self) -> bool:
        """Once for each turn of the broker: True when something has become durable, or has failed. Raises Unavailable when
        the disk no longer keeps what it took."""
        self.failure = ""
        before = self.durable
        self._end_commit()
        self._give_back()
        self._begin_commit()
        return self.durable > before

    def close(self) -> None:
        while self._parts or self._under_way:
            if self._under_way:
                self._under_way.future.exception()
            self._end_commit()
            self._begin_commit()
        self._executor.shutdown()
        for segment in self._segments:
            segment.close()
        os.close(self._lock)

    def _record(self, *parts: Body) -> None:
        self._parts += parts
        self._parts_bytes += sum(map(len, parts))
        self.position += 1

    def _begin_commit(self) -> None:
        if self._under_way or not self._parts:
            return
        parts, entries = self._parts, self._entries
        self._parts, self._entries, length, self._parts_bytes = [], [], self._parts_bytes, 0
        try:
            if self._segments[-1].size >= self._segment_bytes:
                self._open_next()
        except OSError as error:
            self._fail(entries, self.position, error)
            return
        segment = self._segments[-1]
        if not segment.size:
            write(segment.fd, 0, [MAGIC], durably=False)
            segment.size = len(MAGIC)
        # A mark that is lost with the machine's power brings a message once more; a process's end does not lose it.
        future = self._executor.submit(write, segment.fd, segment.size, parts, durably=bool(entries))
        future.add_done_callback(lambda _: self._wake())
        self._under_way = _Batch(future, segment, segment.size, entries, self.position)
        segment.size += length

    def _end_commit(self) -> None:
        batch = self._under_way
        if batch is None or not batch.future.done():
            return
        self._under_way = None
        error = batch.future.exception()
        if error is None:
            self._settle(batch)
        elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            batch.segment.size = batch.start
            self._fail(batch.entries, batch.position, error)
        else:
            raise Unavailable(f"the journal in {self._directory} cannot be kept: {error}") from error

    def _settle(self, batch: _Batch) -> None:
        self.durable = batch.position
        for number, offset, length, body_bytes in batch.entries:
            self._copied.pop(number, None)
            if number not in self._places:
                continue  # gone meanwhile
            before = self._places[number]
            if before is not None:
                before.segment.remove(number)
            place = self._places[number] = Place(batch.segment, batch.start + offset, length, body_bytes)
            batch.segment.add(number, place)

    def _fail(self, entries: list[_Entry], position: int, error: OSError) -> None:
        """New messages stay in memory, without a receipt; what was only copied lies where it lay."""
        self.durable = position
        self.failure = f"the broker cannot write to its disk: {error.strerror}"
        self._log.error("journal_not_written", reason=error.strerror, messages=len(entries))
        self._looked_at_s = float("-inf")
        for entry in entries:
            self._copied.pop(entry.number, None)
            if self._places.get(entry.number, self) is None:
                del self._places[entry.number]

    # Room

    def _give_back(self) -> None:
        while (
            len(self._segments) > 1 and not self._segments[0].live and not self._is_written(self._segments[0])
        ):
            self._executor.submit(self._delete, self._segments.popleft())
        if len(self._segments) > 1 and not self._copied and self._is_mostly_gone():
            self._copy_some(self._segments[0])

    def _delete(self, segment: Segment) -> None:
        try:
            segment.delete()
        except OSError as error:
            self._log.error("segment_not_deleted", segment=str(segment.path), reason=error.strerror)

    def _is_written(self, segment: Segment) -> bool:
        return self._under_way is not None and self._under_way.segment is segment

    def _is_mostly_gone(self) -> bool:
        return self.disk_bytes > 2 * self._live_bytes + 2 * self._segment_bytes

    def _copy_some(self, oldest: Segment) -> None:
        copied_bytes = 0
        for number, place in oldest.live.items():
            if copied_bytes >= COPIED_BYTES:
                break
            self._entries.append(_Entry(number, self._parts_bytes, place.length, place.body_bytes))
            self._record(place.read())
            self._copied[number] = None
            copied_bytes += place.length

    def _open_next(self) -> None:
        number = self._segments[-1].number + 1 if self._segments else 1
        self._segments.append(Segment.create(self._directory, number))
