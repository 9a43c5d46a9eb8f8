"""One STOMP connection of the receiver or a publisher, from CONNECT to DISCONNECT: message bodies go into shared memory.

Theory of operation. ``codec`` makes bytes of frames, ``incoming`` messages of bytes. stomp.py's own client is not used:
its loop copies each body five times and lets a long frame look like a lost heart-beat (docs/decisions/0002-receiving.md).
The socket is non-blocking and belongs to the receiver's only thread.

One object serves one connection epoch and is never opened again.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections import deque
from itertools import islice

from ingest.errors import Unavailable
from ingest.transport.message import Space
from ingest.transport.stomp.codec import write_acks, write_head
from ingest.transport.stomp.dialects import flow_control
from ingest.transport.stomp.heads import DamagedFrames
from ingest.transport.stomp.incoming import Incoming
from ingest.transport.stomp.opening import Endpoint, open_stomp

BUFFERS_MAX = 64  # of one sendmsg; the kernel takes 1024
HEARTBEAT_AT = 0.5  # of the interval; a broker may grant no grace beyond it, and a busy machine is late
HEARTBEAT_GRACE = 2.0  # of the agreed interval; the specification asks for an error margin
# In the middle of a frame nothing but line ends for that many intervals: they are heart-beats, and the frame is over.
BEATS_IN_FRAME = 3
MANY_BEATS = 16  # bytes; more than that at once is content
SILENCE_IN_FRAME_S = 120.0  # where no heart-beats were agreed on


class StompClient:
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
        damaged: DamagedFrames | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._outgoing: deque[bytes | memoryview] = deque()
        opened = open_stomp(endpoint, connect_timeout_s, heartbeat_s)
        self.version, self.server = opened.version, opened.server
        self._send_every_s, self._expect_every_s = opened.send_every_s, opened.expect_every_s
        self._socket: socket.socket = opened.socket
        self._last_read_s = self._last_write_s = self._content_s = time.monotonic()
        self._incoming = Incoming(
            self._recv_into,
            broker=str(endpoint),
            version=self.version,
            body_bytes_max=body_bytes_max,
            space=space,  # type: ignore[arg-type]  # None: nobody subscribes
            damaged=damaged or DamagedFrames(),
        )
        self.read, self.listen = self._incoming.read, self._incoming.listen

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
        self._outgoing.append(memoryview(write_acks(messages, subscription, self.version)))

    def send_message(self, destination: str, body: bytes | memoryview, headers: dict[str, str]) -> None:
        """Queues a persistent SEND; ``flush`` sends it, a receipt appears in ``receipts``. The body is not copied."""
        fixed = {"destination": destination, "persistent": "true", "content-length": str(len(body))}
        if "rabbitmq" in self.server.lower() and self.endpoint.user is not None:
            fixed["user-id"] = self.endpoint.user  # it vouches for that, and adds none by itself
        if "receipt" in headers:
            self._incoming.awaited.add(headers["receipt"])
        self._outgoing.extend((write_head("SEND", headers | fixed, self.version), body, b"\0"))

    def disconnect(self, receipt: str) -> None:
        """Says goodbye; the answer appears in ``receipts``."""
        self._incoming.awaited.add(receipt)
        self._send("DISCONNECT", {"receipt": receipt})

    def close(self) -> None:
        self._incoming.close()
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
            self._last_read_s = self._content_s = now  # what came waits in the socket: silence has no meaning
        silent_s = now - self._last_read_s
        if self._expect_every_s and silent_s > self._expect_every_s * HEARTBEAT_GRACE:
            raise Unavailable(f"{self.endpoint} sent nothing for {silent_s:.1f} s: heart-beats are missing")
        self._check_frame(now)

    def _check_frame(self, now: float) -> None:
        """A frame that says that it is longer than it is would swallow all that comes."""
        patience_s = BEATS_IN_FRAME * self._expect_every_s or SILENCE_IN_FRAME_S
        if self.unread or not self._incoming.is_inside_frame:
            self._content_s = now  # the rest of a frame may wait to be read
        elif now - self._content_s > patience_s:
            raise self._incoming.lose(f"no more of it came for {now - self._content_s:.0f} s")

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

    @property
    def paused(self) -> bool:
        """The arena is full: a body waits for space."""
        return self._incoming.paused

    @property
    def unread(self) -> bool:
        """Messages may be here that no event of the socket will tell of."""
        return self._incoming.unread

    @property
    def listens(self) -> bool:
        return self._incoming.listens

    @property
    def receipts(self) -> set[str]:
        return self._incoming.receipts

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
        if got > MANY_BEATS or bytes(target[:got]).strip(b"\n"):
            self._content_s = self._last_read_s
        return got

    def _send(self, command: str, headers: dict[str, str]) -> None:
        self._outgoing.append(write_head(command, headers, self.version) + b"\0")
        self.flush()
