"""The engine at a broker that says anything: garbage, nothing, half of a frame, what nobody asked for. It goes on, and what is
good in between is stored and acknowledged."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.store.connection import Connection
from lab.engine import Engine, wait_for
from lab.store_model import expected, resource, stored, wire_body
from tests.hostile.test_raw_broker import BEAT_S, RawBroker

MIB = 1024 * 1024
NOISE = random.Random(18).randbytes(200_000)
FRAME = b"MESSAGE\nmessage-id:cut\nack:cut\ncontent-length:12\n\nhello\0world!\0"
Temper = Callable[[socket.socket], None]


def says(*said: bytes) -> Temper:
    def say(client: socket.socket) -> None:
        for part in said:
            client.sendall(part)

    return say


def slowly(said: bytes, pause_s: float) -> Temper:
    def say(client: socket.socket) -> None:
        for byte in said:
            client.sendall(bytes((byte,)))
            time.sleep(pause_s)

    return say


def frame(command: str, body: bytes = b"", **headers: object) -> bytes:
    head = "".join(f"{name.replace('_', '-')}:{value}\n" for name, value in headers.items())
    return f"{command}\n{head}\n".encode() + body + b"\0"


# After SUBSCRIBE; what is good comes behind it on the same connection, and is read there.
GOES_ON: dict[str, Temper] = {
    "nothing but heart-beats for a while": slowly(b"\n" * 40, 0.05),
    "a megabyte of heart-beats": says(b"\n" * MIB),
    "a megabyte of CR LF": says(b"\r\n" * (MIB // 2)),
    "a megabyte of NULs": says(b"\0" * MIB),
    "line ends and NULs": says(b"\0\n\r\0\n\n\r" * 10_000),
    "receipts of nobody": says(b"".join(frame("RECEIPT", receipt_id=f"r{n}") for n in range(50_000))),
    "a receipt of 1 MB": says(frame("RECEIPT", receipt_id="r" * MIB)),
    "a receipt without an id": says(frame("RECEIPT")),
    "CONNECTED again": says(frame("CONNECTED", version="1.0", heart_beat="1,1")),
    "commands that nobody knows": says(b"".join(frame(f"C{n}", b"x") for n in range(20_000))),
    "an unknown command with a wrong length": says(b"HELLO\ncontent-length:3\n\nlonger\0\n"),
    "a command of 1 MB": says(b"C" * MIB + b"\n\n\0"),
    "a command of colons": says(b":::\n:\n\n\0"),
    "a frame without a command": says(b"\0\n\n\0"),
    "what it says to servers": says(frame("SEND", b"{}", destination="/queue/catalog"), frame("ACK", id=1)),
    "a disconnect": says(frame("DISCONNECT")),
    "a message, byte by byte": slowly(frame("MESSAGE", b"{}", message_id="s", ack="s", content_length=2), 0.005),
    "a message of another subscription": says(
        frame("MESSAGE", b"x", message_id="o", ack="o", subscription="other", content_length=1)
    ),
    "a message of another destination": says(
        frame("MESSAGE", b"x", message_id="d", ack="d", destination="/queue/other", content_length=1)
    ),
    "the same message 200 times": says(frame("MESSAGE", b"x", message_id="t", ack="t", content_length=1) * 200),
    "a message without an id": says(frame("MESSAGE", b"x", content_length=1)),
    "an id of 60 kB": says(frame("MESSAGE", b"x", message_id="i" * 60_000, ack="i" * 60_000, content_length=1)),
    "an empty id": says(frame("MESSAGE", b"x", message_id="", ack="", content_length=1)),
    "an id with line ends": says(frame("MESSAGE", b"x", message_id=r"a\nb\c\\", ack=r"a\nb\c\\", content_length=1)),
    "the length twice": says(b"MESSAGE\nmessage-id:l\nack:l\ncontent-length:1\ncontent-length:900\n\nx\0"),
    "a length of zeros": says(b"MESSAGE\nmessage-id:z\nack:z\ncontent-length:000000000000001\n\nx\0"),
    "a length of blanks": says(b"MESSAGE\nmessage-id:b\nack:b\ncontent-length:  1 \n\nx\0"),
    "a body of NULs": says(frame("MESSAGE", bytes(4096), message_id="n", ack="n", content_length=4096)),
    "all headers twice": says(b"MESSAGE\n" + b"message-id:q\nack:q\n" * 3 + b"content-length:1\n\nx\0"),
    "redelivered forty times": says(
        frame("MESSAGE", b"x", message_id="v", ack="v", redelivered="true", x_delivery_count="9" * 400, content_length=1)
    ),
    "stamps that are none": says(
        frame("MESSAGE", b"x", message_id="w", ack="w", timestamp="-" + "9" * 30, content_length=1),
        frame("MESSAGE", b"x", message_id="y", ack="y", timestamp="1e999", content_length=1),
    ),
}  # fmt: skip
# After SUBSCRIBE; the connection ends with it, one way or the other. What is good comes on the next one.
ENDS: dict[str, Temper] = {
    "a close at once": says(),
    "noise": says(NOISE),
    "noise without line ends": says(NOISE.replace(b"\n", b"x")),
    "half a head": says(b"MESSAGE\nmessage-id:h\nack"),
    "headers without end": says(b"MESSAGE\n" + b"x:y\n" * 500_000),
    "an error": says(frame("ERROR", b"why not", message="no")),
    "an error without an end": says(b"ERROR\nmessage:no\n\nbecause"),
    "an error of 1 MB": says(frame("ERROR", b"x" * MIB, message="m" * 50_000)),
    "an error that is no text": says(b"ERROR\nmessage:\xff\x1b[2J\xed\xb2\x80\n\n\x9b\xff\xfe\0"),
    "an error with a length of a petabyte": says(b"ERROR\ncontent-length:999999999999999\n\nx\0"),
    "an empty error": says(b"ERROR\n\n\0"),
    "a length that is too short": says(frame("MESSAGE", b"{}{}{}", message_id="e", ack="e", content_length=2)),
} | {f"cut after {at} bytes": says(FRAME[:at]) for at in range(1, len(FRAME) - 1, 3)}  # fmt: skip
# Instead of CONNECTED.
GREETINGS: dict[str, Temper] = {
    "nothing": says(),
    "noise": says(NOISE),
    "NULs": says(b"\0" * 100),
    "heart-beats": slowly(b"\n" * 100, 0.03),
    "64 kB without an end": says(b"CONNECTED\n" + b"x:y\n" * 20_000),
    "another protocol": says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "a shell": says(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    "a refusal": says(frame("ERROR", b"no", message="Bad CONNECT")),
    "a refusal that is no text": says(b"ERROR\nmessage:\xff\x9b2J\xe2\x80\xae\n\n\xed\xa0\x80\0"),
    "a message": says(frame("MESSAGE", b"x", message_id="1", ack="1")),
    "a receipt": says(frame("RECEIPT", receipt_id="1")),
    "CONNECTED, cut": says(b"CONNECTED\nversion:1"),
}  # fmt: skip
# CONNECTED all the same, oddly; what is good comes behind it.
ODDLY_CONNECTED: dict[str, bytes] = {
    "no headers": b"CONNECTED\n\n\0",
    "line ends before it": b"\n\r\n\n\nCONNECTED\nversion:1.2\n\n\0",
    "carriage returns": b"CONNECTED\r\nversion:1.2\r\nheart-beat:0,0\r\n\r\n\0",
    "versions of the future": b"CONNECTED\nversion:9.9\n\n\0",
    "heart-beats that are none": b"CONNECTED\nversion:1.2\nheart-beat:-1,abc\n\n\0",
    "heart-beats of months": b"CONNECTED\nversion:1.2\nheart-beat:99999999999,99999999999\n\n\0",
    "heart-beats that are many": b"CONNECTED\nversion:1.2\nheart-beat:1,2,3,4\n\n\0",
    "a server that is no text": b"CONNECTED\nversion:1.2\nserver:\xff\x1b]0;x\x07\xc2\x9b\nsession:\xed\xb2\x80\n\n\0",
    "3000 headers": b"CONNECTED\nversion:1.2\n" + b"a:b\n" * 3000 + b"\n\0",
    "a body": b"CONNECTED\nversion:1.2\ncontent-length:4\n\nbody\0",
}  # fmt: skip


class Tempered(RawBroker):
    """Each connection has the next temper; behind it, or on the next one, comes that temper's good message."""

    def __init__(
        self,
        greetings: dict[str, Temper],
        odd: dict[str, bytes],
        goes_on: dict[str, Temper],
        ends: dict[str, Temper],
    ) -> None:
        self.greetings, self.odd = list(greetings.values()), list(odd.values())
        # The first one ends: an engine starts only at a broker that lets it in.
        self.tempers = [("start", says(), False)]
        self.tempers += [(name, says(), True) for name in odd]
        self.tempers += [(name, temper, True) for name, temper in goes_on.items()]
        self.tempers += [(name, temper, False) for name, temper in ends.items()]
        self.bodies = {name: wire_body(f"{at}.example.com", 1, [resource(f"/{at}")])
                       for at, (name, _, _) in enumerate(self.tempers)}  # fmt: skip
        self._has_begun = False
        self.late: list[str] = []  # whose good message was not acknowledged on its own connection
        super().__init__(
            {str(at): frame("MESSAGE", body, message_id=at, ack=at, content_length=len(body))
             for at, body in enumerate(self.bodies.values())}
        )  # fmt: skip

    def _obey(self, client: socket.socket, frame: bytes) -> None:
        if not self._has_begun or not frame.lstrip(b"\n").startswith(b"CONNECT\n"):
            super()._obey(client, frame)
        elif self.greetings:
            self.greetings.pop(0)(client)
            raise OSError("that was all")
        elif self.odd:
            client.sendall(self.odd.pop(0))
        else:
            super()._obey(client, frame)

    def _deliver(self, client: socket.socket, frames: list[tuple[str, bytes]]) -> None:
        if not self.tempers:
            super()._deliver(client, frames)
            return
        self._has_begun = True
        name, temper, goes_on = self.tempers.pop(0)
        id_ = str(list(self.bodies).index(name))
        try:
            temper(client)
            if goes_on:
                client.sendall(self.left[id_])
                deadline = time.monotonic() + 20
                while id_ in self.left and time.monotonic() < deadline:
                    time.sleep(0.02)
        except OSError:
            pass
        if goes_on and id_ in self.left:
            self.late.append(name)
        try:
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has left first


