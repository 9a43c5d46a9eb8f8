"""The engine's end of a STOMP connection, against a socket that the test holds."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import Misconfigured, Unavailable
from ingest.transport.message import Message
from ingest.transport.stomp.dialects import flow_control
from ingest.transport.stomp.incoming import BUFFER_BYTES
from ingest.transport.stomp.opening import Endpoint
from tests.brokers.room import Room
from tests.brokers.wire import Wire, frame


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def test_heart_beats_are_seen_while_no_message_is_wanted(wire: Wire) -> None:
    """A window that stays full for long costs no connection; a broker that is silent does."""
    wire.age()
    wire.send(b"\n")
    wire.connection.listen()
    wire.connection.beat()
    wire.age()
    with pytest.raises(Unavailable, match="heart-beats are missing"):
        wire.connection.beat()


def test_heart_beats_are_seen_while_a_body_waits_for_space() -> None:
    """A full arena costs no connection either."""
    wire = Wire(Room(left=0))
    try:
        wire.send(frame(1, b"body"))
        assert list(wire.connection.read()) == []
        assert wire.connection.paused
        wire.age()
        wire.send(b"\n")
        assert list(wire.connection.read()) == []
        wire.connection.beat()
        wire.room.left = 1
        assert [wire.room.body(message) for message in wire.connection.read()] == [b"body"]
    finally:
        wire.close()


def test_a_full_buffer_makes_silence_meaningless(wire: Wire) -> None:
    """More than the buffer holds came while nothing was wanted: it is no reason to give up, and all arrives."""
    bodies = [bytes([65 + number]) * (BUFFER_BYTES // 4) for number in range(8)]
    sender = threading.Thread(
        target=wire.broker.sendall, args=(b"".join(frame(n, body) for n, body in enumerate(bodies)),)
    )
    sender.start()
    while wire.connection.listens:
        assert select.select([wire.connection], [], [], 30)[0]
        wire.connection.listen()
    wire.age()
    wire.connection.beat()
    found = []
    while len(found) < len(bodies):
        found += [wire.room.body(message) for message in wire.connection.read()]
        select.select([wire.connection], [], [], 0.1)
    sender.join()
    assert found == bodies


@given(
    st.lists(st.tuples(st.binary(max_size=50), st.booleans()), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["read", "listen", "one"])), max_size=40),
)
def test_listening_never_changes_what_is_read(
    messages: list[tuple[bytes, bool]], steps: list[tuple[int, str]]
) -> None:
    """However the bytes are cut, and whenever the reader only listens or stops early: the same bodies in order."""
    bodies = [body if has_length else body.replace(b"\0", b"") for body, has_length in messages]
    sent = b"".join(
        frame(number, body, length=has_length)
        for number, (body, (_, has_length)) in enumerate(zip(bodies, messages, strict=True))
    )
    wire = Wire()
    found: list[bytes] = []
    try:
        at = 0
        for size, what in steps:
            if at < len(sent):
                wire.send(sent[at : at + size])
                at += size
            if what == "listen":
                wire.connection.listen()
                continue
            for message in wire.connection.read():
                found.append(wire.room.body(message))
                if what == "one":
                    break
        wire.send(sent[at:] + b"\n")
        while len(found) < len(bodies):
            assert wire.connection.unread or select.select([wire.connection], [], [], 30)[0]
            found += [wire.room.body(message) for message in wire.connection.read()]
        assert found == bodies
    finally:
        wire.close()


REFUSALS = [
    (
        "Bad CONNECT",
        "Access refused for user 'x'\n",
        Misconfigured,
        "Bad CONNECT: Access refused for user 'x'",
    ),
    ("See below", "Invalid Login", Misconfigured, "See below: Invalid Login"),
    ("wrong", "java.lang.SecurityException: wrong\n\tat java.base/a.b", Misconfigured, "login: wrong$"),
    ("", "only\nhere", Misconfigured, "login: only$"),
    ("Processing error", "Processing error", Unavailable, "not ready: Processing error$"),
]


@pytest.mark.parametrize(("message", "body", "error", "told"), REFUSALS)
def test_a_refusal_is_one_line_with_its_reason(
    message: str, body: str, error: type[Exception], told: str
) -> None:
    """Header, body or both, as RabbitMQ, StompServer and ActiveMQ send it; a broker that only just starts is away,
    and no setting is wrong."""
    with pytest.raises(error, match=told) as caught:
        Wire(answer=f"ERROR\nmessage:{message}\n\n{body}\0".encode())
    assert "\n" not in str(caught.value)


# What brokers send, each with what must come of it: (bytes, headers that are looked at, body).
SENT: list[tuple[bytes, dict[str, str], bytes]] = [
    (b"MESSAGE\nmessage-id:1\ncontent-length:4\n\nbody\0\n", {"message-id": "1"}, b"body"),
    (b"MESSAGE\nmessage-id:2\ncontent-length:5\n\n\0\n\n\0x\0", {"message-id": "2"}, b"\0\n\n\0x"),
    (b"\n\n\r\nMESSAGE\nmessage-id:3\n\nno length\n\n\0\n", {"message-id": "3"}, b"no length\n\n"),
    (b"MESSAGE\r\nmessage-id:4\r\ncontent-length:2\r\n\r\n\r\n\0\r\n", {"message-id": "4"}, b"\r\n"),
    (b"MESSAGE\r\nmessage-id:8\r\n\r\n\nx\n\n\0", {"message-id": "8"}, b"\nx\n\n"),
    (b"MESSAGE\nmessage-id:5\nheader:a\\cb\\\\n\\nc\\r\n\n\0", {"header": "a:b\\n\nc\r"}, b""),
    (b"MESSAGE\nmessage-id:6\nmessage-id:7\ncontent-length:0\n\n\0", {"message-id": "6"}, b""),
    ("MESSAGE\ncertname:n\u00f6de\ncontent-length:3\n\n\u20ac\0".encode(), {"certname": "n\u00f6de"}, b"\xe2\x82\xac"),
]  # fmt: skip
STREAM = b"RECEIPT\nreceipt-id:r1\n\n\0".join(sent for sent, _, _ in SENT)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, len(STREAM)])
def test_frames_arrive_whole_however_they_are_cut(wire: Wire, size: int) -> None:
    """Byte by byte or all at once: lengths, line ends, escapes, repeated headers and what stands between frames."""
    found = []
    wire.connection.disconnect("r1")
    for at in range(0, len(STREAM), size):
        wire.send(STREAM[at : at + size])
        found += [(message.headers, wire.room.body(message)) for message in wire.connection.read()]
    assert [body for _, body in found] == [body for _, _, body in SENT]
    for (headers, _), (_, looked_at, _) in zip(found, SENT, strict=True):
        assert headers.items() >= looked_at.items()
    assert wire.connection.receipts == {"r1"}


def test_a_receipt_that_nobody_asked_for_is_none(wire: Wire) -> None:
    """Else a publisher would take it for one of its messages; nor does one count twice."""
    wire.connection.send_message("/queue/catalog", b"x", {"receipt": "mine"})
    nobodys, mine = (b"RECEIPT\nreceipt-id:%s\n\n\0" % name for name in (b"nobody's", b"mine"))
    wire.send(nobodys * 100 + mine + nobodys)
    assert list(wire.connection.read()) == []
    assert wire.connection.receipts == {"mine"}
    wire.connection.receipts.clear()
    wire.send(mine)
    assert list(wire.connection.read()) == []
    assert wire.connection.receipts == set()


@pytest.mark.parametrize("length", [True, False])
def test_a_body_that_is_too_large_is_passed_over(wire: Wire, length: bool) -> None:
    """It keeps no memory, its size is known, and its neighbours are whole."""
    large = b"x" * ((1 << 24) + 1000)
    stream = frame(1, b"before") + frame(2, large, length=length) + frame(3, b"after")
    sender = threading.Thread(target=wire.broker.sendall, args=(stream,))
    sender.start()
    found: list[Message] = []
    while len(found) < 3:
        assert select.select([wire.connection], [], [], 30)[0]
        found += wire.connection.read()
    sender.join()
    assert [message.offset is None for message in found] == [False, True, False]
    assert found[1].body_bytes > 1 << 24
    assert [wire.room.body(message) for message in (found[0], found[2])] == [b"before", b"after"]
    assert sum(len(body) for body in wire.room.bodies) < 100


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (frame(1, b"body")[:-2] + b"more", "message-id '1'.*content-length"),
        (b"ERROR\nmessage:gone\n\nthe reason\nand more\0", "sent ERROR: gone: the reason$"),
    ],
)
def test_damage_ends_the_connection(wire: Wire, sent: bytes, told: str) -> None:
    """What cannot be read, or says that something went wrong, is a broker that is away: connect anew."""
    wire.broker.sendall(sent)
    with pytest.raises(Unavailable, match=told):  # noqa: PT012  # it may arrive in parts
        while select.select([wire.connection], [], [], 30)[0]:
            list(wire.connection.read())


@pytest.mark.parametrize(
    ("server", "asked"),
    [
        ("RabbitMQ/3.10.8", {"prefetch-count": "7"}),
        ("ActiveMQ/5.17.2", {"activemq.prefetchSize": "7"}),
        ("apache-activemq-artemis/2.28.0 ActiveMQ Artemis", {"consumer-window-size": "900"}),
        ("", {"prefetch-count": "7", "activemq.prefetchSize": "7"}),
    ],
)
def test_each_broker_is_asked_in_its_own_words(server: str, asked: dict[str, str]) -> None:
    """Told from the server header; one that has none is asked in both ways."""
    assert flow_control(server, 7, 900) == asked


def test_an_endpoint_is_written_as_in_its_url() -> None:
    """An IPv6 address keeps its brackets; user and password are never in it."""
    assert str(Endpoint("::1", 61613, "user", "password", "/", None)) == "[::1]:61613"
    assert (
        str(Endpoint("broker.example.com", 61613, "user", "password", "/", None))
        == "broker.example.com:61613"
    )


@pytest.mark.parametrize(
    "said", ["", "1", "a,b", "1,2,3", "-1,-1", "1000,", "\u0661,\u0661", "9" * 5000 + ",0", "9" * 400 + ",0"]
)
def test_heart_beats_that_cannot_be_read_are_none(said: str) -> None:
    """A broker that names no two numbers of milliseconds is one without heart-beats: silence has no meaning."""
    wire = Wire(answer=f"CONNECTED\nversion:1.2\nheart-beat:{said}\n\n\0".encode())
    try:
        wire.age()
        wire.connection.beat()
        assert wire.connection.next_beat_s() == 60.0
    finally:
        wire.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"CONNECTED\nversion:1.1\nserver:x\\cy\n\n\0",
        b"CONNECTED\r\nversion:1.1\r\nserver:x\\cy\r\n\r\n\0",
        b"\n\r\nCONNECTED\nserver:x\\cy\nversion:1.1\n\n\0",
        b"CONNECTED\nserver:x\\cy\nserver:z\nversion:1.1\nversion:1.2\n\nbody\0",
        b"CONNECTED\nversion:1.1\nserver:x\\cy\0",
        b"CONNECTED\r\nversion:1.1\r\nserver:x\\cy\r\n\0",
    ],
)
def test_connected_is_read_however_it_is_written(answer: bytes) -> None:
    """Line ends of either kind, repeated headers, no empty line; nothing in it is an escape."""
    wire = Wire(answer=answer)
    try:
        assert (wire.connection.version, wire.connection.server) == ("1.1", "x\\cy")
    finally:
        wire.close()
