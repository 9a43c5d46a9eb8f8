"""The broker on a real socket, with a bare client, and with stomp.py as the engine and others use it."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
import structlog.testing

os.environ.setdefault("STOMP_SKIP_HOSTNAME_SCAN", "1")
import stomp
from stomp.exception import ConnectFailedException

from ingest.config.loading import load
from ingest.embedded.broker.admission import Admission
from ingest.embedded.broker.broker_session import Faults
from ingest.embedded.broker.client_connection import ClientConnection
from ingest.embedded.broker.depths import read_depths
from ingest.embedded.broker.listening import Place
from ingest.embedded.broker.logins import Credentials, Logins
from ingest.embedded.broker.messages import Depth
from ingest.embedded.broker.parser import Frame, Limits, Parser
from ingest.embedded.broker.queues import Queues
from ingest.embedded.broker.server import Server, Settings
from ingest.errors import Misconfigured, Unavailable
from ingest.transport.publisher import Publisher
from ingest.transport.stomp.codec import write_head
from lab.servers import free_port

PATIENCE_S = 20.0  # until a test is given up; no claim about speed
QUEUE = "/queue/catalog"

Start = Callable[..., Server]


@pytest.fixture(autouse=True)
def log() -> Iterator[list[MutableMapping[str, Any]]]:
    """What the brokers of a test logged."""
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.fixture
def start(log: object) -> Iterator[Start]:
    """Starts brokers in threads and ends them."""
    running: list[tuple[Server, threading.Thread]] = []

    def start(settings: Settings | None = None, faults: Faults | None = None) -> Server:
        server = Server(settings=settings, faults=faults, instance="b")
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.stop()
        thread.join()
        server.close()


class Client:
    """A bare STOMP 1.2 client that says exactly what a test wants."""

    def __init__(
        self, server: Server | tuple[str, int], tls: ssl.SSLContext | None = None, **headers: str
    ) -> None:
        address = server.address if isinstance(server, Server) else server
        self.socket = socket.create_connection(address, timeout=PATIENCE_S)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=address[0])
        self.parser = Parser()
        self.say("CONNECT", {"accept-version": "1.2", "host": "/"} | headers)
        self.connected = self.hear()
        self.parser.version = "1.2"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, command: str, headers: dict[str, str], body: bytes | bytearray = b"") -> None:
        if body:
            headers = headers | {"content-length": str(len(body))}
        self.socket.sendall(write_head(command, headers, "1.2") + body + b"\0")

    def send(self, body: bytes, **headers: str) -> None:
        self.say("SEND", {"destination": QUEUE} | headers, body)

    def send_surely(self, body: bytes) -> None:
        self.send(body, receipt="sent")
        assert self.hear().headers["receipt-id"] == "sent"

    def subscribe(self, prefetch_messages: int = 100, ack: str = "client-individual") -> None:
        headers = {"id": "s", "destination": QUEUE, "ack": ack, "prefetch-count": str(prefetch_messages)}
        self.say("SUBSCRIBE", headers | {"receipt": "subscribed"})
        assert self.hear().headers["receipt-id"] == "subscribed"

    def acknowledge(self, message: Frame) -> None:
        self.say("ACK", {"id": message.headers["ack"], "receipt": "acknowledged"})
        while (answer := self.hear()).command != "RECEIPT":
            self.kept.append(answer)
        assert answer.headers["receipt-id"] == "acknowledged"

    @property
    def kept(self) -> list[Frame]:
        """Messages that came while another answer was awaited."""
        return self.__dict__.setdefault("_kept", [])

    def message(self) -> Frame:
        frame = self.kept.pop(0) if self.kept else self.hear()
        assert frame.command == "MESSAGE", frame
        return frame

    def hear(self) -> Frame:
        frame = self.hear_or_end()
        assert frame is not None, "the broker closed the connection"
        return frame

    def hear_or_end(self) -> Frame | None:
        while (frame := self.parser.next_frame()) is None:
            count = self.socket.recv_into(self.parser.buffer())
            if not count:
                return None
            self.parser.received(count)
        return frame


def depth(server: Server) -> Depth | None:
    return read_depths(*server.address).get(QUEUE)


# Delivery


def test_a_message_travels_unchanged(start: Start) -> None:
    """Header and body arrive as they were sent, whatever bytes they hold."""
    body = bytes(range(256)) * 3
    with Client(start()) as client:
        client.subscribe()
        client.send(body, certname="a.example.com", odd="a:b\\c\nd\r")
        message = client.message()
    assert bytes(message.body) == body
    assert message.headers["certname"] == "a.example.com"
    assert message.headers["odd"] == "a:b\\c\nd\r"


def test_frames_arrive_whole_byte_by_byte_and_together(start: Start) -> None:
    """What the socket does to the bytes makes no difference to the broker."""
    wire = b"".join(b"SEND\r\ndestination:%s\r\n\r\nbody %d\0\n" % (QUEUE.encode(), i) for i in range(3))
    with Client(start()) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.socket.sendall(wire)
        for i in range(len(wire)):
            client.socket.sendall(wire[i : i + 1])
        client.subscribe()
        assert [bytes(client.message().body) for _ in range(6)] == [b"body 0", b"body 1", b"body 2"] * 2


def test_a_body_of_64_mib_travels_unchanged(start: Start) -> None:
    """The largest catalogs pass, and memory is given back."""
    body = random.Random(1).randbytes(64 * 1024 * 1024)
    server = start()
    with Client(server) as producer, Client(server) as consumer:
        producer.send_surely(body)
        consumer.subscribe()
        message = consumer.message()
        assert message.body == body
        consumer.acknowledge(message)
        assert depth(server) == Depth(0, 0, 1, 0)


def test_bodies_without_length_end_with_nul(start: Start) -> None:
    """Up to more than one read of the socket."""
    body = b"text " * 100_000
    with Client(start()) as client:
        client.subscribe()
        client.socket.sendall(b"SEND\ndestination:" + QUEUE.encode() + b"\n\n" + body + b"\0")
        assert bytes(client.message().body) == body


def test_a_slow_consumer_is_given_its_prefetch_and_no_more(start: Start) -> None:
    """The rest stays in the queue, for others too."""
    server = start()
    with Client(server) as consumer, Client(server) as producer:
        consumer.subscribe(3)
        for number in range(10):
            producer.send_surely(b"%d" % number)
        messages = [consumer.message() for _ in range(3)]
        assert depth(server) == Depth(7, 3, 1, 10)
        consumer.acknowledge(messages[1])
        assert bytes(consumer.message().body) == b"3"
        assert depth(server) == Depth(6, 3, 1, 9)


def test_competing_consumers_share(start: Start) -> None:
    """They take turns."""
    server = start()
    with Client(server) as a, Client(server) as b, Client(server) as producer:
        a.subscribe()
        b.subscribe()
        for number in range(4):
            producer.send_surely(b"%d" % number)
        assert [bytes(a.message().body) for _ in range(2)] == [b"0", b"2"]
        assert [bytes(b.message().body) for _ in range(2)] == [b"1", b"3"]


def test_a_lost_consumers_messages_are_redelivered_in_order(start: Start) -> None:
    """Without DISCONNECT, in the middle of everything; what was acknowledged stays settled."""
    server = start()
    with Client(server) as producer:
        for number in range(5):
            producer.send_surely(b"%d" % number)
    with Client(server) as lost:
        lost.subscribe(3)
        messages = [lost.message() for _ in range(3)]
        lost.acknowledge(messages[1])
    with Client(server) as consumer:
        consumer.subscribe()
        found = [consumer.message() for _ in range(4)]
    assert sorted(bytes(one.body) for one in found) == [b"0", b"2", b"3", b"4"]
    told = {bytes(one.body): one.headers.get("redelivered") for one in found}
    assert told == {b"0": "true", b"2": "true", b"3": "true", b"4": None}


def test_auto_loses_nothing_that_did_not_leave(start: Start) -> None:
    """A consumer that reads nothing and goes away leaves most of what is large behind."""
    server = start()
    with Client(server) as consumer, Client(server) as producer:
        consumer.subscribe(50, ack="auto")
        for number in range(40):
            producer.send_surely(bytes([number]) * 1_000_000)
        before = depth(server)
        assert before is not None
        assert before.unacknowledged > 0
    with Client(server) as other:
        other.subscribe()
        found = [other.message().body[0]]
        while found[-1] != 39:
            found.append(other.message().body[0])
    assert found == list(range(found[0], 40))


# Receipts, errors, limits


def test_disconnect_is_confirmed_after_everything_before(start: Start) -> None:
    """Its receipt is the last frame, then the connection ends."""
    server = start()
    with Client(server) as client:
        client.send(b"1", receipt="r-1")
        client.say("DISCONNECT", {"receipt": "r-2"})
        assert [client.hear().headers["receipt-id"] for _ in range(2)] == ["r-1", "r-2"]
        assert client.hear_or_end() is None
    assert depth(server) == Depth(1, 0, 0, 1)


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"NONSENSE\nreceipt:r\n\n\0", "there is no 'NONSENSE'"),
        (b"SEND\nreceipt:r\ndestination:/queue/a\ncontent-length:1001\n\n", "over the limit of 1000 bytes"),
        (b"SEND\nreceipt:r\ndestination:/queue/a\ncontent-length:1\n\nabc\0", "no NUL"),
        (b"SEND\nreceipt:r\n" + b"a:b\n" * 30 + b"\n\0", "more than 20 headers"),
        (b"SEND\n" + b"a" * 5000, "longer than 4000 bytes"),
        (b"\x16\x03\x01\x02\x00", "before the empty line"),
    ],
)
def test_a_breach_is_answered_with_an_error_and_the_end(start: Start, wire: bytes, reason: str) -> None:
    """The client hears why, even while it goes on sending; other clients notice nothing."""
    server = start(Settings(limits=Limits(head_bytes_max=4000, headers_max=20, body_bytes_max=1000)))
    with Client(server) as culprit, Client(server) as other:
        culprit.socket.sendall(wire + b"x" * 100_000)
        error = culprit.hear()
        assert error.command == "ERROR"
        assert reason in error.headers["message"]
        if b"receipt:r" in wire and b"a:b" not in wire:
            assert error.headers["receipt-id"] == "r"
        assert culprit.hear_or_end() is None
        other.subscribe()
        other.send(b"fine")
        assert bytes(other.message().body) == b"fine"


def test_a_wrong_login_is_an_error_frame(start: Start) -> None:
    """And the right one is let in, also to ask for depths."""
    server = start(Settings(logins=Logins(Credentials("user", "secret"))))
    with Client(server, login="user", passcode="wrong") as client:
        assert client.connected.command == "ERROR"
        assert client.connected.headers["message"] == "login refused"
        assert client.hear_or_end() is None
    with Client(server, login="user", passcode="secret") as client:
        assert client.connected.command == "CONNECTED"
    with pytest.raises(Unavailable, match="login refused"):
        read_depths(*server.address)
    assert read_depths(*server.address, credentials=Credentials("user", "secret")) == {}


def test_too_many_clients_are_turned_away(start: Start) -> None:
    """The limit holds, and a place that is given up can be taken again."""
    server = start(Settings(connections_max=1))
    with Client(server) as client:
        with socket.create_connection(server.address, timeout=PATIENCE_S) as turned_away:
            assert turned_away.recv(1) == b""
        client.say("DISCONNECT", {"receipt": "r"})
        assert client.hear().command == "RECEIPT"
        assert client.hear_or_end() is None


def test_who_does_not_log_in_makes_room_for_who_does(start: Start) -> None:
    """Strangers that hold every place keep nobody out, and nobody who is in is put out for one."""
    server = start(Settings(connections_max=3))
    with Client(server) as first, contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(server.address, timeout=PATIENCE_S))
            for _ in range(20)
        ]
        with Client(server) as second:
            for client in (first, second):
                client.send_surely(b"x")
        assert idle[0].recv(1) == b""


def test_a_producer_that_holds_every_place_makes_room_for_the_engine(start: Start) -> None:
    """With a login that only sends; the engine, who is in, is never put out for one."""
    engine, producer = Credentials("ingest", "all"), Credentials("puppet", "some")
    server = start(Settings(connections_max=5, logins=Logins(engine, producer)))
    with Client(server, login="ingest", passcode="all") as first, contextlib.ExitStack() as stack:
        greedy = [stack.enter_context(Client(server, login="puppet", passcode="some")) for _ in range(20)]
        with Client(server, login="ingest", passcode="all") as second:
            for client in (first, second, greedy[-1]):
                client.send_surely(b"x")


@pytest.mark.parametrize("trickles", [False, True])
def test_a_message_that_does_not_come_keeps_no_room_from_others(
    start: Start, monkeypatch: pytest.MonkeyPatch, trickles: bool
) -> None:
    """A producer that died in the middle of a large one, or sends a byte now and then: it is hung up on with a word, and whoever
    waited is served."""
    monkeypatch.setattr("ingest.embedded.broker.client_connection.STALLED_S", 0.5)
    monkeypatch.setattr("ingest.embedded.broker.client_connection.BYTES_PER_S_MIN", 10**9)
    server = start(Settings(memory_bytes_max=1_000_000, limits=Limits(body_bytes_max=900_000)))
    with Client(server) as stalled, Client(server) as other:
        stalled.socket.sendall(b"SEND\ndestination:/queue/a\ncontent-length:900000\n\nbegun")
        stop = threading.Event()

        def trickle() -> None:
            while trickles and not stop.wait(0.05):
                with contextlib.suppress(OSError):
                    stalled.socket.sendall(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            other.send_surely(b"y" * 500_000)
        finally:
            stop.set()
            thread.join()
        assert b"does not come" in stalled.hear().body


def test_full_memory_makes_producers_wait_and_drops_nothing(start: Start) -> None:
    """Over the limit a SEND's receipt waits until consumers, who are still heard, have made room."""
    limits = Limits(body_bytes_max=400_000)
    server = start(Settings(memory_bytes_max=1_000_000, limits=limits))
    with Client(server) as producer, Client(server) as consumer:
        # In a thread: the kernel does not take what the broker does not read.
        sender = threading.Thread(
            target=lambda: [
                producer.send(b"%d" % number * 300_000, receipt=str(number)) for number in range(10)
            ]
        )
        sender.start()
        assert [producer.hear().headers["receipt-id"] for _ in range(3)] == ["0", "1", "2"]
        consumer.subscribe()
        for number in range(10):
            held = depth(server)
            assert held is not None
            assert held.bytes <= 1_000_000
            message = consumer.message()
            assert bytes(message.body) == b"%d" % number * 300_000
            consumer.acknowledge(message)
        assert [producer.hear().headers["receipt-id"] for _ in range(7)] == [
            str(number) for number in range(3, 10)
        ]
        sender.join()
    assert depth(server) is None


