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

import os

os.environ.setdefault("STOMP_SKIP_HOSTNAME_SCAN", "1")  # stomp.py resolves every interface on import

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from stomp.utils import Frame, calculate_heartbeats, convert_frame, pack

from ingest.errors import Misconfigured, Unavailable

HEADERS_BYTES_MAX = 64 * 1024  # a frame's command and headers; ours take about 500 bytes
READ_BYTES = 256 * 1024  # one recv while looking for headers; small frames come many at once
SOCKET_BUFFER_BYTES = 4 * 1024 * 1024  # the kernel cuts it to net.core.rmem_max
VERSIONS = "1.0,1.1,1.2"  # of STOMP
ERROR_BYTES_MAX = 500  # of what an ERROR frame tells
HEARTBEAT_GRACE = 2.0  # of the agreed interval; the specification asks for an error margin
_NOT_YET = ("Processing error",)  # RabbitMQ while it starts; a login that it refuses is "Bad CONNECT"
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL's x509_vfy.h
_WRONG_NAME = (62, 64)


class Endpoint(NamedTuple):
    """Where a broker is and who we are there."""

    host: str
    port: int
    user: str | None
    password: str | None
    vhost: str
    tls: ssl.SSLContext | None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


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
        self.version = "1.0"
        self.server = ""
        self.paused = False  # the arena is full: a body waits for space
        self.unread = False  # messages may be here that no event of the socket will tell of
        self.receipts: set[str] = set()
        self._space: Space = space  # type: ignore[assignment]  # None: nobody subscribes
        self._body_bytes_max = body_bytes_max
        self._outgoing = bytearray()
        self._buffer = bytearray(READ_BYTES)  # headers and small frames
        self._start = self._end = 0  # of what is not yet parsed in it
        self._body: _Body | None = None
        self._waiting: tuple[dict[str, str], int] | None = None
        self._unbounded: bytearray | None = None  # a body without content-length, so far
        self._unbounded_headers: dict[str, str] = {}
        self._scratch = memoryview(bytearray(64 * 1024))
        self._send_every_s = self._expect_every_s = 0.0
        self._socket = self._connect(connect_timeout_s, heartbeat_s)
        self._last_read_s = self._last_write_s = time.monotonic()

    # Life

    def _connect(self, timeout_s: float, heartbeat_s: float) -> socket.socket:
        where = self.endpoint
        deadline = time.monotonic() + timeout_s
        try:
            plain = socket.create_connection((where.host, where.port), timeout=timeout_s)
        except OSError as error:
            raise Unavailable(
                f"no STOMP broker at {where} (--queue-source): {error.strerror or error}"
            ) from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            opened = plain if where.tls is None else where.tls.wrap_socket(plain, server_hostname=where.host)
        except OSError as error:
            plain.close()
            raise _no_tls(error, where) from error
        try:
            headers = {"accept-version": VERSIONS, "host": where.vhost}
            if where.user is not None:
                headers |= {"login": where.user, "passcode": where.password or ""}
            beat = int(heartbeat_s * 1000)
            headers["heart-beat"] = f"{beat},{beat}"
            opened.sendall(_encode("CONNECT", headers, "1.0"))
            self._handshake(opened, deadline, beat)
            opened.setblocking(False)
        except (OSError, Unavailable, Misconfigured) as error:
            opened.close()
            if isinstance(error, ssl.SSLError):  # TLS 1.3 refuses a client's certificate only now
                raise _no_tls(error, where) from error
            if isinstance(error, OSError):
                raise Unavailable(
                    f"{where} broke off the STOMP handshake (--queue-source): {error.strerror or error}"
                ) from error
            raise
        return opened

    def _handshake(self, opened: socket.socket, deadline: float, beat_ms: int) -> None:
        received = bytearray()
        while (end := received.find(b"\0")) < 0:
            opened.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = opened.recv(4096)
            except TimeoutError as error:
                raise Unavailable(f"{self.endpoint} does not answer in STOMP (--queue-source)") from error
            received += data
            if not data:
                # Some brokers close on a refused login without an ERROR frame.
                raise Unavailable(
                    f"{self.endpoint} closed the connection instead of CONNECTED (--queue-source)"
                )
            if len(received) > HEADERS_BYTES_MAX:
                raise Misconfigured("--queue-source", f"{self.endpoint} does not speak STOMP")
        head, _, body = bytes(received[:end]).lstrip(b"\r\n").partition(b"\n\n")
        command, headers = _parse_head(head.replace(b"\r\n", b"\n"), "1.0")
        if command == "ERROR":
            reason = _reason(headers, body)
            if reason in _NOT_YET:
                raise Unavailable(f"{self.endpoint} is not ready: {reason}")
            raise Misconfigured("--queue-source", f"{self.endpoint} refused the login: {reason}")
        if command != "CONNECTED":
            raise Misconfigured("--queue-source", f"{self.endpoint} does not speak STOMP")
        self.version = headers.get("version", "1.0")
        self.server = headers.get("server", "")
        if "heart-beat" in headers and self.version != "1.0":
            send_ms, expect_ms = calculate_heartbeats(
                headers["heart-beat"].replace(" ", "").split(","), (beat_ms, beat_ms)
            )
            self._send_every_s, self._expect_every_s = send_ms / 1000, expect_ms / 1000

    def subscribe(
        self, destination: str, subscription: str, prefetch_messages: int, window_bytes: int
    ) -> None:
        headers = {
            "destination": destination,
            "id": subscription,
            "ack": "client-individual" if self.version != "1.0" else "client",
            **flow_control(self.server, prefetch_messages, window_bytes),
        }
        self._send("SUBSCRIBE", headers)

    def acknowledge(self, messages: list[tuple[str, str]], subscription: str) -> None:
        """Queues an ACK for each (ack header, message-id); ``flush`` sends them joined."""
        for ack, message_id in messages:
            if self.version == "1.2":
                headers = {"id": ack}
            elif self.version == "1.1":
                headers = {"message-id": message_id, "subscription": subscription}
            else:
                headers = {"message-id": message_id}
            self._outgoing += _encode("ACK", headers, self.version)

    def send_message(self, destination: str, body: bytes, headers: dict[str, str]) -> None:
        """Queues a persistent SEND; ``flush`` sends it, a receipt appears in ``receipts``."""
        fixed = {"destination": destination, "persistent": "true", "content-length": str(len(body))}
        head = _encode("SEND", headers | fixed, self.version)
        self._outgoing += head[:-1]  # without the NUL that ends an empty frame
        self._outgoing += body
        self._outgoing += b"\0"

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

    # Writing and heart-beats

    @property
    def wants_write(self) -> bool:
        return bool(self._outgoing)

    def flush(self) -> None:
        """Sends what the socket takes now."""
        while self._outgoing:
            try:
                sent = self._socket.send(self._outgoing)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError as error:
                raise Unavailable(f"the connection to {self.endpoint} broke: {error}") from error
            del self._outgoing[:sent]
            self._last_write_s = time.monotonic()

    def beat(self) -> None:
        """Sends a heart-beat when one is due; raises Unavailable when the broker's are missing."""
        now = time.monotonic()
        if self._send_every_s and now - self._last_write_s >= self._send_every_s * 0.8 and not self._outgoing:
            self._outgoing += b"\n"
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
            due.append(self._last_write_s + self._send_every_s * 0.8 - now)
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
        got = self._recv_into(memoryview(self._buffer)[self._end :])
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
            head_end, body_start = _end_of_head(buffer, self._start, self._end)
            if head_end < 0:
                if self._end - self._start > HEADERS_BYTES_MAX:
                    raise Unavailable(f"{self.endpoint} sent a frame with too long headers")
                return
            head = bytes(buffer[self._start : head_end]).replace(b"\r\n", b"\n")
            command, headers = _parse_head(head, self.version)
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
            self._space.view(body.offset, here)[:] = self._buffer[self._start : self._start + here]
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
            raise Unavailable(f"{self.endpoint} sent ERROR: {_reason(headers, detail)}")
        self._start = self._end if nul < 0 else nul + 1
        return True

    def _send(self, command: str, headers: dict[str, str]) -> None:
        self._outgoing += _encode(command, headers, self.version)
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


