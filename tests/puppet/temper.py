"""Brokers of bad temper, each on a loopback port of its own."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from lab.servers import free_port

Behaviour = Callable[[socket.socket], None]


def mute(connection: socket.socket) -> None:
    """Reads, and never says a word."""
    while connection.recv(65536):
        pass


def half_open(connection: socket.socket) -> None:
    """Neither reads nor answers nor closes."""
    threading.Event().wait(60)


def resets(connection: socket.socket) -> None:
    """Resets the connection after its first bytes."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def no_receipts(connection: socket.socket) -> None:
    """Greets like a broker, takes everything, proves nothing."""
    connection.recv(65536)
    connection.sendall(b"CONNECTED\nversion:1.2\n\n\0")
    mute(connection)


def refuses(connection: socket.socket) -> None:
    """Wants nobody in."""
    connection.recv(65536)
    connection.sendall(b"ERROR\nmessage:Bad CONNECT\n\nAccess refused for user\0")


def speaks_http(connection: socket.socket) -> None:
    """Is something else."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@contextlib.contextmanager
def broker_that(behaviour: Behaviour | None) -> Iterator[str]:
    """Gives the URL of a broker that behaves so with everybody; None: nobody listens."""
    if behaviour is None:
        yield f"stomp://127.0.0.1:{free_port()}"
        return
    server = socket.create_server(("127.0.0.1", 0))
    open_connections: list[socket.socket] = []

    def attend(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            behaviour(connection)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                open_connections.append(connection)
                threading.Thread(target=attend, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"stomp://127.0.0.1:{server.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        for connection in open_connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
