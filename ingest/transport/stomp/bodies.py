"""Bodies on the way into shared memory: with a length of their own, or up to a NUL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ingest.transport.message import Message, Space


class Frame(NamedTuple):
    """A frame whose body is due. ``length`` is None when a NUL ends that, whatever it is ``said`` to be."""

    command: str
    headers: dict[str, str]
    length: int | None
    verdict: tuple[str, str] | None
    said: int | None


class Body:
    """A body on its way into the arena, or past it when it is too large."""

    def __init__(self, frame: Frame, offset: int | None, length: int) -> None:
        self.headers = frame.headers
        self.offset = offset
        self.length = length
        self.received = 0
        self._verdict = frame.verdict

    @property
    def missing(self) -> int:
        return self.length - self.received

    def target(self, space: Space, scratch: memoryview) -> memoryview:
        if self.offset is None:
            return scratch[: min(len(scratch), self.missing)]
        return space.view(self.offset + self.received, self.missing)

    def message(self) -> Message:
        kept = self.length if self.offset is not None else 0
        return Message(self.headers, self.offset, kept, self.length, self._verdict)

    def release(self, space: Space) -> None:
        if self.offset is not None:
            space.free(self.offset, self.length)


class Unbounded:
    """A body that ends at a NUL, as far as it has come."""

    def __init__(self, frame: Frame) -> None:
        self.headers: Mapping[str, str] = frame.headers
        self._frame = frame
        self._bytes = bytearray()
        self._passed = 0  # of one that is too large

    def take(self, data: bytearray, bytes_max: int) -> None:
        if self._passed or len(self._bytes) + len(data) > bytes_max:
            self._passed += len(self._bytes) + len(data)
            self._bytes.clear()
        else:
            self._bytes += data

    def message(self, space: Space, bytes_max: int) -> Message | None:
        """None while there is no space."""
        length = self._passed or len(self._bytes)
        headers, verdict, said = self._frame.headers, self._frame.verdict, self._frame.said
        if said is not None and said != length:
            verdict = ("damaged_frame", f"content-length says {said}, the body ends after {length} bytes")
        if self._passed:
            return Message(headers, None, 0, length, verdict)
        offset = space.allocate(length)
        if offset is None:
            return None
        space.view(offset, length)[:] = self._bytes
        return Message(headers, offset, length, length, verdict)