def flow_control(server: str, prefetch_messages: int, window_bytes: int) -> dict[str, str]:
    """The header by which a broker of this name limits what it sends unacknowledged."""
    name = server.lower()
    if "artemis" in name:
        return {"consumer-window-size": str(window_bytes)}
    if "activemq" in name:
        return {"activemq.prefetchSize": str(prefetch_messages)}
    if "rabbitmq" in name:
        return {"prefetch-count": str(prefetch_messages)}
    return {"prefetch-count": str(prefetch_messages), "activemq.prefetchSize": str(prefetch_messages)}


def _no_tls(error: OSError, where: Endpoint) -> Misconfigured | Unavailable:
    """What a failed TLS handshake means to whoever can change it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"the certificate of {where} is not trusted: {error.verify_message.rstrip('.')}"
        return Misconfigured("--queue-source" if error.verify_code in _WRONG_NAME else "--tls-ca-file", what)
    reason = getattr(error, "reason", None) or ""
    if "WRONG_VERSION_NUMBER" in reason:
        return Misconfigured("--queue-source", f"{where} does not speak TLS: its address is stomp://...")
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        told = reason.partition("ALERT_")[2].replace("_", " ").lower()
        return Misconfigured("--tls-cert-file", f"{where} wants a certificate that it trusts: {told}")
    # A port without TLS is silent, or closes: nothing tells it from a broker that is in trouble.
    if isinstance(error, TimeoutError):
        reason = "it does not answer"
    elif isinstance(error, ssl.SSLEOFError | ConnectionResetError):
        reason = "it closed the connection"
    return Unavailable(f"no TLS with {where} (--queue-source): {reason or error.strerror or error}")


def _reason(headers: Mapping[str, str], body: bytes) -> str:
    """What an ERROR frame says, in one line. Brokers put it into the header, the body or both; ActiveMQ's body
    goes on with a stack trace."""
    text = " ".join(headers.get("message", "").split())
    detail = body[:ERROR_BYTES_MAX].decode("utf-8", "replace").strip().partition("\n")[0].strip()
    if not detail or (text and text in detail):
        return text or "no reason given"
    return f"{text}: {detail}" if text else detail


def _encode(command: str, headers: dict[str, str], version: str) -> bytes:
    if version != "1.0" and command != "CONNECT":
        headers = {name: _escape(value, version) for name, value in headers.items()}
    packed: bytes = pack(convert_frame(Frame(command, headers, None)))
    return packed


def _escape(value: str, version: str) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n").replace(":", "\\c")
    return value.replace("\r", "\\r") if version == "1.2" else value


def _parse_head(head: bytes, version: str) -> tuple[str, dict[str, str]]:
    """Command and headers; the first of a repeated header counts (STOMP 1.2, "Repeated Header Entries")."""
    lines = head.decode("utf-8", "replace").split("\n")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if version != "1.0" and "\\" in line:
            name, value = _unescape(name), _unescape(value)
        headers.setdefault(name, value)
    return lines[0], headers


def _unescape(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\c", ":").replace("\\r", "\r") for part in parts)


def _end_of_head(buffer: bytearray, start: int, end: int) -> tuple[int, int]:
    """(where the headers end, where the body starts), or (-1, -1) while the blank line is not here."""
    plain = buffer.find(b"\n\n", start, end)
    carriage = buffer.find(b"\n\r\n", start, end if plain < 0 else plain)
    if carriage >= 0:
        return carriage, carriage + 3
    return (plain, plain + 2) if plain >= 0 else (-1, -1)


def _content_length(headers: Mapping[str, str], endpoint: Endpoint) -> int:
    text = headers["content-length"].strip()
    if not text.isascii() or not text.isdigit():
        raise Unavailable(f"{endpoint} sent a frame with content-length {text[:40]!r}")
    return int(text)
