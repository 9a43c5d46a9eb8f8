"""Connections: what one client can make the broker wait for, keep or give up, at times that the test chooses."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from ingest.embedded.broker.admission import Admission
from ingest.embedded.broker.broker_session import Faults
from ingest.embedded.broker.client_connection import CONNECT_TIMEOUT_S, LINGER_S, ClientConnection, Gone
from ingest.embedded.broker.parser import Limits
from ingest.embedded.broker.queues import Queues


class Wire:
    """A connection, and the socket of its client."""

    def __init__(self, memory_bytes_max: int = 10**9, faults: Faults | None = None) -> None:
        ours, self.client = socket.socketpair()
        ours.setblocking(False)
        self.client.setblocking(False)
        self.queues = Queues("b")
        self.admission = Admission(memory_bytes_max, lambda: self.queues.held_bytes)
        self.connection = ClientConnection(
            ours, "test", self.queues, self.admission, Limits(), None, faults or Faults(), now_s=0.0
        )

    def say(self, data: bytes, now_s: float = 0.0) -> None:
        self.client.sendall(data)
        self.connection.read(now_s)
        self.connection.write(now_s)

    def connect(self, heart_beat: str = "0,0") -> None:
        self.say(b"CONNECT\naccept-version:1.2\nheart-beat:%s\n\n\0" % heart_beat.encode())
        assert self.hear().startswith(b"CONNECTED\n")

    def hear(self) -> bytes:
        """Everything that has come."""
        found = bytearray()
        try:
            while data := self.client.recv(65536):
                found += data
        except BlockingIOError:
            pass
        return bytes(found)

    def close(self) -> None:
        self.connection.close()
        self.client.close()


@pytest.fixture
def channels() -> Iterator[list[Wire]]:
    made: list[Wire] = []
    yield made
    for wire in made:
        wire.close()


@pytest.fixture
def wire(channels: list[Wire]) -> Wire:
    channels.append(Wire())
    return channels[0]


def test_a_client_that_reads_no_receipts_is_not_read_either(wire: Wire) -> None:
    """Its receipts would pile up; when it reads again, so do we, and the time between is not held against it."""
    wire.connect("1000,0")
    connection, told = wire.connection, 0
    while connection.wants_read:
        wire.say(b"SEND\ndestination:/queue/a\nreceipt:%d %s\n\n\0" % (told, b"x" * 10_000))
        told += 1
        assert told < 1000, "nothing bounds the receipts"
    connection.tick(100.0)
    heard = wire.hear()
    while heard.count(b"RECEIPT\n") < told:
        connection.write(100.0)
        heard += wire.hear()
    assert heard.count(b"RECEIPT\n") == told
    assert connection.wants_read
    connection.tick(101.0)
    assert not connection.closing


def test_heart_beats_are_sent_in_half_the_promised_time(wire: Wire) -> None:
    """Counted from the last write, so that a busy connection needs none."""
    wire.connect("0,1000")
    connection = wire.connection
    assert connection.due_s() == 0.5
    connection.tick(0.49)
    connection.write(0.49)
    assert wire.hear() == b""
    connection.tick(0.5)
    connection.write(0.5)
    assert wire.hear() == b"\n"
    assert connection.due_s() == 1.0


def test_a_client_that_breaks_its_promise_is_hung_up_on(wire: Wire) -> None:
    """After twice the interval, counted from any byte it sent; LINGER_S later the socket is closed."""
    wire.connect("1000,0")
    connection = wire.connection
    wire.say(b"\n", now_s=1.0)
    assert connection.due_s() == 3.0
    connection.tick(2.9)
    assert not connection.closing
    connection.tick(3.0)
    connection.write(3.0)
    assert b"message:no heart-beat came\n" in wire.hear()
    connection.tick(3.0)
    with pytest.raises(Gone):
        connection.tick(3.0 + LINGER_S)


def test_a_producer_that_waits_for_memory_need_not_be_heard(channels: list[Wire]) -> None:
    """We do not read it, so its heart-beats cannot arrive; it still gets ours."""
    wire = Wire(memory_bytes_max=2000)
    channels.append(wire)
    wire.queues.send("/queue/a", {}, b"x" * 1000)
    wire.connect("1000,1000")
    wire.say(b"SEND\ndestination:/queue/a\ncontent-length:1000\nreceipt:r\n\n" + b"y" * 1000 + b"\0")
    connection = wire.connection
    assert not connection.wants_read
    connection.tick(50.0)
    connection.write(50.0)
    assert wire.hear() == b"\n"
    wire.queues.held_bytes = 0
    assert wire.admission.next_in_line() is connection
    connection.process(50.0)
    connection.write(50.0)
    assert wire.hear().startswith(b"RECEIPT\nreceipt-id:r\n")
    connection.tick(51.0)
    assert connection.wants_read
    assert not connection.closing


def test_who_does_not_connect_in_time_is_closed(wire: Wire) -> None:
    """A socket that says nothing keeps no place."""
    assert wire.connection.due_s() == CONNECT_TIMEOUT_S
    with pytest.raises(Gone):
        wire.connection.tick(CONNECT_TIMEOUT_S)


def test_a_half_sent_body_gives_its_memory_back(wire: Wire) -> None:
    """When the client goes away in the middle of it."""
    wire.connect()
    wire.say(b"SEND\ndestination:/queue/a\ncontent-length:1000000\n\nabc")
    assert wire.admission.used_bytes > 1_000_000
    wire.client.close()
    with pytest.raises(Gone):
        wire.connection.read(0.0)
    wire.connection.close()
    assert wire.admission.used_bytes == 0
    assert wire.queues.depths() == {}


def test_no_message_leaves_after_the_goodbye(wire: Wire) -> None:
    """What had not begun to leave is in its queue again, and is not sent as well."""
    wire.connect()
    wire.say(b"SUBSCRIBE\nid:s\ndestination:/queue/a\nack:client-individual\n\n\0")
    for _ in range(3):
        wire.queues.send("/queue/a", {}, b"x" * 1_000_000)
    for delivery in wire.queues.deliveries():
        wire.connection.deliver(delivery)
    wire.connection.write(0.0)  # the kernel takes a part of the first
    wire.say(b"DISCONNECT\nreceipt:bye\n\n\0")
    assert wire.queues.depths()["/queue/a"].ready == 3
    heard = wire.hear()
    while not heard.endswith(b"RECEIPT\nreceipt-id:bye\n\n\0"):
        wire.connection.write(0.0)
        heard += wire.hear()
    assert heard.count(b"MESSAGE\n") == 1
    assert heard.count(b"x" * 1_000_000 + b"\0") == 1


def test_bytes_behind_disconnect_mean_nothing(wire: Wire) -> None:
    """The conversation is over."""
    wire.connect()
    wire.say(b"DISCONNECT\n\n\0SEND\ndestination:/queue/a\n\n\0")
    wire.say(b"SEND\ndestination:/queue/a\n\n\0")
    assert wire.queues.depths() == {}
