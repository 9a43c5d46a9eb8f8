"""What RabbitMQ and ActiveMQ let through of a producer's odd headers: whatever it is, good messages behind it are stored."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.brokers import BROKERS, PASSWORD, USER, Broker
from lab.engine import Engine, wait_for
from lab.store_model import expected, resource, stored, wire_body

QUEUE = "/queue/catalog"
# (name, what a SEND has beside destination and length; the body's own length is told unless None is)
ODD: dict[str, tuple[bytes, bytes | None]] = {
    "400 headers of 900 bytes": (b"".join(b"x-h%d:%s\n" % (n, b"v" * 900) for n in range(400)), b"ok"),
    "one header of 9 kB": (b"x:" + b"v" * 9000 + b"\n", b"ok"),
    "one header of 300 kB": (b"x:" + b"v" * 300_000 + b"\n", b"ok"),
    "900 small headers": (b"".join(b"x-%d:v\n" % n for n in range(900)), b"ok"),
    "a NUL": (b"x:a\0b\n", b"ok"),
    "not UTF-8": (b"certname:n\xf6de\n", b"ok"),
    "escapes that are none": (b"x:a\\tb\n", b"ok"),
    "no colon": (b"nothing\n", b"ok"),
    "a message-id of its own": (b"message-id:mine\nack:mine\nsubscription:mine\n", b"ok"),
    "a length that is too short": (b"content-length:2\n", None),
    "a length that is no number": (b"content-length:ten\n", None),
    "no length, 300 kB of headers": (b"".join(b"x-h%d:%s\n" % (n, b"v" * 900) for n in range(330)), None),
}


@pytest.fixture(scope="module", params=["rabbitmq", "activemq"])
def real(request: pytest.FixtureRequest) -> Iterator[Broker]:
    kind = BROKERS[request.param]
    if reason := kind.missing():
        pytest.skip(reason)
    broker = kind()
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


@pytest.fixture
def begin(real: Broker, database: str, tmp_path: Path) -> Iterator[Callable[[], Engine]]:
    engines: list[Engine] = []

    def start() -> Engine:
        engines.append(Engine(real.url(), database, "--workers", "1", log=tmp_path / "log"))
        engines[-1].wait_ready()
        return engines[-1]

    yield start
    for engine in engines:
        engine.kill()


def send(broker: Broker, more: bytes, body: bytes, *, with_length: bool) -> bytes:
    """What the broker answers: a receipt, an error, or nothing but the end of the connection."""
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as client:
        login = f"CONNECT\naccept-version:1.2\nhost:/\nlogin:{USER}\npasscode:{PASSWORD}\n\n\0"
        client.sendall(login.encode())
        assert client.recv(4096).startswith(b"CONNECTED")
        length = b"content-length:%d\n" % len(body) if with_length else b""
        try:
            client.sendall(
                b"SEND\ndestination:%s\npersistent:true\nreceipt:r\n%s%s\n%s\0"
                % (QUEUE.encode(), length, more, body)
            )
            return client.recv(4096)
        except OSError:
            return b""


def test_odd_headers_of_a_producer_stop_nobody(
    real: Broker, begin: Callable[[], Engine], connection: Connection
) -> None:
    """Each between two good messages. What the broker takes is stored or in quarantine, each good one is stored, nothing is
    delivered again and again, and the queue is empty in the end."""
    engine = begin()
    taken = {}
    good = []
    for number, (name, (more, has_length)) in enumerate(ODD.items()):
        body = wire_body(f"odd{number}.example.com", 1, [resource(f"/odd/{number}")])
        taken[name] = send(real, more, body, with_length=has_length is not None)[:7] == b"RECEIPT"
        good.append(wire_body(f"good{number}.example.com", 1, [resource(f"/good/{number}")]))
        assert send(real, b"", good[-1], with_length=True).startswith(b"RECEIPT")
    print(real.name, taken)
    wait_for(
        lambda: _count(connection, "SELECT count(*) FROM nodes WHERE certname LIKE 'good%%'") == len(good), engine, "good"
    )  # fmt: skip
    settled = engine.wait_settled(len(good) + sum(taken.values()))
    for number, body in enumerate(good):
        assert stored(connection, f"good{number}.example.com") == expected(body)
    refused = _count(connection, "SELECT coalesce(sum(attempts), 0) FROM quarantine")
    assert settled["quarantined"] == refused
    assert engine.stop() == 0
    connected = [line for line in engine.lines() if line.get("event") == "connected"]
    assert len(connected) == 1
    again = begin()  # nothing is left
    last = wire_body("last.example.com", 1, [resource("/last")])
    assert send(real, b"", last, with_length=True).startswith(b"RECEIPT")
    assert sum(again.wait_settled(1).values()) == 1
    print(connection.execute("SELECT reason, certname, attempts, detail FROM quarantine").fetchall())


def _count(connection: Connection, statement: str) -> int:
    row: Any = connection.execute(statement.encode()).fetchone()
    return int(row[0])