def test_a_producer_that_waits_is_not_answered(start: Start) -> None:
    """While memory is full there is no receipt: the broker has not taken the message."""
    server = start(Settings(memory_bytes_max=10_000, limits=Limits(body_bytes_max=8_000)))
    with Client(server) as producer, Client(server) as late, Client(server) as consumer:
        producer.send_surely(b"x" * 8_000)
        late.send(b"y" * 8_000, receipt="late")
        assert depth(server) == Depth(1, 0, 0, 8_000)
        consumer.subscribe()
        message = consumer.message()
        assert not select.select([late.socket], [], [], 0)[0]
        consumer.acknowledge(message)
        assert late.hear().headers["receipt-id"] == "late"
        assert bytes(consumer.message().body) == b"y" * 8_000


def test_a_consumer_that_sends_into_full_memory_is_told(start: Start) -> None:
    """Its ACKs stand behind that SEND: to let it wait might be for ever."""
    server = start(Settings(memory_bytes_max=10_000, limits=Limits(body_bytes_max=8_000)))
    with Client(server) as client:
        client.subscribe(1)
        client.send(b"x" * 8_000)
        client.message()
        client.send(b"y" * 8_000, receipt="r")
        error = client.hear()
    assert "no subscription" in error.headers["message"]
    assert error.headers["receipt-id"] == "r"


