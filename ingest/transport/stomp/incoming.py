"""What comes from a broker, cut into messages; their bodies go into shared memory.

Header bytes are gathered in a small buffer; as soon as content-length is known the body's range in the arena is taken
and the socket reads straight into it. When the arena is full no message is begun and the broker keeps the rest;
``listen`` still takes heart-beats off the socket, so that silence keeps its meaning.

A frame that is not as it should be stops no other. A head of any length passes by, and its message says so (``verdict``).
Where a frame does not end where its content-length says, nobody knows where the next one begins: the connection ends
(``DamagedFrames``), and when the message comes again its body ends at the first NUL, whatever its headers say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ingest.errors import Unavailable
from ingest.transport.message import Message, Space
from ingest.transport.stomp.bodies import Body, Frame, Unbounded
from ingest.transport.stomp.codec import content_length, end_of_head, read_head
from ingest.transport.stomp.dialects import error_text
from ingest.transport.stomp.heads import HEADERS_BYTES_MAX, DamagedFrames, LongHead, end_within

COMMANDS = (b"MESSAGE", b"RECEIPT", b"ERROR")
BUFFER_BYTES = 256 * 1024  # of what is not yet a body: also what comes while no message is wanted
READ_BYTES = 16 * 1024  # of one recv while looking for headers: what it has of a body is copied once more


class Incoming:
    """``receive`` fills a memory and says how much came, 0 when nothing is there; it raises Unavailable at the end."""

    def __init__(
        self,
        receive: Callable[[memoryview], int],
        *,
        broker: str,
        version: str,
        body_bytes_max: int,
        space: Space,
        damaged: DamagedFrames,
    ) -> None:
        self.paused = False  # the arena is full: a body waits for space
        self.unread = False  # messages may be here that no event of the socket will tell of
        self.awaited: set[str] = set()  # receipts that were asked for; others are nobody's
        self.receipts: set[str] = set()
        self._receive = receive
        self._broker = broker
        self._version = version
        self._space = space
        self._damaged = damaged
        self._body_bytes_max = body_bytes_max
        self._buffer = bytearray(BUFFER_BYTES)  # headers and small frames
        self._start = self._end = 0  # of what is not yet parsed in it
        self._long: LongHead | None = None  # the head of which the beginning has passed
        self._body: Body | None = None
        self._waiting: Frame | None = None  # for space
        self._unbounded: Unbounded | None = None  # a body without content-length, so far
        self._skipping: int | None = None  # what is left of a frame that nobody wants; -1: up to its NUL
        self._ending: Mapping[str, str] | None = None  # whose NUL has not come yet
        self._scratch = memoryview(bytearray(64 * 1024))

    def read(self) -> Iterator[Message]:
        """The messages that are here now. Stops when the socket is empty or the arena is full (``paused``).
        The caller may stop earlier; ``unread`` is then true."""
        self.unread = True
        if self.paused and not self._resume():
            self.listen()
            return
        while True:
            if self._body is not None:
                if not self._fill_body():
                    break
                yield self._finished()
            yield from self._parse()
            if self.paused:
                return
            if self._body is None and not self._fill_buffer():
                break
        self.unread = False

    @property
    def listens(self) -> bool:
        """Whether something that comes now is noticed. A full buffer leaves it in the socket."""
        return self._end - self._start < len(self._buffer)

    def listen(self) -> None:
        """Takes what is here without beginning a message: heart-beats are seen, the rest waits for ``read``."""
        self.unread = True
        if self._body is not None and not self._fill_body():  # its space is taken anyway
            return
        while self.listens and self._fill_buffer():
            if not self.is_inside_frame and self._waiting is None:
                self._skip_beats()

    @property
    def is_inside_frame(self) -> bool:
        """Whether what comes now belongs to a frame that has begun."""
        begun = (self._body, self._unbounded, self._long, self._skipping)
        return any(part is not None for part in begun)

    def lose(self, why: str) -> Unavailable:
        """Of the frame that has begun nobody can tell the end: what ends the connection, and is remembered."""
        frame = self._body or self._unbounded
        headers = frame.headers if frame is not None else self._ending or {}
        if headers:
            self._damaged.remember(headers)
        which = headers.get("message-id", "")[:100]
        return Unavailable(f"{self._broker} sent a damaged frame (message-id {which!r}): {why}")

    def close(self) -> None:
        if self._body is not None:
            self._body.release(self._space)
            self._body = None

    def _fill_buffer(self) -> bool:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            kept = self._end - self._start
            self._buffer[:kept] = self._buffer[self._start : self._end]
            self._start, self._end = 0, kept
        got = self._receive(memoryview(self._buffer)[self._end : self._end + READ_BYTES])
        self._end += got
        return got > 0

    def _fill_body(self) -> bool:
        body = self._body
        assert body is not None
        while body.missing:
            target = body.target(self._space, self._scratch)
            got = self._receive(target)
            if got == 0:
                return False
            body.received += got
        return True

    # Parsing

    def _parse(self) -> Iterator[Message]:
        """What the buffer holds: whole small messages; the beginning of a larger one becomes ``_body``."""
        while self._start < self._end:
            if self._unbounded is not None:
                message = self._parse_unbounded(self._unbounded)
                if message is None:
                    return
                yield message
                continue
            if self._skipping is not None:
                self._skip(self._skipping)
                continue
            if self._long is None:
                self._skip_beats()
            frame = self._parse_head()
            if frame is None:
                return
            if not self._begin(frame):
                return
            if self._body is not None:
                yield self._finished()

    def _begin(self, frame: Frame) -> bool:
        """Whether parsing goes on: not while a body waits for space, or for what the buffer does not have of it."""
        if frame.command != "MESSAGE":
            self._begin_other(frame)
        elif frame.length is None:
            self._unbounded = Unbounded(frame)
        else:
            self._waiting = frame
            self.paused = not self._begin_body()
            return self._body is not None and not self._body.missing
        return True

    def _parse_head(self) -> Frame | None:
        """The next frame as far as its body; None while its head is not here."""
        buffer = self._buffer
        if self._long is not None:
            return self._parse_long(self._long)
        head_end, body_start = end_of_head(buffer, self._start, self._end)
        if head_end < 0 or head_end - self._start > HEADERS_BYTES_MAX:
            if self._end - self._start > HEADERS_BYTES_MAX:
                self._long = LongHead()
                return self._parse_long(self._long)
            return None
        nul = end_within(buffer, self._start, head_end)
        if nul < 0 and not buffer.startswith(COMMANDS, self._start):
            nul = buffer.find(b"\0", self._start, head_end)  # no frame: whatever it is ends there
        if nul >= 0:
            head_end = body_start = nul
        command, headers = read_head(bytes(buffer[self._start : head_end]), self._version)
        self._start = body_start
        return self._framed(command, headers, has_body=nul < 0)

    def _parse_long(self, long: LongHead) -> Frame | None:
        begin = self._start
        self._start, has_ended = long.take(self._buffer, self._start, self._end)
        if not has_ended:
            return self._parse_long(long) if begin < self._start < self._end else None
        self._long = None
        command, headers = long.parsed(self._version)
        detail = f"{long.bytes} bytes of headers; more than {HEADERS_BYTES_MAX} are not read"
        return self._framed(command, headers, has_body=long.has_body, verdict=("headers_too_large", detail))

    def _framed(
        self,
        command: str,
        headers: dict[str, str],
        *,
        has_body: bool,
        verdict: tuple[str, str] | None = None,
    ) -> Frame:
        length = content_length(headers) if has_body else 0
        if length is not None and self._damaged.know(headers):
            return Frame(command, headers, None, verdict, length)
        return Frame(command, headers, length, verdict, None)

    def _skip_beats(self) -> None:
        """Between two frames: heart-beats and the NUL of the frame before."""
        if self._ending is not None and self._start < self._end:
            if self._buffer[self._start]:
                raise self.lose("its content-length is not where it ends")
            self._ending = None
        while self._start < self._end and self._buffer[self._start] in b"\r\n\0":
            self._start += 1

    # Messages

    def _begin_body(self) -> bool:
        """Takes space for the body that is due and what the buffer already has of it."""
        frame = self._waiting
        assert frame is not None
        assert frame.length is not None
        length = frame.length
        if length > self._body_bytes_max:
            body = Body(frame, None, length)
        else:
            offset = self._space.allocate(length)
            if offset is None:
                return False
            body = Body(frame, offset, length)
        self._waiting = None
        here = min(length, self._end - self._start)
        if here and body.offset is not None:
            with memoryview(self._buffer) as buffer:
                self._space.view(body.offset, here)[:] = buffer[self._start : self._start + here]
        self._start += here
        body.received = here
        self._body = body
        return True

    def _finished(self) -> Message:
        body, self._body = self._body, None
        assert body is not None
        self._ending = body.headers
        return body.message()

    def _resume(self) -> bool:
        if self._waiting is not None and not self._begin_body():
            return False
        self.paused = False
        return True

    def _parse_unbounded(self, body: Unbounded) -> Message | None:
        """A body that ends at the first NUL; each byte is looked at once."""
        nul = self._buffer.find(b"\0", self._start, self._end)
        end = self._end if nul < 0 else nul
        body.take(self._buffer[self._start : end], self._body_bytes_max)
        self._start = end
        if nul < 0:
            return None
        message = body.message(self._space, self._body_bytes_max)
        if message is None:
            self.paused = True
            return None
        self._start += 1
        self._unbounded = None
        return message

    # Other frames

    def _begin_other(self, frame: Frame) -> None:
        """RECEIPT and ERROR, and what no broker sends."""
        if frame.command == "RECEIPT":
            came = self.awaited & {frame.headers.get("receipt-id", "")}
            self.receipts |= came
            self.awaited -= came
        elif frame.command == "ERROR":
            nul = self._buffer.find(b"\0", self._start, self._end)
            detail = bytes(self._buffer[self._start : self._end if nul < 0 else nul])
            raise Unavailable(f"{self._broker} sent ERROR: {error_text(frame.headers, detail)}")
        self._skipping = -1 if frame.length is None else frame.length

    def _skip(self, length: int) -> None:
        here = self._end - self._start
        if length < 0:
            nul = self._buffer.find(b"\0", self._start, self._end)
            self._start = self._end if nul < 0 else nul
            self._skipping = None if nul >= 0 else -1
        else:
            self._start += min(length, here)
            # Whatever stands there is skipped as well, up to the NUL.
            self._skipping = length - here if length > here else -1
