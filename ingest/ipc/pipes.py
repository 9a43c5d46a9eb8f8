"""Pipes: messages from one process to one other.

A child that is killed can break only its own ends; whoever writes to it gets EPIPE, drops the message and goes on.
"""

from __future__ import annotations

import fcntl
import select
from multiprocessing.connection import Connection, Pipe
from typing import Any

import msgspec

PIPE_BYTES = 1 << 20  # /proc/sys/fs/pipe-max-size of an unprivileged process
_F_SETPIPE_SZ = 1031


class Outbox:
    """The sending end. ``send`` blocks while the other side is busy; after its death it says False."""

    def __init__(self, connection: Connection, incarnation: int) -> None:
        self.incarnation = incarnation  # which successor of the peer this leads to
        self._connection = connection
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, message: Any) -> bool:
        return self.send_encoded(self.encode(message))

    def encode(self, message: Any) -> bytes:
        return self._encoder.encode(message)

    def send_encoded(self, message: bytes) -> bool:
        try:
            self._connection.send_bytes(message)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._connection.close()


class Inbox:
    """The receiving end of messages of one type."""

    def __init__(self, connection: Connection, type_: Any) -> None:
        self._connection = connection
        self._decoder = msgspec.msgpack.Decoder(type_)
        self._waiting = select.poll()  # Connection.poll makes a selector each time, ten times as slow
        self._waiting.register(connection, select.POLLIN)

    def fileno(self) -> int:
        return self._connection.fileno()

    def poll(self) -> bool:
        """Whether ``receive`` has something (a message or the end) without waiting for it to begin."""
        return bool(self._waiting.poll(0))

    def receive(self) -> Any:
        """The next message. Raises EOFError when the sender is gone, also in the middle of a message."""
        return self.receive_sized()[0]

    def receive_sized(self) -> tuple[Any, int]:
        """The next message and how many bytes it took."""
        try:
            data = self._connection.recv_bytes()
        except OSError as error:
            raise EOFError from error
        return self._decoder.decode(data), len(data)

    def close(self) -> None:
        self._connection.close()


def link() -> tuple[Connection, Connection]:
    """(receiving, sending) ends of a new pipe with a large buffer."""
    receiving, sending = Pipe(duplex=False)
    try:
        fcntl.fcntl(sending.fileno(), _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # over the user's pipe budget: the default of 64 KiB works too
    return receiving, sending