def test_a_client_may_read_its_receipts_late(start: Start) -> None:
    """Far more than the broker keeps for it; none is missing, and they come in order."""
    server = start()
    with Client(server) as client:
        sender = threading.Thread(
            target=lambda: [client.send(b"", receipt=f"{number} {'x' * 10_000}") for number in range(2000)]
        )
        sender.start()
        heard = [client.hear().headers["receipt-id"].split()[0] for _ in range(2000)]
        sender.join()
    assert heard == [str(number) for number in range(2000)]


# Heart-beats and faults


def test_missing_heart_beats_end_a_connection(start: Start) -> None:
    """What a silent client had is given to others."""
    server = start()
    with Client(server, **{"heart-beat": "100,0"}) as silent, Client(server) as other:
        silent.subscribe()
        other.send_surely(b"1")
        assert silent.hear().command == "MESSAGE"
        error = silent.hear()
        assert error.headers["message"] == "no heart-beat came"
        assert silent.hear_or_end() is None
        other.subscribe()
        assert other.message().headers["redelivered"] == "true"


def test_heart_beats_come_when_nothing_else_does(start: Start) -> None:
    """A line feed, again and again."""
    with Client(start(), **{"heart-beat": "0,100"}) as client:
        assert client.connected.headers["heart-beat"] == "100,100"
        assert [client.socket.recv(1) for _ in range(3)] == [b"\n"] * 3


