"""A broker that only says thank you: takes SEND frames, answers receipts, forgets the bodies.

To see what the generator can do by itself. ``python -m tools.loadgen.sink`` prints its port and serves until its standard
input ends.
"""

from __future__ import annotations

import socket
import sys
import threading

# Linux drops what TCP received without copying it (recv(2), MSG_TRUNC); elsewhere it is copied.
FORGET = getattr(socket, "MSG_TRUNC", 0) if sys.platform == "linux" else 0


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        sys.stdin.read()


def _accept(server: socket.socket) -> None:
    while True:
        peer, _ = server.accept()
        threading.Thread(target=_serve, args=(peer,), daemon=True).start()


def _serve(peer: socket.socket) -> None:
    buffer = bytearray()
    skip = bytearray(1 << 20)
    with peer:
        while True:
            end = buffer.find(b"\n\n")
            if end < 0:
                data = peer.recv(1 << 16)
                if not data:
                    return
                buffer += data
                continue
            head = bytes(buffer[:end]).lstrip(b"\r\n\0").split(b"\n")
            headers = dict(line.split(b":", 1) for line in head[1:] if b":" in line)
            del buffer[: end + 2]
            left = int(headers.get(b"content-length", b"0")) + 1 - len(buffer)  # and the NUL
            if left < 0:
                del buffer[: len(buffer) + left]
            else:
                buffer.clear()
            while left > 0:
                left -= peer.recv_into(skip, min(left, len(skip)), FORGET)
            if head[0] in (b"CONNECT", b"STOMP"):
                peer.sendall(b"CONNECTED\nversion:1.2\nheart-beat:0,0\nserver:sink\n\n\0")
            elif b"receipt" in headers:
                peer.sendall(b"RECEIPT\nreceipt-id:%s\n\n\0" % headers[b"receipt"])


if __name__ == "__main__":
    main()
