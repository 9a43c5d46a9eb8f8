"""STOMP frames out of bytes, however a socket cuts them.

The owner lets the socket write into ``buffer()``, says with ``received`` how much came, and takes frames
until there is none. A frame whose body lies whole in the small buffer is cut out of it; for a longer one
with a content-length the body gets memory of its own and the socket writes straight into that, so that no
body is looked at twice or moved. Nothing is asked for beyond the frame's end, hence nothing has to be moved
back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ingest.errors import IngestError
from ingest.transport.stomp.codec import (
    EMPTY_LINE_BYTES,
    Malformed,
    content_length,
    end_of_head,
    read_head_strictly,
)

READ_BYTES = 64 * 1024  # of the small buffer: about 60 messages of 1 KB at a time

Body = bytes | bytearray | memoryview


class HangUp(IngestError):
    """The peer broke the protocol or a limit: say why in an ERROR frame, then hang up.

    ``receipt`` is what the offending frame asked to have confirmed, as far as it could be read.
    """

    def __init__(self, text: str, receipt: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.receipt = receipt


class Frame(NamedTuple):
    """``body`` is without the NUL that ends the frame."""

    command: str
    headers: dict[str, str]
    body: Body = b""


class Limits(NamedTuple):
    """What one frame may measure."""

    # Half of what the receiver takes, so that there is room for what a broker adds.
    head_bytes_max: int = 32 * 1024
    headers_max: int = 1000  # as ActiveMQ (StompWireFormat.MAX_HEADERS)
    body_bytes_max: int = 100 * 1024 * 1024  # as ActiveMQ (StompWireFormat.MAX_DATA_LENGTH)


class Head(NamedTuple):
    """A frame as far as it is known before its body; ``length`` is None when a NUL ends the body."""

    command: str
    headers: dict[str, str]
    length: int | None


class Parser:
    """Raises HangUp at the first byte that cannot be right; it is of no use after that."""

    def __init__(self, limits: Limits | None = None, admit: Callable[[Head], bool] = lambda _: True) -> None:
        """``admit`` is asked before memory is taken for a body. No: ``next_frame`` asks again."""
        self.version: str | None = None  # what the two sides agreed on; the owner sets it
        self.held = False  # admit said no: do not read on
        self._limits = limits = limits or Limits()
        self._admit = admit
        self._small = bytearray(max(READ_BYTES, 2 * (limits.head_bytes_max + EMPTY_LINE_BYTES)))
        self._view = memoryview(self._small)
        self._start = self._end = self._scanned = 0  # not yet parsed: start to end
        self._head: Head | None = None
        self._long: memoryview | None = None  # a body with the NUL behind it, and how much of it is here
        self._long_filled = 0
        self._open: bytearray | None = None  # a body without content-length, so far

    def buffer(self) -> memoryview:
        """Where the next bytes go; never empty unless ``held``."""
        if self._long is not None:
            return self._long[self._long_filled :]
        if self._start == self._end:
            self._start = self._end = self._scanned = 0
        elif self._start > len(self._small) // 2:
            rest = self._end - self._start
            self._small[:rest] = self._small[self._start : self._end]
            self._scanned -= self._start
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def received(self, count: int) -> None:
        if self._long is not None:
            self._long_filled += count
        else:
            self._end += count

    def next_frame(self) -> Frame | None:
        """The next whole frame; None while more bytes, or admission, are needed. Heart-beats are skipped."""
        if self._head is None:
            self._head = self._read_head()
            if self._head is None:
                return None
            self.held = True
        if self.held:
            self.held = not self._admit(self._head)
            if self.held:
                return None
        body = self._read_open_body() if self._head.length is None else self._read_body(self._head.length)
        if body is None:
            return None
        frame = Frame(self._head.command, self._head.headers, body)
        self._head = None
        return frame

    def abandon(self) -> None:
        """Gives the memory of an unfinished body back; there will be no more frames."""
        self._long = self._open = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that these bytes complete, for owners without a socket that can write into memory."""
        rest = memoryview(data)
        while rest:
            target = self.buffer()
            count = min(len(rest), len(target))
            if not count:
                raise BufferError("the bytes of a frame that is held back must wait outside")
            target[:count] = rest[:count]
            rest = rest[count:]
            self.received(count)
            while (frame := self.next_frame()) is not None:
                yield frame

    def _read_head(self) -> Head | None:
        small = self._small
        while self._start < self._end and small[self._start] in b"\r\n":
            self._start += 1  # heart-beats, and the line ends that may follow a frame
        start = self._start
        if start == self._end:
            return None
        # The empty line may have begun two bytes before what was looked at last.
        scan = max(start, self._scanned - EMPTY_LINE_BYTES + 1)
        stop, after = end_of_head(small, scan, self._end, self.version)
        limit = self._limits.head_bytes_max
        if stop < 0:
            if small.find(b"\0", scan, self._end) >= 0:
                raise HangUp("a frame ended before the empty line that ends its headers")
            if self._end - start >= limit + EMPTY_LINE_BYTES:
                raise HangUp(f"a frame's headers are longer than {limit} bytes")
            self._scanned = self._end
            return None
        if stop - start > limit:
            raise HangUp(f"a frame's headers are longer than {limit} bytes")
        head = bytes(self._view[start:stop])
        try:
            command, headers = read_head_strictly(head, self.version, headers_max=self._limits.headers_max)
        except Malformed as error:
            raise HangUp(str(error)) from error
        self._start = after
        return Head(command, headers, self._content_length(headers))

    def _content_length(self, headers: dict[str, str]) -> int | None:
        length = content_length(headers)
        if length is None:
            if "content-length" in headers:
                raise HangUp("content-length is not a number of bytes", headers.get("receipt"))
            return None
        if length > self._limits.body_bytes_max:
            raise HangUp(
                f"a body of {length} bytes is over the limit of {self._limits.body_bytes_max} bytes",
                headers.get("receipt"),
            )
        return length

    def _read_body(self, length: int) -> Body | None:
        if self._long is None:
            start, end = self._start, self._start + length
            here = self._end - start
            if here > length:
                self._check_end(self._small[end])
                self._start = end + 1
                return bytes(self._view[start:end])
            self._long = memoryview(bytearray(length + 1))
            self._long[:here] = self._view[start : self._end]
            self._long_filled = here
            self._start = self._end = self._scanned = 0
        if self._long_filled <= length:
            return None
        self._check_end(self._long[length])
        body, self._long = self._long[:length], None
        return body

    def _read_open_body(self) -> Body | None:
        if self._open is None:
            self._open = bytearray()
        nul = self._small.find(b"\0", self._start, self._end)
        stop = self._end if nul < 0 else nul
        if len(self._open) + stop - self._start > self._limits.body_bytes_max:
            raise HangUp(
                f"a body is over the limit of {self._limits.body_bytes_max} bytes",
                self._head.headers.get("receipt") if self._head else None,
            )
        self._open += self._view[self._start : stop]
        if nul < 0:
            self._start = self._end = self._scanned = 0
            return None
        self._start = nul + 1
        body, self._open = self._open, None
        return body

    def _check_end(self, byte: int) -> None:
        if byte != 0:
            receipt = self._head.headers.get("receipt") if self._head else None
            raise HangUp("no NUL stands where content-length says the body ends", receipt)