def test_a_dropped_connection_redelivers(start: Start) -> None:
    """The fault closes without a word after that many messages, and none is lost."""
    server = start(faults=Faults(drop_after_messages=2))
    with Client(server) as client, Client(server) as producer:
        client.subscribe()
        for number in range(3):
            producer.send_surely(b"%d" % number)
        assert [bytes(client.message().body) for _ in range(2)] == [b"0", b"1"]
        assert client.hear_or_end() is None
        assert depth(server) == Depth(3, 0, 0, 3)


# stomp.py


class Listener(stomp.ConnectionListener):
    """Puts what happens into queues, so that a test can wait for it."""

    def __init__(self) -> None:
        self.messages: queue.Queue[stomp.utils.Frame] = queue.Queue()
        self.receipts: queue.Queue[str] = queue.Queue()
        self.errors: queue.Queue[str] = queue.Queue()
        self.heartbeats: queue.Queue[None] = queue.Queue()
        self.timed_out = threading.Event()
        self.disconnected = threading.Event()

    def on_message(self, frame: stomp.utils.Frame) -> None:
        self.messages.put(frame)

    def on_receipt(self, frame: stomp.utils.Frame) -> None:
        self.receipts.put(frame.headers["receipt-id"])

    def on_error(self, frame: stomp.utils.Frame) -> None:
        self.errors.put(frame.headers["message"])

    def on_heartbeat(self) -> None:
        self.heartbeats.put(None)

    def on_heartbeat_timeout(self) -> None:
        self.timed_out.set()

    def on_disconnected(self) -> None:
        self.disconnected.set()


