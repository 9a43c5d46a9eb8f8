"""What a queue still holds, asked over STOMP as any client would: works with every broker."""

from __future__ import annotations

import socket

from tests.faults.producer import DESTINATION

SENTINEL = b"the end of the queue"


def take_all(host: str, port: int, login: str = "") -> list[bytes]:
    """Takes every message out, and gives the bodies. A message of our own marks the end: what a broker takes back
    stands before it."""
    user, _, passcode = login.partition(":")
    credentials = f"login:{user}\npasscode:{passcode}\n" if login else ""
    with socket.create_connection((host, port), 10) as opened:
        opened.sendall(
            f"CONNECT\naccept-version:1.1\nhost:/\n{credentials}\n\0"
            f"SEND\ndestination:{DESTINATION}\npersistent:true\ncontent-length:{len(SENTINEL)}\n\n".encode()
            + SENTINEL
            + f"\0SUBSCRIBE\ndestination:{DESTINATION}\nid:depth\nack:auto\n\n\0".encode()
        )
        found: list[bytes] = []
        stream = opened.makefile("rb")
        while True:
            head: dict[str, str] = {}
            command = stream.readline().strip()
            if not command:
                continue
            while line := stream.readline().decode().strip():
                name, _, value = line.partition(":")
                head[name] = value
            body = stream.read(int(head.get("content-length", "0")))
            assert stream.read(1) == b"\0" or command == b"ERROR", (command, head)
            assert command in (b"CONNECTED", b"MESSAGE"), (command, head)
            if body == SENTINEL:
                return found
            if command == b"MESSAGE":
                found.append(body)
