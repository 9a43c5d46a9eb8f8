"""One STOMP connection of the receiver, from CONNECT to DISCONNECT: message bodies go into shared memory.

Theory of operation. stomp.py gives the frames, their escapes and the heart-beat arithmetic; reading is ours,
because its loop copies each body five times and lets a long frame look like a lost heart-beat
(docs/decisions/0002-receiving.md). The socket is non-blocking and belongs to the receiver's only thread.
Header bytes are gathered in a small buffer; as soon as content-length is known the body's range in the arena
is taken and the socket reads straight into it. When the arena or the window is full no message is begun and the broker
keeps the rest; ``listen`` still takes heart-beats off the socket, so that silence keeps its meaning.

One object serves one connection epoch and is never opened again.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from ingest.errors import Unavailable
from ingest.transport.stomp.frames import (
    HEADERS_BYTES_MAX,
    encode,
    end_of_head,
    error_text,
    flow_control,
    parse_head,
)
from ingest.transport.stomp.opening import Endpoint, open_stomp

BUFFER_BYTES = 256 * 1024  # of what is not yet a body: also what comes while no message is wanted
BUFFERS_MAX = 64  # of one sendmsg; the kernel takes 1024
READ_BYTES = 16 * 1024  # of one recv while looking for headers: what it has of a body is copied once more
HEARTBEAT_AT = 0.5  # of the interval; a broker may grant no grace beyond it, and a busy machine is late
HEARTBEAT_GRACE = 2.0  # of the agreed interval; the specification asks for an error margin


class Message(NamedTuple):
    """One MESSAGE frame. ``offset`` is None when the body was too large to keep and has been passed over."""

    headers: dict[str, str]
    offset: int | None
    length: int
    body_bytes: int


class Space(Protocol):
    """What the connection needs of the arena."""

    def allocate(self, length: int) -> int | None: ...
    def free(self, offset: int, length: int) -> None: ...
    def view(self, offset: int, length: int) -> memoryview: ...


class Connection:
    """Raises Unavailable when the broker is away or the connection ends, Misconfigured for a refused login
    or certificate."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_timeout_s: float,
        heartbeat_s: float,
        body_bytes_max: int,
        space: Space | None,
    ) -> None:
        self.endpoint = endpoint
        self.paused = False  # the arena is full: a body waits for space
        self.unread = False  # messages may be here that no event of the socket will tell of
        self.receipts: set[str] = set()
        self._space: Space = space  # type: ignore[assignment]  # None: nobody subscribes
        self._body_bytes_max = body_bytes_max
        self._outgoing: deque[bytes | memoryview] = deque()
        self._buffer = bytearray(BUFFER_BYTES)  # headers and small frames
        self._start = self._end = 0  # of what is not yet parsed in it
        self._body: _Body | None = None
        self._waiting: tuple[dict[str, str], int] | None = None
        self._unbounded: bytearray | None = None  # a body without content-length, so far
        self._unbounded_headers: dict[str, str] = {}
        self._scratch = memoryview(bytearray(64 * 1024))
        opened = open_stomp(endpoint, connect_timeout_s, heartbeat_s)
        self.version, self.server = opened.version, opened.server
        self._send_every_s, self._expect_every_s = opened.send_every_s, opened.expect_every_s
        self._socket: socket.socket = opened.socket
        self._last_read_s = self._last_write_s = time.monotonic()

    # What is said

    def subscribe(
        self, destination: str, subscription: str, prefetch_messages: int, window_bytes: int
    ) -> None:
        headers = {
            "destination": destination,
            "id": subscription,
            "ack": "client" if self.acknowledges_cumulatively else "client-individual",
            **flow_control(self.server, prefetch_messages, window_bytes),
        }
        self._send("SUBSCRIBE", headers)

    def acknowledge(self, messages: list[tuple[str, str]], subscription: str) -> None:
        """Queues an ACK for each (ack header, message-id); ``flush`` sends them joined."""
        frames = bytearray()
        for ack, message_id in messages:
            if self.version == "1.2":
                headers = {"id": ack}
            elif self.version == "1.1":
                headers = {"message-id": message_id, "subscription": subscription}
            else:
                headers = {"message-id": message_id}
            frames += encode("ACK", headers, self.version)
        self._outgoing.append(memoryview(frames))

    def send_message(self, destination: str, body: bytes | memoryview, headers: dict[str, str]) -> None:
        """Queues a persistent SEND; ``flush`` sends it, a receipt appears in ``receipts``. The body is not copied."""
        fixed = {"destination": destination, "persistent": "true", "content-length": str(len(body))}
        if "rabbitmq" in self.server.lower() and self.endpoint.user is not None:
            fixed["user-id"] = self.endpoint.user  # it vouches for that, and adds none by itself
        head = encode("SEND", headers | fixed, self.version)
        self._outgoing.extend((head[:-1], body, b"\0"))  # its own NUL ends an empty frame

    def disconnect(self, receipt: str) -> None:
        """Says goodbye; the answer appears in ``receipts``."""
        self._send("DISCONNECT", {"receipt": receipt})

    def close(self) -> None:
        if self._body is not None:
            self._body.release(self._space)
            self._body = None
        with contextlib.suppress(OSError):
            self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def protocol(self) -> str:
        return f"STOMP {self.version}"

    @property
    def acknowledges_cumulatively(self) -> bool:
        """STOMP 1.0 knows nothing else."""
        return self.version == "1.0"

    # Writing and heart-beats

    @property
    def wants_write(self) -> bool:
        return bool(self._outgoing)

    def flush(self) -> None:
        """Sends what the socket takes now."""
        while self._outgoing:
            try:
                sent = self._put()
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError as error:
                raise Unavailable(f"the connection to {self.endpoint} broke: {error}") from error
            self._last_write_s = time.monotonic()
            while self._outgoing and sent >= len(self._outgoing[0]):
                sent -= len(self._outgoing.popleft())
            if sent:
                self._outgoing[0] = memoryview(self._outgoing[0])[sent:]

    def _put(self) -> int:
        if isinstance(self._socket, ssl.SSLSocket):  # it has no sendmsg
            return self._socket.send(self._outgoing[0])
        return self._socket.sendmsg(islice(self._outgoing, BUFFERS_MAX))

    def beat(self) -> None:
        """Sends a heart-beat when one is due; raises Unavailable when the broker's are missing."""
        now = time.monotonic()
        if (
            self._send_every_s
            and now - self._last_write_s >= self._send_every_s * HEARTBEAT_AT
            and not self._outgoing
        ):
            self._outgoing.append(b"\n")
            self.flush()
        if not self.listens:
            self._last_read_s = now  # what came waits in the socket: silence has no meaning
        silent_s = now - self._last_read_s
        if self._expect_every_s and silent_s > self._expect_every_s * HEARTBEAT_GRACE:
            raise Unavailable(f"{self.endpoint} sent nothing for {silent_s:.1f} s: heart-beats are missing")

    def next_beat_s(self) -> float:
        """Seconds until ``beat`` has something to do."""
        now = time.monotonic()
        due = []
        if self._send_every_s:
            due.append(self._last_write_s + self._send_every_s * HEARTBEAT_AT - now)
        if self._expect_every_s and self.listens:
            due.append(self._last_read_s + self._expect_every_s * HEARTBEAT_GRACE - now)
        return max(0.01, min(due, default=60.0))

    # Reading

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
                body, self._body = self._body, None
                yield body.message()
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
            if self._body is None and self._waiting is None and self._unbounded is None:
                self._skip_beats()

    def _fill_buffer(self) -> bool:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            kept = self._end - self._start
            self._buffer[:kept] = self._buffer[self._start : self._end]
            self._start, self._end = 0, kept
        got = self._recv_into(memoryview(self._buffer)[self._end : self._end + READ_BYTES])
        self._end += got
        return got > 0

    def _fill_body(self) -> bool:
        body = self._body
        assert body is not None
        while body.missing:
            target = body.target(self._space, self._scratch)
            got = self._recv_into(target)
            if got == 0:
                return False
            body.received += got
        return True

    def _recv_into(self, target: memoryview) -> int:
        try:
            got = self._socket.recv_into(target)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise Unavailable(f"the connection to {self.endpoint} broke: {error}") from error
        if got == 0:
            raise Unavailable(f"{self.endpoint} closed the connection")
        self._last_read_s = time.monotonic()
        return got

    def _parse(self) -> Iterator[Message]:
        """What the buffer holds: whole small messages; the beginning of a larger one becomes ``_body``."""
        buffer = self._buffer
        while self._start < self._end:
            if self._unbounded is not None:
                message = self._parse_unbounded()
                if message is None:
                    return
                yield message
                continue
            self._skip_beats()
            head_end, body_start = end_of_head(buffer, self._start, self._end)
            if head_end < 0:
                if self._end - self._start > HEADERS_BYTES_MAX:
                    raise Unavailable(f"{self.endpoint} sent a frame with too long headers")
                return
            head = bytes(buffer[self._start : head_end]).replace(b"\r\n", b"\n")
            command, headers = parse_head(head, self.version)
            self._start = body_start
            if command == "MESSAGE" and "content-length" not in headers:
                self._unbounded, self._unbounded_headers = bytearray(), headers
            elif command == "MESSAGE":
                self._waiting = (headers, _content_length(headers, self.endpoint))
                if not self._begin_body():
                    self.paused = True
                    return
                assert self._body is not None
                if self._body.missing:
                    return
                body, self._body = self._body, None
                yield body.message()
            elif not self._parse_other(command, headers):
                return

    def _skip_beats(self) -> None:
        """Between two frames: heart-beats and the NUL of the frame before."""
        while self._start < self._end and self._buffer[self._start] in b"\r\n\0":
            self._start += 1

    def _begin_body(self) -> bool:
        """Takes space for the body that is due and what the buffer already has of it."""
        assert self._waiting is not None
        headers, length = self._waiting
        if length > self._body_bytes_max:
            body = _Body(headers, None, length)
        else:
            offset = self._space.allocate(length)
            if offset is None:
                return False
            body = _Body(headers, offset, length)
        self._waiting = None
        here = min(length, self._end - self._start)
        if here and body.offset is not None:
            with memoryview(self._buffer) as buffer:
                self._space.view(body.offset, here)[:] = buffer[self._start : self._start + here]
        self._start += here
        body.received = here
        self._body = body
        return True

    def _resume(self) -> bool:
        if self._waiting is not None and not self._begin_body():
            return False
        self.paused = False
        self._last_read_s = time.monotonic()
        return True

    def _parse_unbounded(self) -> Message | None:
        """A body that ends at the first NUL; each byte is looked at once."""
        assert self._unbounded is not None
        nul = self._buffer.find(b"\0", self._start, self._end)
        end = self._end if nul < 0 else nul
        self._unbounded += self._buffer[self._start : end]
        if len(self._unbounded) > self._body_bytes_max:
            del self._unbounded[self._body_bytes_max + 1 :]  # too large: only that fact is kept
        self._start = end
        if nul < 0:
            return None
        length = len(self._unbounded)
        if length > self._body_bytes_max:
            message = Message(self._unbounded_headers, None, 0, length)
        else:
            offset = self._space.allocate(length)
            if offset is None:
                self.paused = True
                return None
            self._space.view(offset, length)[:] = self._unbounded
            message = Message(self._unbounded_headers, offset, length, length)
        self._start += 1
        self._unbounded = None
        return message

    def _parse_other(self, command: str, headers: Mapping[str, str]) -> bool:
        """RECEIPT and ERROR. Their bodies end in NUL; False while that is not here yet."""
        nul = self._buffer.find(b"\0", self._start, self._end)
        if command == "RECEIPT":
            self.receipts.add(headers.get("receipt-id", ""))
        elif command == "ERROR":
            end = self._end if nul < 0 else nul
            detail = bytes(self._buffer[self._start : end])
            raise Unavailable(f"{self.endpoint} sent ERROR: {error_text(headers, detail)}")
        self._start = self._end if nul < 0 else nul + 1
        return True

    def _send(self, command: str, headers: dict[str, str]) -> None:
        self._outgoing.append(encode(command, headers, self.version))
        self.flush()


class _Body:
    """A body on its way into the arena, or past it when it is too large."""

    def __init__(self, headers: dict[str, str], offset: int | None, length: int) -> None:
        self.headers = headers
        self.offset = offset
        self.length = length
        self.received = 0

    @property
    def missing(self) -> int:
        return self.length - self.received

    def target(self, space: Space, scratch: memoryview) -> memoryview:
        if self.offset is None:
            return scratch[: min(len(scratch), self.missing)]
        return space.view(self.offset + self.received, self.missing)

    def message(self) -> Message:
        kept = self.length if self.offset is not None else 0
        return Message(self.headers, self.offset, kept, self.length)

    def release(self, space: Space) -> None:
        if self.offset is not None:
            space.free(self.offset, self.length)


def _content_length(headers: Mapping[str, str], endpoint: Endpoint) -> int:
    text = headers["content-length"].strip()
    if not text.isascii() or not text.isdigit():
        raise Unavailable(f"{endpoint} sent a frame with content-length {text[:40]!r}")
    return int(text)
