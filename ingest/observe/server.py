"""Serves a few small pages to anybody who can connect, from one thread and with a fixed number of descriptors.

Theory of operation. Whoever asks may be hostile, and the engine has to start children while they try. So there are
never more than a handful of connections: a newcomer takes the place of the one that has kept us waiting longest. A
connection has seconds to say what it wants, gets one answer, and ends. After each turn the thread rests
three times as long as it worked, so that nobody gets more than a quarter of a core out of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import stat
import threading
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import structlog

from ingest.observe.http import HEAD_BYTES_MAX, Page, Refusal, head_end, read_request, write_answer

UNIX = "unix:"  # before the path of a socket
SOCKET_MODE = 0o660  # who may connect is the owner's and the group's
BACKLOG = 128  # connections that the kernel holds for us: they cost us no descriptor
ACCEPTS_MAX = 8  # in one turn, so that a flood leaves those who are here their time
DISCARD_BYTES = 64 * 1024  # of what nobody wants, in one turn
REST_FACTOR = 3.0
NO_DESCRIPTOR_REST_S = 0.1


class Limits(NamedTuple):
    connections_max: int = 16  # two scrapers, probes and people; each is a descriptor
    head_timeout_s: float = 5.0  # from the connection to the end of its request
    answer_timeout_s: float = 10.0  # Prometheus gives up after 10 s itself
    linger_s: float = (
        1.0  # for the other side to read the answer, before what it still sends resets the connection
    )


class Server:
    """``run`` is the thread's; ``close`` is for any other."""

    def __init__(
        self,
        listener: socket.socket,
        pages: Callable[[str], Page],
        hosts: Collection[str] = (),
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._pages = pages
        is_unix = listener.family == socket.AF_UNIX
        self._hosts = None if is_unix else frozenset(host.lower() for host in hosts)
        self.server_port: int = 0 if is_unix else listener.getsockname()[1]
        self._path = listener.getsockname() if is_unix else ""
        self._limits = limits or Limits()
        self._clock = clock
        self._connections: set[_Connection] = set()
        self._stopping = threading.Event()
        self._waker, self._wakened = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._selector.register(self._wakened, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self.run, name="metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def run(self) -> None:
        while not self._stopping.is_set():
            before_s = time.thread_time()
            least_s = self.turn(self._patience_s())
            self._stopping.wait(max(least_s, REST_FACTOR * (time.thread_time() - before_s)))

    def close(self) -> None:
        self._stopping.set()
        self._waker.send(b"\0")
        if self._thread.is_alive():
            self._thread.join(self._limits.answer_timeout_s)
        for connection in list(self._connections):
            self._part_with(connection)
        for opened in (self._listener, self._waker, self._wakened):
            opened.close()
        self._selector.close()
        if self._path:
            Path(self._path).unlink(missing_ok=True)

    # One turn

    def turn(self, patience_s: float | None) -> float:
        """Waits for whoever is first, and does what can be done at once; returns how long to rest at least."""
        events = self._selector.select(patience_s)
        now_s = self._clock()
        rest_s = 0.0
        for key, _ in events:
            if key.fileobj is self._listener:
                rest_s = self._accept(now_s)
            elif isinstance(key.data, _Connection):
                self._advance(key.data, now_s)
        for connection in [one for one in self._connections if now_s >= one.until_s]:
            self._part_with(connection)
        return rest_s

    def _patience_s(self) -> float | None:
        until_s = min((one.until_s for one in self._connections), default=None)
        return None if until_s is None else max(0.0, until_s - self._clock())

    def _accept(self, now_s: float) -> float:
        for _ in range(ACCEPTS_MAX):
            try:
                opened, _peer = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._make_room(0)  # what we have may be what others need
                    return NO_DESCRIPTOR_REST_S
                return 0.0  # none left, or it has gone again
            self._make_room(self._limits.connections_max - 1)
            opened.setblocking(False)
            connection = _Connection(opened, now_s, now_s + self._limits.head_timeout_s)
            self._connections.add(connection)
            self._selector.register(opened, selectors.EVENT_READ, connection)
            self._advance(connection, now_s)  # whoever means it has sent its request already
        return 0.0

    def _make_room(self, allowed: int) -> None:
        """Those that have their answer go first, then those that have not asked yet, the longest here before others."""
        while len(self._connections) > allowed:
            self._part_with(min(self._connections, key=_Connection.worth))

    def _advance(self, connection: _Connection, now_s: float) -> None:
        if connection not in self._connections:
            return
        try:
            if connection.phase == READING:
                self._read(connection, now_s)
            if connection.phase == ANSWERING:
                self._write(connection, now_s)
            elif connection.phase == LEAVING and not connection.socket.recv(DISCARD_BYTES):
                self._part_with(connection)
        except BlockingIOError:
            pass
        except OSError:
            self._part_with(connection)  # it left; that is no event

    def _read(self, connection: _Connection, now_s: float) -> None:
        more = connection.socket.recv(HEAD_BYTES_MAX)
        if not more:
            self._part_with(connection)
            return
        connection.received += more
        method = "GET"
        try:
            end = head_end(connection.received)
            if end is None:
                return
            request = read_request(bytes(connection.received[:end]), self._hosts)
            method = request.method
            page = self._pages(request.path)
        except Refusal as refusal:
            page = refusal.page
        except Exception as error:  # whatever a page fails of, the next request finds us here
            structlog.get_logger().error("metrics_failed", reason=f"{type(error).__name__}: {error}")
            page = Page(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"the log says more\n")
        connection.received.clear()
        connection.unsent = memoryview(write_answer(page, method))
        connection.phase = ANSWERING
        connection.until_s = now_s + self._limits.answer_timeout_s
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)

    def _write(self, connection: _Connection, now_s: float) -> None:
        connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
        if not connection.unsent:
            connection.socket.shutdown(socket.SHUT_WR)
            connection.phase = LEAVING
            connection.until_s = now_s + self._limits.linger_s
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    def _part_with(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()


LEAVING, READING, ANSWERING = range(3)  # the life of a connection, in the order of what ending it early costs


class _Connection:
    def __init__(self, opened: socket.socket, since_s: float, until_s: float) -> None:
        self.socket = opened
        self.since_s = since_s
        self.until_s = until_s  # it ends then, whatever it does
        self.phase = READING
        self.received = bytearray()
        self.unsent = memoryview(b"")

    def worth(self) -> tuple[int, float]:
        return self.phase, self.since_s


def listen(host: str, port: int) -> socket.socket:
    """A listening socket at an address, or at ``unix:/PATH``. Raises OSError."""
    if host.startswith(UNIX):
        return _listen_at(host.removeprefix(UNIX))
    family, _, _, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return _listening(listener)
    except OSError:
        listener.close()
        raise


def _listen_at(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_left_behind(path)
        listener.bind(path)
        os.chmod(path, SOCKET_MODE)  # nobody can connect before it listens
        return _listening(listener)
    except (OSError, ValueError):  # a NUL in it
        listener.close()
        raise


def _listening(listener: socket.socket) -> socket.socket:
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _remove_left_behind(path: str) -> None:
    """A socket that nobody listens at any more. Raises OSError where something else is in the way."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "a file that is not a socket is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)  # who listens and accepts nobody would hold us up
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            except BlockingIOError:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
            else:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
