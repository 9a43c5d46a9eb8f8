"""The engine at a broker that sends raw bytes: whatever the frames are, each message is settled once and acknowledged."""

from __future__ import annotations

import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.engine import Engine, wait_for
from lab.store_model import expected, resource, stored, wire_body

BEAT_S = 0.3
KB = 1000
# What stands in the head beside the id, and what of the body's length is said; None: nothing.
BAD: dict[str, tuple[bytes, bytes | None]] = {
    "300 kB of headers": (b"".join(b"x-h%d:%s\n" % (n, b"v" * 900) for n in range(330)), b"%d"),
    "one header of 3 MB": (b"x:" + b"v" * 3000 * KB + b"\n", b"%d"),
    "a million bytes of short headers, no length": (b"a:b\n" * 250_000, None),
    "a NUL and bytes that are not UTF-8": (b"x:a\0b\ncertname:\xff\n", b"%d"),
    "a length of letters": (b"", b"ten"),
    "a negative length": (b"", b"-%d"),
    "too short": (b"", b"20"),
    "too long by one": (b"", b"1%d"),
    "longer than a body may be": (b"", b"9%d00000"),
    "nothing": (b"", None),
}


class RawBroker:
    """Gives each of its frames to whoever subscribes, until an ACK with its number comes; a thread for each connection."""

    def __init__(self, frames: dict[str, bytes]) -> None:
        self.left = dict(frames)
        self.deliveries = dict.fromkeys(frames, 0)
        self.connections = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"stomp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        received = bytearray()
        try:
            with client:
                while not self._closing.is_set():
                    if not select.select([client], [], [], BEAT_S)[0]:
                        continue
                    data = client.recv(65536)
                    if not data:
                        return
                    received += data
                    while (nul := received.find(b"\0")) >= 0:
                        self._obey(client, bytes(received[:nul]))
                        del received[: nul + 1]
        except OSError:
            pass  # it has left

    def _obey(self, client: socket.socket, frame: bytes) -> None:
        command = frame.lstrip(b"\n").partition(b"\n")[0]
        if command == b"CONNECT":
            client.sendall(b"CONNECTED\nversion:1.2\nserver:raw\nheart-beat:%d,0\n\n\0" % (BEAT_S * 1000))
        elif (
            command == b"SUBSCRIBE" and b"\ndestination:/queue/catalog\n" in frame
        ):  # the other queues are empty
            with self._lock:
                frames = list(self.left.items())
                self.connections += 1
                for id_, _ in frames:
                    self.deliveries[id_] += 1
            threading.Thread(target=self._deliver, args=(client, frames), daemon=True).start()
        elif command == b"ACK" and (found := re.search(rb"\n(?:message-)?id:(\S+)", frame)):
            with self._lock:
                self.left.pop(found[1].decode(), None)
        elif command == b"DISCONNECT" and (found := re.search(rb"\nreceipt:(\S+)", frame)):
            client.sendall(b"RECEIPT\nreceipt-id:%s\n\n\0" % found[1])

    def _deliver(self, client: socket.socket, frames: list[tuple[str, bytes]]) -> None:
        try:
            for _, frame in frames:
                client.sendall(frame)
            while True:
                time.sleep(BEAT_S)
                client.sendall(b"\n")
        except OSError:
            pass  # it has left


def frames(bad: dict[str, tuple[bytes, bytes | None]]) -> tuple[dict[str, bytes], list[bytes]]:
    """(the frames by their ids, the bodies of the good ones): each bad one between two good ones."""
    made: dict[str, bytes] = {}
    good = []
    for number, (more, length) in enumerate(bad.values()):
        body = wire_body(f"good{number}.example.com", 1, [resource(f"/{number}")])
        good.append(body)
        made[f"good{number}"] = b"MESSAGE\nmessage-id:good%d\nack:good%d\ncontent-length:%d\n\n%s\0\n" % (
            number, number, len(body), body,
        )  # fmt: skip
        body = wire_body(f"bad{number}.example.com", 1, [resource(f"/{number}")])
        said = (
            b"" if length is None else b"content-length:" + length.replace(b"%d", b"%d" % len(body)) + b"\n"
        )
        made[f"bad{number}"] = b"MESSAGE\nmessage-id:bad%d\nack:bad%d\n%s%s\n%s\0\n" % (
            number,
            number,
            more,
            said,
            body,
        )
    return made, good


@pytest.fixture
def broker() -> Iterator[RawBroker]:
    raw = RawBroker(frames(BAD)[0])
    yield raw
    raw.close()


def test_frames_of_every_kind_are_settled_and_acknowledged(
    broker: RawBroker, database: str, connection: Connection, tmp_path: Path
) -> None:
    """Good ones are stored; a bad one is stored, or in quarantine under its node's name; none is left, and none came more
    often than frames of which the end could not be told were met before it."""
    _, good = frames(BAD)
    engine = Engine(
        broker.url, database, "--workers", "1", "--heartbeat-s", str(BEAT_S), log=tmp_path / "log"
    )
    try:
        wait_for(lambda: not broker.left, engine, "all acknowledged")
        for number, body in enumerate(good):
            assert stored(connection, f"good{number}.example.com") == expected(body)
        rows: Any = connection.execute("SELECT reason, certname FROM quarantine ORDER BY id").fetchall()
        reasons = {certname: reason for reason, certname in rows}
        names = list(BAD)
        for number, name in enumerate(names):
            node = f"bad{number}.example.com"
            if "headers" in name or "header of" in name:
                assert reasons[node] == "headers_too_large", name
            elif node not in reasons:
                assert stored(connection, node), name
        lies = 3
        assert max(broker.deliveries.values()) <= lies + 2
        assert engine.stop() == 0
        deaths = [line for line in engine.lines() if line.get("event") == "child_died"]
        assert deaths == []
    finally:
        engine.kill()
