"""Frames that are not as they should be, between good ones: each is passed over or told apart, and the good ones arrive."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from ingest.errors import Unavailable
from ingest.transport.message import Message
from ingest.transport.stomp.client import StompClient
from ingest.transport.stomp.heads import DamagedFrames
from ingest.transport.stomp.opening import Endpoint
from tests.brokers.room import Room
from tests.brokers.wire import Wire, frame

GOOD = (frame(1, b"before"), frame(3, b"after"))
KB, MIB = 1000, 1024 * 1024


class SmallRoom(Room):
    """Says nothing of where its empty bodies lie."""

    def body(self, message: Message) -> bytes:
        return super().body(message) if message.length else b""


def receive(
    wire: Wire, sent: bytes, messages: int, *, size: int = 0, patience_s: float = 30
) -> list[tuple[dict[str, str], bytes | None, str | None]]:
    """(headers, body, reason of the verdict) of each message, the bytes sent in pieces of that size."""
    step = size or len(sent)

    def send() -> None:
        for at in range(0, len(sent), step):
            wire.broker.sendall(sent[at : at + step])

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    found: list[tuple[dict[str, str], bytes | None, str | None]] = []
    deadline = time.monotonic() + patience_s
    while len(found) < messages:
        assert time.monotonic() < deadline, found
        if select.select([wire.connection], [], [], 0.1)[0] or wire.connection.unread:
            for message in wire.connection.read():
                body = None if message.offset is None else wire.room.body(message)
                found.append((message.headers, body, message.verdict and message.verdict[0]))
    sender.join(30)
    return found


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire(SmallRoom())
    yield made
    made.close()


def bad(*lines: bytes, body: bytes = b"bad", length: bool = True) -> bytes:
    more = (b"content-length:%d" % len(body),) if length else ()
    return b"\n".join((b"MESSAGE", *lines, *more, b"", body + b"\0"))


def many(count: int, line: bytes) -> bytes:
    return b"\n".join([line] * count)


# (what is sent, the body of it, the reason of its verdict)
HEADS: dict[str, tuple[bytes, bytes, str | None]] = {
    "300 kB in 400 headers": (
        bad(b"message-id:2", many(400, b"x-h:" + b"v" * 900)),
        b"bad",
        "headers_too_large",
    ),
    "the id behind 300 kB": (
        bad(many(400, b"x-h:" + b"v" * 900), b"message-id:2"),
        b"bad",
        "headers_too_large",
    ),
    "one line of 300 kB": (
        bad(b"message-id:2", b"x:" + b"v" * 300 * KB),
        b"bad",
        "headers_too_large",
    ),
    "one line of 300 kB first": (
        bad(b"x:" + b"v" * 300 * KB, b"message-id:2"),
        b"bad",
        "headers_too_large",
    ),
    "no length, 300 kB": (
        bad(b"message-id:2", b"x:" + b"v" * 300 * KB, length=False),
        b"bad",
        "headers_too_large",
    ),
    "the length behind a long line, a body of NULs": (
        bad(b"message-id:2", b"x:" + b"v" * 70 * KB, body=b"\0\n\n\0"),
        b"\0\n\n\0",
        "headers_too_large",
    ),
    "carriage returns": (
        bad(b"message-id:2", many(400, b"x-h:" + b"v" * 900)).replace(b"\n", b"\r\n"),
        b"bad",
        "headers_too_large",
    ),
    "a known header of 100 kB": (
        bad(b"message-id:2", b"certname:" + b"v" * 100 * KB),
        b"bad",
        "headers_too_large",
    ),
    "20 000 headers": (
        bad(b"message-id:2", many(20_000, b"a:b")),
        b"bad",
        "headers_too_large",
    ),
    "the same header 1000 times": (bad(b"message-id:2", many(1000, b"message-id:4")), b"bad", None),
    "NULs in headers": (bad(b"message-id:2", b"x:a\0b", b"y\0:\0"), b"bad", None),
    "NULs in long headers": (
        bad(b"message-id:2", b"x:a\0b", many(400, b"x\0h:" + b"v\0" * 450)),
        b"bad",
        "headers_too_large",
    ),
    "headers that are not UTF-8": (bad(b"message-id:2", b"certname:n\xf6de", b"\xff:\xfe"), b"bad", None),
    "escapes that are none": (bad(b"message-id:2", b"certname:a\\tb\\", b"\\:\\x"), b"bad", None),
    "lines without a colon": (bad(b"message-id:2", b"nothing", b":", b"::"), b"bad", None),
    "a length that is no number": (bad(b"message-id:2", b"content-length:ten", length=False), b"bad", None),
    "a negative length": (bad(b"message-id:2", b"content-length:-1", length=False), b"bad", None),
    "an empty length": (bad(b"message-id:2", b"content-length:", length=False), b"bad", None),
    "a length with a sign": (bad(b"message-id:2", b"content-length:+3", length=False), b"bad", None),
    "digits of another script": (
        bad(b"message-id:2", "content-length:\u0663".encode(), length=False),
        b"bad",
        None,
    ),
    "a length of 5000 digits": (
        bad(b"message-id:2", b"content-length:" + b"9" * 5000, length=False),
        b"bad",
        None,
    ),
    "no blank line": (b"MESSAGE\nmessage-id:2\n\0", b"", None),
    "no blank line and no line end": (b"MESSAGE\nmessage-id:2\0", b"", None),
    "no blank line after 300 kB": (
        b"MESSAGE\nmessage-id:2\nx:" + b"v" * 300 * KB + b"\n\0",
        b"",
        "headers_too_large",
    ),
}


@pytest.mark.parametrize("size", [0, 4099, 65_536])
@pytest.mark.parametrize("case", HEADS)
def test_a_head_that_is_not_as_it_should_be(wire: Wire, case: str, size: int) -> None:
    """Its message can be told and acknowledged, and the two beside it are whole."""
    sent, body, reason = HEADS[case]
    found = receive(wire, GOOD[0] + sent + b"\n" + GOOD[1], 3, size=size)
    assert [(headers["message-id"], body) for headers, body, _ in found] == [
        ("1", b"before"),
        ("2", body),
        ("3", b"after"),
    ]
    assert [reason for _, _, reason in found] == [None, reason, None]


@pytest.mark.parametrize("case", [case for case, (sent, _, _) in HEADS.items() if len(sent) < 2000])
def test_a_head_that_comes_byte_by_byte(wire: Wire, case: str) -> None:
    """Where the socket cuts changes nothing of it."""
    sent, body, _ = HEADS[case]
    found = receive(wire, GOOD[0] + sent + b"\n" + GOOD[1], 3, size=1)
    assert [body for _, body, _ in found] == [b"before", body, b"after"]


UNKNOWN = {
    "a command that nobody knows": b"HELLO\nmessage-id:2\n\nbody\0",
    "a known one in lower case": b"message\nmessage-id:2\n\nbody\0",
    "with a length and NULs": b"HELLO\ncontent-length:4\n\n\0\0\n\n\0",
    "with 300 kB of headers": b"HELLO\n" + b"x:y\n" * 75_000 + b"\nbody\0",
    "with a body of 300 kB": b"HELLO\n\n" + b"b" * 300 * KB + b"\0",
    "a receipt with a body": b"RECEIPT\nreceipt-id:r\n\n" + b"b" * 300 * KB + b"\0",
    "no frame at all": b"xyz\0\n\n",
    "nothing but a NUL": b"\0\0\0",
}


@pytest.mark.parametrize("size", [0, 1023])
@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_no_message_is_passed_over(wire: Wire, case: str, size: int) -> None:
    """Whole, whatever is in it, and the next message is read."""
    found = receive(wire, GOOD[0] + UNKNOWN[case] + GOOD[1], 2, size=size)
    assert [body for _, body, _ in found] == [b"before", b"after"]


@pytest.mark.parametrize(
    "head", [b"x:" + b"v" * 64 * MIB + b"\n", b"abc:defg\n" * MIB], ids=["one line", "a million"]
)
def test_headers_of_64_mib_take_neither_memory_nor_long(wire: Wire, head: bytes) -> None:
    """They pass by: a few hundred kB at most are kept, and a good message behind them arrives within seconds."""
    sent = b"MESSAGE\nmessage-id:2\n" + head + b"content-length:3\n\nbad\0" + GOOD[1]
    began_s = time.process_time()
    tracemalloc.start()
    try:
        found = receive(wire, sent, 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(headers["message-id"], reason) for headers, _, reason in found] == [
        ("2", "headers_too_large"),
        ("3", None),
    ]
    assert peak < 3 * MIB
    assert time.process_time() - began_s < 20


LIES = {
    "short": b"content-length:2",
    "long": b"content-length:20",
    "longer than all that follows": b"content-length:100000",
    "larger than a body may be": b"content-length:100000000",
    "a petabyte": b"content-length:999999999999999",
    "zero": b"content-length:0",
}


@pytest.mark.parametrize("id_again", [b"2", b"7"], ids=["the same id", "another id"])
@pytest.mark.parametrize("lie", LIES)
def test_a_length_that_is_a_lie_comes_once(lie: str, id_again: bytes) -> None:
    """The connection ends, because nobody knows where the next frame begins. When the message comes again, by whatever
    number the broker gives it, its body ends at its NUL, it says so, and those behind it are read."""

    def lying(id_: bytes) -> bytes:
        return b"\n".join((b"MESSAGE", b"message-id:" + id_, b"certname:n", LIES[lie], b"", b"the body\0"))

    damaged = DamagedFrames()
    first = Wire(SmallRoom(), damaged=damaged)
    try:
        first.send(lying(b"2") + b"\n" + GOOD[1])
        with pytest.raises(Unavailable, match=r"damaged frame.*'2'"):  # noqa: PT012
            for _ in range(50):
                list(first.connection.read())
                first.connection.beat()
                first.drag()
                first.send(b"\n")
    finally:
        first.close()
    again = Wire(SmallRoom(), damaged=damaged)
    try:
        found = receive(again, GOOD[0] + lying(id_again) + b"\n" + GOOD[1], 3)
        assert [(headers["message-id"], body) for headers, body, _ in found] == [
            ("1", b"before"),
            (id_again.decode(), b"the body"),
            ("3", b"after"),
        ]
        assert [reason for _, _, reason in found] == [None, "damaged_frame", None]
    finally:
        again.close()


def test_a_neighbour_with_the_same_headers_is_innocent() -> None:
    """Only a frame whose length is wrong again is called damaged."""
    damaged = DamagedFrames()
    damaged.remember({"message-id": "9", "content-length": "6"})
    wire = Wire(SmallRoom(), damaged=damaged)
    try:
        assert [found[1:] for found in receive(wire, GOOD[0], 1)] == [(b"before", None)]
    finally:
        wire.close()


@pytest.mark.parametrize("length", [True, False])
def test_a_frame_that_waits_for_the_engine_is_no_damage(length: bool) -> None:
    """A full window or arena for any time, with the end of the frame unread: it is not the broker that is late."""
    wire = Wire(SmallRoom(left=0))
    whole = frame(2, b"body", length=length)
    try:
        for part in (whole[:-3], whole[-3:], b"\n"):
            wire.send(part)
            wire.connection.listen() if part == whole[-3:] else list(wire.connection.read())
            if part != whole[:-3]:
                wire.drag()
            wire.connection.beat()
        wire.room.left = 1
        assert [found[1] for found in receive(wire, b"\n", 1)] == [b"body"]
    finally:
        wire.close()


def test_what_is_remembered_of_damage_is_bounded() -> None:
    """The newest are known."""
    damaged = DamagedFrames()
    for number in range(3 * DamagedFrames.REMEMBERED_MAX):
        damaged.remember({"message-id": str(number), "certname": str(number)})
    assert len(damaged._marks) <= DamagedFrames.REMEMBERED_MAX
    assert damaged.know({"message-id": str(number)})
    assert not damaged.know({"message-id": "0", "certname": "0"})


def test_a_slow_body_is_no_damage(wire: Wire) -> None:
    """A body of line ends alone that comes a byte at a time is only slow, as long as something else comes now and then."""
    wire.send(b"MESSAGE\nmessage-id:2\ncontent-length:9\n\n\n\n")
    for byte in (b"\n", b"x", b"\n", b"y", b"\n", b"z"):
        list(wire.connection.read())
        wire.connection.beat()
        wire.connection._content_s -= 2
        wire.send(byte)
    assert [found[1] for found in receive(wire, b"\n\0", 1)] == [b"\n\n\nx\ny\nz\n"]


@pytest.mark.parametrize("said", [b"\n", b"CONNECTED\n", b"x"])
def test_a_broker_that_never_comes_to_the_point_is_left_in_time(said: bytes) -> None:
    """Something every few milliseconds, and no end of it: as one that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def say() -> None:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                while True:
                    client.sendall(said)
                    time.sleep(0.005)

        threading.Thread(target=say, daemon=True).start()
        where = Endpoint("127.0.0.1", server.getsockname()[1], None, None, "/", None)
        with pytest.raises(Unavailable, match="does not answer in STOMP"):
            StompClient(
                where, connect_timeout_s=0.5, heartbeat_s=1, body_bytes_max=1 << 24, space=SmallRoom()
            )


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
@pytest.mark.parametrize("id_", [b"a\xffb", b"plain", "\u00e9".encode(), b"T_1@@session-x@@7"])
def test_an_acknowledgement_says_what_stood_there(version: str, id_: bytes) -> None:
    """The very bytes, UTF-8 or not, or the broker would not know which message is meant."""
    wire = Wire(SmallRoom(), answer=b"CONNECTED\nversion:%s\n\n\0" % version.encode())
    try:
        ((headers, _, _),) = receive(wire, bad(b"message-id:" + id_, b"ack:" + id_), 1)
        wire.connection.acknowledge([(headers["ack"], headers["message-id"])], "s")
        wire.connection.flush()
        said = wire.broker.recv(4096)
    finally:
        wire.close()
    name = b"id:" if version == "1.2" else b"message-id:"
    assert b"\n" + name + id_ + b"\n" in said
    assert said.startswith(b"ACK\n")
    assert said.endswith(b"\n\n\0")