CLASSES = {"1.0": stomp.StompConnection10, "1.1": stomp.StompConnection11, "1.2": stomp.StompConnection12}


class StompPy:
    def __init__(self, server: Server, version: str, **options: object) -> None:
        vhost = {} if version == "1.0" else {"vhost": "/"}
        self.version = version
        self.listener = Listener()
        self.connection = CLASSES[version]([server.address], auto_decode=False, **vhost, **options)
        self.connection.set_listener("test", self.listener)

    def __enter__(self) -> StompPy:
        self.connection.connect("user", "secret", wait=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.connection.is_connected():
            self.connection.disconnect(receipt="bye")
        assert self.listener.disconnected.wait(PATIENCE_S)

    def subscribe(self, **headers: str) -> None:
        ack = "client" if self.version == "1.0" else "client-individual"
        self.connection.subscribe(
            destination=QUEUE, id="s", ack=ack, headers=headers | {"receipt": "subscribed"}
        )
        assert self.listener.receipts.get(timeout=PATIENCE_S) == "subscribed"

    def message(self) -> stomp.utils.Frame:
        return self.listener.messages.get(timeout=PATIENCE_S)

    def acknowledge(self, frame: stomp.utils.Frame) -> None:
        if self.version == "1.2":
            self.connection.ack(frame.headers["ack"], receipt="acknowledged")
        elif self.version == "1.1":
            self.connection.ack(frame.headers["message-id"], "s", receipt="acknowledged")
        else:
            self.connection.ack(frame.headers["message-id"], receipt="acknowledged")
        assert self.listener.receipts.get(timeout=PATIENCE_S) == "acknowledged"


@pytest.mark.parametrize("version", CLASSES)
def test_stomp_py_sends_receives_and_acknowledges(start: Start, version: str) -> None:
    """In every version of the protocol, with a body that is not UTF-8."""
    server = start()
    body = b"\xff\xfe\x00 not text \xc3"
    headers = {
        "certname": "a.example.com",
        "producer_timestamp": "2026-01-01T00:00:00.000Z",
        "receipt": "sent",
    }
    with StompPy(server, version) as client:
        client.subscribe()
        client.connection.send(QUEUE, body, "application/json", headers)
        assert client.listener.receipts.get(timeout=PATIENCE_S) == "sent"
        frame = client.message()
        assert frame.body == body
        assert frame.headers["certname"] == "a.example.com"
        assert frame.headers["producer_timestamp"] == "2026-01-01T00:00:00.000Z"
        assert frame.headers["content-type"] == "application/json"
        client.acknowledge(frame)
        assert depth(server) == Depth(0, 0, 1, 0)
    assert depth(server) is None


@pytest.mark.parametrize("version", CLASSES)
def test_stomp_py_gets_back_what_it_had_not_acknowledged(start: Start, version: str) -> None:
    """On a new connection, in order, marked as redelivered."""
    server = start()
    with StompPy(server, version) as first:
        first.subscribe(**{"activemq.prefetchSize": "3"})
        for number in range(5):
            first.connection.send(QUEUE, b"%d" % number)
        frames = [first.message() for _ in range(3)]
        first.acknowledge(frames[1])
        assert first.message().body == b"3"
    with StompPy(server, version) as second:
        second.subscribe(**{"prefetch-count": "10"})
        found = [second.message() for _ in range(4)]
    assert [frame.body for frame in found] == [b"0", b"2", b"3", b"4"]
    assert [frame.headers.get("redelivered") for frame in found] == ["true", "true", "true", None]


def test_stomp_py_takes_a_body_of_64_mib(start: Start) -> None:
    """No NUL in it: stomp.py looks at all it has again for each NUL."""
    body = bytes(range(1, 256)) * (64 * 1024 * 1024 // 255)
    with StompPy(start(), "1.2") as client:
        client.subscribe()
        client.connection.send(QUEUE, body)
        assert client.message().body == body


@pytest.mark.parametrize("version", ["1.1", "1.2"])
def test_stomp_py_and_the_broker_keep_each_other_alive(start: Start, version: str) -> None:
    """Both send heart-beats, and neither gives the other up."""
    server = start()
    with StompPy(server, version, heartbeats=(200, 200)) as client:
        for _ in range(8):
            client.listener.heartbeats.get(timeout=PATIENCE_S)
        assert not client.listener.timed_out.is_set()
        client.subscribe()


def test_stomp_py_notices_missing_heart_beats(start: Start) -> None:
    """The fault that keeps them back looks like a broker that is gone."""
    server = start(faults=Faults(mute_heartbeats=True))
    with StompPy(server, "1.2", heartbeats=(0, 100)) as client:
        assert client.listener.timed_out.wait(PATIENCE_S)


@pytest.mark.parametrize("version", CLASSES)
def test_stomp_py_hears_why_its_login_is_refused(start: Start, version: str) -> None:
    """As an ERROR frame, and connect fails."""
    server = start(Settings(logins=Logins(Credentials("user", "other"))))
    client = StompPy(server, version)
    with pytest.raises(ConnectFailedException):
        client.connection.connect("user", "secret", wait=True)
    assert client.listener.errors.get(timeout=PATIENCE_S) == "login refused"
    assert client.listener.disconnected.wait(PATIENCE_S)
    client.connection.transport.disconnect_socket()


# A process of its own


def test_the_start_line_says_what_it_is_for(start: Start, log: list[MutableMapping[str, Any]]) -> None:
    """Nobody runs it in production unwarned, and it listens on the loopback alone."""
    start()
    assert log[0]["event"] == "embedded_broker_started"
    assert "evaluation and tests" in log[0]["note"]
    assert log[0]["host"] == "127.0.0.1"


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    """Said as Unavailable, with the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            Unavailable, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"
        ):
            Server("127.0.0.1", port)


def test_a_body_limit_over_the_memory_limit_is_refused() -> None:
    """Such a body could never be let in."""
    with pytest.raises(Misconfigured, match="memory_bytes_max"):
        Server(settings=Settings(memory_bytes_max=10, limits=Limits(body_bytes_max=11)))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    pem, key = tmp_path / "broker.pem", tmp_path / "broker.key"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=broker",
    ]
    request += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(pem), "-keyout", str(key)]
    subprocess.run(request, check=True, capture_output=True)
    pem.write_text(pem.read_text() + key.read_text())
    return pem


def test_over_tls_everything_is_the_same(start: Start, certificate: Path) -> None:
    """A large body, many small ones, and the end of the connection."""
    server = start(Settings(certfile=str(certificate)))
    context = ssl.create_default_context(cafile=str(certificate))
    body = random.Random(2).randbytes(5_000_000)
    with Client(server, tls=context) as producer, Client(server, tls=context) as consumer:
        consumer.subscribe(1000)
        producer.send_surely(body)
        for number in range(500):
            producer.send(b"%d" % number)
        assert consumer.message().body == body
        assert [bytes(consumer.message().body) for _ in range(500)] == [
            b"%d" % number for number in range(500)
        ]
        producer.say("DISCONNECT", {"receipt": "bye"})
        assert producer.hear().headers["receipt-id"] == "bye"


def test_bytes_that_tls_has_decrypted_are_not_forgotten(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn may end in the middle of a TLS record: no selector tells that the rest is here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setattr(
        "ingest.embedded.broker.client_connection.READS_MAX", 2
    )  # all of it has to fit into a socket's buffer
    ours, theirs = socket.socketpair()
    queues = Queues("b")
    # A body that ends in the record that the turn's last read reaches, and a frame behind it.
    body_bytes = 16384 + 1000
    wire = b"CONNECT\naccept-version:1.2\n\n\0"
    wire += b"SEND\ndestination:/queue/a\ncontent-length:%d\n\n" % body_bytes + b"x" * body_bytes + b"\0"
    wire += b"SEND\ndestination:/queue/a\n\nlast\0"

    clients: queue.Queue[ssl.SSLSocket] = queue.Queue()

    def send() -> None:
        trusting = ssl.create_default_context(cafile=certificate)
        client = trusting.wrap_socket(theirs, server_hostname="127.0.0.1")
        clients.put(client)
        client.sendall(wire)

    sender = threading.Thread(target=send)
    sender.start()
    with context.wrap_socket(ours, server_side=True) as opened:
        sender.join()
        opened.setblocking(False)
        admission = Admission(10**9, lambda: queues.held_bytes)
        connection = ClientConnection(opened, "c", queues, admission, Limits(), None, Faults(), now_s=0.0)
        connection.read(0.0)
        while connection.has_unread:
            connection.read(0.0)
        assert queues.depths()["/queue/a"].ready == 2
        connection.close()
    clients.get().close()


def test_a_client_without_tls_is_no_harm(start: Start, certificate: Path) -> None:
    """It is hung up on; the next one is served."""
    server = start(Settings(certfile=str(certificate)))
    with socket.create_connection(server.address, timeout=PATIENCE_S) as plain:
        plain.sendall(b"CONNECT\naccept-version:1.2\n\n\0" * 100)
        with contextlib.suppress(ConnectionResetError):
            while plain.recv(4096):
                pass
    with Client(server, tls=ssl.create_default_context(cafile=str(certificate))) as client:
        assert client.connected.command == "CONNECTED"


def test_a_second_address_speaks_tls_and_the_first_does_not(start: Start, certificate: Path) -> None:
    """Both lead to the same queues; a producer's login is good at both."""
    place = Place("127.0.0.1", free_port(), str(certificate))
    logins = Logins(Credentials("user", "secret"), Credentials("puppet", "other"))
    start(Settings(logins=logins, public=(place,)))
    # The own publisher, as Puppet servers' is another's: it checks the certificate.
    source = f"stomp+ssl://puppet:other@127.0.0.1:{place.port}"
    publisher = Publisher(load({"queue_source": source, "tls_ca_file": str(certificate)}, {}).config)
    assert publisher.publish([(b"x", {})]) == 1
    publisher.close()
    with pytest.raises(Unavailable):
        Publisher(load({"queue_source": f"stomp://puppet:other@127.0.0.1:{place.port}"}, {}).config)


def test_a_certificate_that_is_not_there_is_named() -> None:
    """As a setting to change."""
    with pytest.raises(Misconfigured, match="--certfile"):
        Server(settings=Settings(certfile="/nowhere.pem"))


def test_the_command_listens_and_ends_on_sigterm(tmp_path: Path) -> None:
    """It says where it listens and what it is for, asks for the login, and leaves with 0."""
    ready = tmp_path / "ready"
    (tmp_path / "login").write_text("user:a:b\n")
    arguments = ["--port", "0", "--login-file", tmp_path / "login", "--ready-file", ready]
    command = [sys.executable, "-m", "ingest.embedded.broker", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            host, _, port = line.removeprefix("listening ").strip().rpartition(":")
            assert host == "127.0.0.1"
            assert ready.read_text() == f"{host}:{port}\n"
            with Client((host, int(port)), login="user", passcode="a:b") as client:
                assert client.connected.command == "CONNECTED"
                client.send_surely(b"gone")
                process.send_signal(signal.SIGTERM)
                assert client.hear_or_end() is None
            out, log = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0
    assert out == ""
    assert "evaluation and tests" in log
    assert "messages_forgotten=1" in log
    assert "a:b" not in log


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["--login-file", "/dev/null"], 2, "ingest.embedded.broker: --login-file: its first line is not"),
        (["--login-file", "/nowhere"], 2, "ingest.embedded.broker: --login-file: /nowhere: No such file"),
        (["--login-file", "/"], 2, "ingest.embedded.broker: --login-file: /: Is a directory"),
        (["--certfile", "/nowhere"], 2, "ingest.embedded.broker: --certfile: /nowhere: No such file"),
        (
            ["--host", "192.0.2.1"],
            69,
            "ingest.embedded.broker: the embedded broker cannot listen on 192.0.2.1:",
        ),
    ],
)
def test_a_wrong_argument_is_one_clear_line(arguments: list[str], status: int, line: str) -> None:
    """And an exit status; never a stack trace."""
    done = subprocess.run(
        [sys.executable, "-m", "ingest.embedded.broker", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
