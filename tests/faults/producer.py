"""A foreign producer: a process of its own that knows STOMP and nothing of the engine.

``python -m tests.faults.producer HOST:PORT[,...] [LOGIN:PASSCODE]`` reads one line of JSON for each message from its
standard input, ``{"id": ..., "headers": {...}, "body": base64}``, sends it with a receipt, and prints the id when
the receipt is here. When the broker goes away it connects again and sends once more what has no receipt,
as Puppet servers do: so a message may arrive twice, and each one whose id was printed has arrived.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import sys
import time
from collections import OrderedDict
from typing import Any

IN_FLIGHT_MAX = 100
RETRY_PAUSE_S = 0.2
DESTINATION = "/queue/catalog"


def main() -> None:
    addresses = [address.rsplit(":", 1) for address in sys.argv[1].split(",")]
    login, _, passcode = (sys.argv[2] if len(sys.argv) > 2 else "").partition(":")
    pending: OrderedDict[str, bytes] = OrderedDict()  # without a receipt, in their order
    opened: socket.socket | None = None
    received = b""
    tries = 0
    source = _Lines()
    while pending or not source.ended:
        if opened is None:
            host, port = addresses[tries % len(addresses)]
            tries += 1
            try:
                opened = _connect(host, int(port), login, passcode)
                received = b""
                for frame in pending.values():
                    opened.sendall(frame)
            except OSError:
                _close(opened)
                opened = None
                time.sleep(RETRY_PAUSE_S)
                continue
        is_open = not source.ended and len(pending) < IN_FLIGHT_MAX
        wanted: list[Any] = [opened, source] if is_open else [opened]
        ready, _, _ = select.select(wanted, [], [], 1)
        try:
            if source in ready:
                for line in source.read():
                    message = json.loads(line)
                    pending[message["id"]] = _send(message)
                    opened.sendall(pending[message["id"]])
            if opened in ready:
                received = _take_receipts(opened, received, pending)
        except OSError:
            _close(opened)
            opened = None


class _Lines:
    """Standard input without a buffer that select cannot see."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""

    def fileno(self) -> int:
        return 0

    def read(self) -> list[bytes]:
        """The lines that are complete now."""
        data = os.read(0, 1 << 20)
        self.ended = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines


def _connect(host: str, port: int, login: str, passcode: str) -> socket.socket:
    opened = socket.create_connection((host, port), 5)
    try:
        credentials = f"login:{login}\npasscode:{passcode}\n" if login else ""
        opened.sendall(f"CONNECT\naccept-version:1.1\nhost:/\n{credentials}\n\0".encode())
        answer = b""
        while b"\0" not in answer:
            data = opened.recv(4096)
            answer += data or b"ERROR: the connection was closed\0"
        opened.settimeout(30)
    except OSError:
        opened.close()
        raise
    if not answer.startswith(b"CONNECTED"):
        opened.close()
        raise OSError(answer)
    return opened


def _send(message: dict[str, object]) -> bytes:
    body = base64.b64decode(str(message["body"]))
    headers = {
        **dict(message["headers"]),  # type: ignore[call-overload]
        "destination": DESTINATION,
        "persistent": "true",
        "content-length": len(body),
        "receipt": message["id"],
    }
    lines = (f"{name}:{_escape(str(value))}" for name, value in headers.items())
    return ("SEND\n" + "\n".join(lines) + "\n\n").encode() + body + b"\0"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace(":", "\\c")


def _take_receipts(opened: socket.socket, received: bytes, pending: OrderedDict[str, bytes]) -> bytes:
    data = opened.recv(65536)
    if not data:
        raise OSError("the broker closed the connection")
    *frames, rest = (received + data).split(b"\0")
    for frame in frames:
        if frame.lstrip().startswith(b"ERROR"):
            raise OSError("the broker sent ERROR")
        for line in frame.split(b"\n"):
            if line.startswith(b"receipt-id:"):
                id_ = line[11:].decode().strip()
                if pending.pop(id_, None) is not None:
                    print(id_, flush=True)
    return rest


def _close(opened: socket.socket | None) -> None:
    if opened is not None:
        opened.close()


if __name__ == "__main__":
    main()