@pytest.mark.parametrize("part", ["greetings", "oddly", "goes on", "ends"])
def test_a_broker_of_any_temper_stops_nobody(
    database: str, connection: Connection, tmp_path: Path, part: str
) -> None:
    """Every good message is stored and acknowledged, on the very connection where that is possible; nobody dies, and the log
    stays short."""
    broker = Tempered(
        GREETINGS if part == "greetings" else {},
        ODDLY_CONNECTED if part == "oddly" else {},
        GOES_ON if part == "goes on" else {},
        ENDS if part == "ends" else {},
    )
    engine = Engine(
        broker.url, database, "--workers", "1", "--writers", "1", "--heartbeat-s", str(BEAT_S), "--backoff-max-s", "0.1",
        "--connect-timeout-s", "2", log=tmp_path / "log",
    )  # fmt: skip
    try:
        wait_for(lambda: not broker.left, engine, "all acknowledged")
        assert broker.late == []
        for at, body in enumerate(broker.bodies.values()):
            assert stored(connection, f"{at}.example.com") == expected(body)
        assert engine.stop() == 0
        events = [line.get("event") for line in engine.lines()]
        assert not {"child_died", "child_stuck", "child_failed"} & set(events)
        said = engine.log.read_bytes()
        assert len(said) < 200_000
        assert not {byte for byte in said if byte < 32 and byte != 10} | ({0x9B} & set(said))
    finally:
        engine.kill()
        broker.close()
