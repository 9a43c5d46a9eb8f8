"""A STOMP client for the tests that shares no code with the engine: what it sees, the broker has sent."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import NamedTuple

ANSWER_TIMEOUT_S = 30.0  # a broker on a machine that is busy with other tests


class Frame(NamedTuple):
    command: str
    headers: dict[str, str]
    body: bytes


class Client:
    """Logged in from its first moment; ``close`` leaves without a word, as a process that is killed does."""

    def __init__(
        self,
        port: int,
        user: str,
        password: str,
        accept: str = "1.0,1.1,1.2",
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        host: str = "127.0.0.1",
    ) -> None:
        self._answer_timeout_s = answer_timeout_s
        self._socket = socket.create_connection((host, port), answer_timeout_s)
        self._received = b""
        self._receipts = 0
        login = {"accept-version": accept, "host": "/", "login": user, "passcode": password}
        try:
            self.send("CONNECT", login)
            self.connected = self.frame()
            assert self.connected.command == "CONNECTED", self.connected
        except (AssertionError, OSError):
            self.close()
            raise
        self.version = self.connected.headers.get("version", "1.0")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        head = "\n".join([command, *(f"{name}:{value}" for name, value in headers.items())])
        self._socket.sendall(head.encode() + b"\n\n" + body + b"\0")

    def frame(self, timeout_s: float | None = None) -> Frame:
        """The next frame; fails when none comes in time."""
        deadline = time.monotonic() + (timeout_s or self._answer_timeout_s)
        while True:
            found = self._parse()
            if found is not None:
                return found
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._socket.recv(1 << 20)
            assert data, f"the broker closed the connection after {self._received[:200]!r}"
            self._received += data

    def publish(self, destination: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Persistent, with a receipt. For connections that subscribed to nothing."""
        self._receipts += 1
        receipt = f"r{self._receipts}"
        fixed = {"destination": destination, "persistent": "true", "receipt": receipt}
        self.send("SEND", fixed | {"content-length": str(len(body))} | dict(headers or {}), body)
        answer = self.frame()
        assert (answer.command, answer.headers["receipt-id"]) == ("RECEIPT", receipt)

    def subscribe(self, destination: str, **headers: str) -> None:
        ack = "client" if self.version == "1.0" else "client-individual"
        self.send("SUBSCRIBE", {"destination": destination, "id": "test", "ack": ack} | headers)

    def message(self, timeout_s: float = ANSWER_TIMEOUT_S) -> Frame:
        found = self.frame(timeout_s)
        assert found.command == "MESSAGE", found
        return found

    def acknowledge(self, message: Frame) -> None:
        if self.version == "1.2":
            self.send("ACK", {"id": message.headers["ack"]})
        else:
            self.send("ACK", {"message-id": message.headers["message-id"], "subscription": "test"})

    def disconnect(self) -> None:
        """Until the broker has seen everything that was sent, and has closed."""
        self.send("DISCONNECT", {"receipt": "bye"})
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        while self._socket.recv(1 << 20):
            pass
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _parse(self) -> Frame | None:
        data = self._received.lstrip(b"\n")
        head, blank, rest = data.partition(b"\n\n")
        if not blank:
            return None
        command, *lines = head.decode().split("\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name, value)
        length = int(headers["content-length"]) if "content-length" in headers else rest.find(b"\0")
        if length < 0 or len(rest) <= length:
            return None
        assert rest[length] == 0, "the body does not end where its content-length says"
        self._received = rest[length + 1 :]
        return Frame(command, headers, rest[:length])
