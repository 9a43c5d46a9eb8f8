"""The broker's process: one thread that waits for all clients and moves their bytes.

Without a directory for its journal everything is in memory and ends with the process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import structlog

from ingest.embedded.broker.admission import Admission
from ingest.embedded.broker.broker_session import SERVER, Faults
from ingest.embedded.broker.client_connection import ClientConnection, Gone
from ingest.embedded.broker.client_warnings import ClientWarnings
from ingest.embedded.broker.journal import Journal
from ingest.embedded.broker.listening import Listener, Place, open_listeners
from ingest.embedded.broker.logins import Logins
from ingest.embedded.broker.messages import Depth
from ingest.embedded.broker.parser import Limits
from ingest.embedded.broker.queues import Queues
from ingest.errors import Misconfigured

CONNECTIONS_MAX = 500  # half of the descriptors that Debian gives a process (ulimit -n: 1024)
ACCEPTS_MAX = 64  # in one turn, so that a storm of clients does not starve those who are here
LOOK_AROUND_S = 1.0  # the longest wait


class Settings(NamedTuple):
    logins: Logins = Logins()
    memory_bytes_max: int = 1024**3  # of all messages held; over it, producers wait
    limits: Limits = Limits()
    connections_max: int = CONNECTIONS_MAX
    certfile: str = ""  # with it, TLS
    keyfile: str = ""
    public: tuple[Place, ...] = ()  # where it listens, too
    directory: str = ""  # of the journal; empty: there is none
    disk_bytes_max: int = 10 * 1024**3  # of the journal; over it, producers are refused


class Server:
    """``run`` and ``close`` belong to one thread; ``stop`` is for any thread and for signal handlers."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: Settings | None = None,
        *,
        faults: Faults | None = None,
        instance: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Listens. ``instance`` begins every message id; random unless given."""
        self._settings = settings = settings or Settings()
        if settings.limits.body_bytes_max > settings.memory_bytes_max:
            raise Misconfigured("memory_bytes_max", "is smaller than the largest body that is let in")
        self._faults = faults or Faults()
        self._clock = clock
        self._log = structlog.get_logger()
        self._admission = Admission(settings.memory_bytes_max, lambda: self._queues.held_bytes)
        self._connections: set[ClientConnection] = set()
        self._accepted = 0
        self._warnings = ClientWarnings(self._log)
        self._touched: set[ClientConnection] = set()  # whose interests may have changed in this turn
        self._look_at_s = 0.0  # when the next heart-beat or time limit is due
        self._stopping = False
        self._listeners = open_listeners(
            Place(host, port, settings.certfile, settings.keyfile), *settings.public
        )
        self._journal = self._open_journal()
        self._queues = Queues(instance or os.urandom(4).hex(), clock_ms, self._journal)
        self.address: tuple[str, int] = self._listeners[0].listening.getsockname()[:2]
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._selector = selectors.DefaultSelector()
        for listener in self._listeners:
            self._selector.register(listener.listening, selectors.EVENT_READ, None)
        self._selector.register(self._wakened, selectors.EVENT_READ, None)
        self._log.info(
            "embedded_broker_started",
            server=SERVER,
            host=self.address[0],
            port=self.address[1],
            tls=self._listeners[0].tls is not None,
            public=[place.address for place in settings.public],
            login=settings.logins.all_rights is not None,
            memory_bytes_max=settings.memory_bytes_max,
            journal=settings.directory or None,
            note=None if self._journal else "for evaluation and tests: messages end with this process",
        )

    def _open_journal(self) -> Journal | None:
        settings = self._settings
        if not settings.directory:
            return None
        try:
            return Journal(Path(settings.directory), settings.disk_bytes_max, wake=self._wake)
        except BaseException:
            for listener in self._listeners:
                listener.listening.close()
            raise

    def run(self) -> None:
        """Until ``stop`` is called."""
        while not self._stopping:
            self._turn()

    def stop(self) -> None:
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes up anyway; closed: it has ended
            self._waker.send(b"\0")

    def depths(self) -> dict[str, Depth]:
        """How much each destination holds. For the thread of ``run``; others use ``read_depths``."""
        return self._queues.depths()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        for connection in list(self._connections):
            connection.confirm(self._clock(), "")
            with contextlib.suppress(Gone):
                connection.write(self._clock())  # what the kernel takes at once
            self._part_with(connection)
        lost = sum(depth.ready for depth in self._queues.depths().values())
        for opened in (*(each.listening for each in self._listeners), self._waker, self._wakened):
            opened.close()
        self._selector.close()
        self._log.info(
            "embedded_broker_stopped", **{"messages_kept" if self._journal else "messages_forgotten": lost}
        )

    # One turn of the loop

    def _turn(self) -> None:
        events = self._selector.select(self._patience_s())
        now_s = self._clock()
        # What TLS has decrypted already, no selector tells.
        for connection in [one for one in self._touched if one.has_unread]:
            self._attempt(connection, connection.read, now_s)
        for key, mask in events:
            if key.data is None:
                self._look_at(key.fileobj, now_s)
                continue
            connection = cast(ClientConnection, key.data)
            self._touched.add(connection)
            if mask & selectors.EVENT_READ:
                self._attempt(connection, connection.read, now_s)
        self._let_producers_in(now_s)
        for delivery in self._queues.deliveries():
            connection = cast(ClientConnection, delivery.subscription.consumer.owner)
            connection.deliver(delivery)
            self._touched.add(connection)
        self._keep(now_s)
        for connection in list(self._touched):
            self._attempt(connection, connection.write, now_s)
        if now_s >= self._look_at_s:
            self._keep_time(now_s)
        self._touched = {one for one in self._touched if self._listen_to(one)}

    def _keep(self, now_s: float) -> None:
        """What happened in this turn, on its way to the disk; receipts for what has got there."""
        if self._journal is None:
            return
        if self._journal.turn():
            for connection in self._connections:
                if connection.session.is_confirming:
                    connection.confirm(now_s, self._journal.failure)
                    self._touched.add(connection)
        self._queues.let_bodies_go(self._settings.memory_bytes_max // 2)

    def _patience_s(self) -> float:
        # A message that a write has just made room for, or bytes inside TLS, wait for no event.
        if self._queues.is_active or self._touched or self._admission.next_in_line() is not None:
            return 0.0
        return min(LOOK_AROUND_S, max(0.0, self._look_at_s - self._clock()))

    def _look_at(self, opened: object, now_s: float) -> None:
        if opened is self._wakened:
            with contextlib.suppress(BlockingIOError):
                self._wakened.recv(4096)
            return
        for listener in self._listeners:
            if opened is listener.listening:
                self._accept(listener, now_s)

    def _attempt(self, connection: ClientConnection, action: Callable[[float], None], now_s: float) -> None:
        if connection not in self._connections:
            return
        was_connected = connection.session.version is not None
        try:
            action(now_s)
        except Gone:
            self._part_with(connection)
        else:
            if connection.closing or was_connected != (connection.session.version is not None):
                self._look_at_s = 0.0  # a heart-beat or a time limit is new

    def _let_producers_in(self, now_s: float) -> None:
        while (producer := self._admission.next_in_line()) is not None:
            connection = cast(ClientConnection, producer)
            self._touched.add(connection)
            self._attempt(connection, connection.process, now_s)

    def _keep_time(self, now_s: float) -> None:
        for connection in list(self._connections):
            self._attempt(connection, connection.tick, now_s)
            if connection in self._connections:
                if connection.wants_write:
                    self._attempt(connection, connection.write, now_s)
                self._touched.add(connection)
        # Not later: what is due changes with each message that begins.
        self._look_at_s = min((now_s + LOOK_AROUND_S, *(one.due_s() for one in self._connections)))

    # Connections

    def _accept(self, listener: Listener, now_s: float) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                opened, peer = listener.accept()
            except OSError:
                return  # none left, or it has gone again
            if not self._has_place():
                self._warnings.warn(
                    now_s, "client_turned_away", connections_max=self._settings.connections_max
                )
                opened.close()
                continue
            self._accepted += 1
            connection = ClientConnection(
                opened,
                f"{peer}-{self._accepted}",
                self._queues,
                self._admission,
                self._settings.limits,
                self._settings.logins,
                self._faults,
                now_s=now_s,
            )
            self._connections.add(connection)
            self._touched.add(connection)
            self._selector.register(opened, selectors.EVENT_READ, connection)
            self._look_at_s = 0.0

    def _has_place(self) -> bool:
        """For one more; the longest here of those who have not logged in makes room for it, else the most silent of those who
        only send: they come again, and a queue without its consumer is no good to them."""
        if len(self._connections) < self._settings.connections_max:
            return True
        strangers = [one for one in self._connections if one.session.version is None]
        senders = [one for one in self._connections if one.session.only_sends]
        if strangers:
            self._part_with(min(strangers, key=ClientConnection.due_s))
        elif senders:
            self._part_with(min(senders, key=lambda one: one.last_read_s))
        return bool(strangers or senders)

    def _listen_to(self, connection: ClientConnection) -> bool:
        """Tells the selector what the connection waits for. True: it has to have another turn at once."""
        if connection not in self._connections:
            return False
        wanted = selectors.EVENT_READ * connection.wants_read | selectors.EVENT_WRITE * connection.wants_write
        key = self._selector.get_map().get(connection.socket)
        if key is None:
            if wanted:
                self._selector.register(connection.socket, wanted, connection)
        elif not wanted:
            self._selector.unregister(connection.socket)
        elif key.events != wanted:
            self._selector.modify(connection.socket, wanted, connection)
        return connection.has_unread

    def _part_with(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection.socket)
        connection.close()
        if connection.reason:
            self._warnings.warn(
                self._clock(), "client_hung_up_on", client=connection.session.name, reason=connection.reason
            )
