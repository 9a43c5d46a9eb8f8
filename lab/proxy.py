"""A TCP proxy that can hurt what passes through it: refuse, reset, stall, slow down, dribble, cut at a byte."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from enum import Enum, auto

CHUNK_BYTES = 64 * 1024
TAIL_BYTES = 4096
POLL_S = 0.05  # how late a change of the mode may be noticed
LATENCY_S = 0.1  # of a slow link; a chunk each time, so no more than 640 kB/s
DRIBBLE_PAUSE_S = 0.0005  # between two single bytes: 2 kB/s and more frames than anybody wants to see
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends RST


class Mode(Enum):
    PASS = auto()
    STALL = auto()  # half-open: both sides look alive and nothing passes
    SLOW = auto()  # a link over half the world
    DRIBBLE = auto()  # byte by byte
    REFUSE = auto()  # new connections end at once, those that are open go on


_PAUSES_S = {Mode.SLOW: LATENCY_S, Mode.DRIBBLE: DRIBBLE_PAUSE_S}


class Proxy:
    """Listens on a port of its own; every connection gets one to the target. Ends with ``close``."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.mode = Mode.PASS
        self.connections = 0  # ever made
        self.tail_to_server = self.tail_to_client = b""  # the last that passed, for a test to look at
        self._freeze_after: bytes | None = None  # what a client says
        self._cut_after_bytes: int | None = None  # of what goes to the client, counted from ``cut_at``
        self._links: set[tuple[socket.socket, socket.socket]] = set()
        self._frozen: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Every open connection ends with RST, both ways."""
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            for end in link:
                _reset(end)

    def freeze(self) -> None:
        """What is open now stays open and never passes a byte again, as behind a firewall that forgot it."""
        with self._lock:
            self._frozen |= self._links

    def freeze_after(self, said: bytes | None) -> None:
        """As ``freeze`` for the connection over which a client says this next: the server hears it, and its answer
        comes to nobody. None: no longer."""
        with self._lock:
            self._freeze_after = said

    @property
    def waits_to_freeze(self) -> bool:
        with self._lock:
            return self._freeze_after is not None

    def cut_at(self, byte: int) -> None:
        """The connection over which the next bytes come to the client is reset after this many of them."""
        with self._lock:
            self._cut_after_bytes = byte

    def close(self) -> None:
        self._closing.set()
        self._listener.close()
        self._thread.join(5)
        self.reset()

    def _accept(self) -> None:
        self._listener.settimeout(POLL_S)
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.connections += 1
            if self.mode is Mode.REFUSE:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self.target, 5)
            except OSError:
                _reset(client)
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = (client, server)
            with self._lock:
                self._links.add(link)
            for source, sink, to_client in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(link, source, sink, to_client), daemon=True).start()

    def _pump(
        self,
        link: tuple[socket.socket, socket.socket],
        source: socket.socket,
        sink: socket.socket,
        to_client: bool,
    ) -> None:
        with contextlib.suppress(OSError, ValueError):
            while link in self._links:
                if self._is_stalled(link):
                    self._closing.wait(POLL_S)
                    continue
                if not select.select([source], [], [], POLL_S)[0]:
                    continue
                data = source.recv(1 if self.mode is Mode.DRIBBLE else CHUNK_BYTES)
                if not data:
                    break
                self._closing.wait(_PAUSES_S.get(self.mode, 0.0))
                if to_client and self._is_cut(data, sink):
                    break
                while self._is_stalled(link) and link in self._links:
                    self._closing.wait(POLL_S)  # what was read before the stall waits too
                if not to_client:
                    self._freeze_if_said(link, data)
                sink.sendall(data)
                self._remember(data, to_client)
        with self._lock:
            self._links.discard(link)
        # RST and not FIN where a byte was cut; an end that came by itself is passed on as one.
        for end in link:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _is_stalled(self, link: tuple[socket.socket, socket.socket]) -> bool:
        return self.mode is Mode.STALL or link in self._frozen

    def _freeze_if_said(self, link: tuple[socket.socket, socket.socket], data: bytes) -> None:
        with self._lock:
            if self._freeze_after is not None and self._freeze_after in data:
                self._freeze_after = None
                self._frozen.add(link)

    def _remember(self, data: bytes, to_client: bool) -> None:
        if to_client:
            self.tail_to_client = (self.tail_to_client + data)[-TAIL_BYTES:]
        else:
            self.tail_to_server = (self.tail_to_server + data)[-TAIL_BYTES:]

    def _is_cut(self, data: bytes, sink: socket.socket) -> bool:
        with self._lock:
            if self._cut_after_bytes is None:
                return False
            left = self._cut_after_bytes
            if len(data) < left:
                self._cut_after_bytes = left - len(data)
                return False
            self._cut_after_bytes = None
        sink.sendall(data[:left])
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        return True


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RD)  # wakes a thread that waits in recv
    end.close()
