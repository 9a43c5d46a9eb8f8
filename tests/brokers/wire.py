"""A connection of the engine to a broker that the test plays, byte by byte."""

from __future__ import annotations

import select
import socket
import threading

from ingest.errors import IngestError
from ingest.transport.stomp.client import StompClient
from ingest.transport.stomp.heads import DamagedFrames
from ingest.transport.stomp.opening import Endpoint
from tests.brokers.room import Room

CONNECTED = b"CONNECTED\nversion:1.2\nheart-beat:1000,1000\n\n\0"


class Wire:
    """A connection and the broker's end of it."""

    def __init__(
        self,
        room: Room | None = None,
        answer: bytes = CONNECTED,
        damaged: DamagedFrames | None = None,
    ) -> None:
        self.room = room or Room()
        self._answer = answer
        with socket.create_server(("127.0.0.1", 0)) as server:
            accepting = threading.Thread(target=self._accept, args=(server,))
            accepting.start()
            try:
                self.connection = StompClient(
                    Endpoint("127.0.0.1", server.getsockname()[1], None, None, "/", None),
                    connect_timeout_s=30, heartbeat_s=1, body_bytes_max=1 << 24, space=self.room,
                    damaged=damaged,
                )  # fmt: skip
            except IngestError:
                self.broker.close()
                raise
            finally:
                accepting.join()

    def _accept(self, server: socket.socket) -> None:
        self.broker = server.accept()[0]
        assert self.broker.recv(4096).startswith(b"CONNECT\n")
        self.broker.sendall(self._answer)

    def send(self, data: bytes) -> None:
        """Until it waits in the connection's socket."""
        self.broker.sendall(data)
        assert select.select([self.connection], [], [], 30)[0]

    def age(self) -> None:
        """As if nothing had come for a long time."""
        self.connection._last_read_s -= 60

    def drag(self) -> None:
        """As if nothing but heart-beats had come for a long time."""
        self.connection._content_s -= 60

    def close(self) -> None:
        self.connection.close()
        self.broker.close()


def frame(number: int, body: bytes, *, length: bool = True) -> bytes:
    more = f"content-length:{len(body)}\n" if length else ""
    return f"MESSAGE\nmessage-id:{number}\n{more}\n".encode() + body + b"\0\n"
