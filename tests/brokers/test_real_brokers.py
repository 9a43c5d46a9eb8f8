"""RabbitMQ, ActiveMQ, StompServer and the embedded broker under the whole engine, each through the same tests."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.errors import Unavailable
from ingest.store.connection import Connection
from ingest.transport.message import Message
from ingest.transport.stomp import opening
from ingest.transport.stomp.client import StompClient
from ingest.transport.stomp.opening import Endpoint
from lab import real_catalogs as corpus
from lab.brokers import BROKERS, PASSWORD, READER, USER, Broker
from lab.engine import Engine, Start, wait_for
from lab.stomp_client import Client
from lab.store_model import expected, resource, stored, wire_body
from tests.brokers.command import ingest
from tests.brokers.room import Room

# What the engine makes of a broker's own window; the first one that fits, as StompServer sends one at a time.
WINDOW_MESSAGES = 3


def nodes(count: int, minute: int = 1) -> list[bytes]:
    return [
        wire_body(
            f"n{number}.example.com", minute, [resource(f"/{number}", parameters={"text": "Grüße, 世界 🚀"})]
        )
        for number in range(count)
    ]


def client(broker: Broker, accept: str = "1.0,1.1,1.2") -> Client:
    return Client(broker.port, USER, PASSWORD, accept)


def publish(broker: Broker, queue: str, bodies: list[bytes]) -> None:
    with client(broker) as producer:
        for body in bodies:
            producer.publish(queue, body)


def assert_empty(broker: Broker, queue: str) -> None:
    """A message sent now is the first that a new consumer gets: none was left before it."""
    publish(broker, queue, [b"the last one"])
    with client(broker) as consumer:
        consumer.subscribe(queue)
        last = consumer.message()
        assert last.body == b"the last one", last
        consumer.acknowledge(last)
        consumer.disconnect()


def assert_stored(connection: Connection, bodies: list[bytes]) -> None:
    for body in bodies:
        wire = expected(body)
        assert stored(connection, wire["certname"]) == wire


@contextlib.contextmanager
def nothing_settles(database: str) -> Iterator[None]:
    """Another session holds the table of catalogs."""
    with psycopg.connect(database) as holder:
        holder.execute("LOCK TABLE catalogs IN ACCESS EXCLUSIVE MODE")
        yield


def window(engine: Engine) -> int:
    """Messages that the engine has and has not settled."""
    return int(receiver(engine, "ingest_window_messages"))


def receiver(engine: Engine, metric: str) -> float:
    return float(engine.status().get("processes", {}).get("receiver", {}).get(metric, 0))


def events(engine: Engine, name: str) -> list[dict[str, Any]]:
    return [line for line in engine.lines() if line.get("event") == name]


def test_published_catalogs_are_stored_and_the_queue_is_empty(
    broker: Broker, queue: str, start: Start, connection: Connection, tmp_path: Path
) -> None:
    """Four rounds of real catalogs, wire and native, by ``ingest publish``: each has its receipt, is settled, the
    newest is what is stored, and a second consumer gets nothing. The newest STOMP that the broker speaks is used."""
    files = []
    for round_ in corpus.ROUNDS:
        for role in corpus.ROLES:
            file = tmp_path / f"{round_}-{role}.json"
            file.write_bytes(corpus.body(role, round_, "wire" if round_ % 2 else "native"))
            files.append(file)
    engine = start(broker.url())
    done = ingest("publish", *files, "--queue-source", broker.url(), "--destination", queue)
    assert done.returncode == 0, done.stderr
    settled = engine.wait_settled(len(files))
    assert settled["quarantined"] == 0
    assert engine.stop() == 0
    for role in corpus.ROLES:
        wire = expected(corpus.body(role, corpus.ROUNDS[-1], "wire"))
        found = stored(connection, wire["certname"])
        for member in ("resources", "edges", "version", "environment"):
            assert found[member] == wire[member]
    assert_empty(broker, queue)
    connected = events(engine, "connected")
    assert [event["protocol"] for event in connected] == [f"STOMP {broker.versions[-1]}"]
    assert broker.name.split("-")[0] in connected[0]["server"].lower() or broker.name == "stompserver"


def test_the_window_is_what_the_broker_delivers_unacknowledged(
    broker: Broker, queue: str, start: Start, database: str, connection: Connection
) -> None:
    """While nothing can be stored the broker gives the engine no more than its window: all others go to a second
    consumer. That one goes away without acknowledging, and the engine settles them all. Meanwhile heart-beats go
    both ways, however long the window is full."""
    bodies = nodes(10)
    most = 1 if broker.versions == ("1.0",) else WINDOW_MESSAGES
    engine = start(broker.url(), "--window-messages-max", str(WINDOW_MESSAGES), "--heartbeat-s", "2")
    with nothing_settles(database), client(broker) as second:
        publish(broker, queue, bodies)
        wait_for(lambda: window(engine) == most, engine, f"{most} in the window")
        if broker.versions == ("1.0",):
            second.subscribe(queue)
            assert second.message().body in bodies
        else:
            second.subscribe(queue)
            others = [second.message().body for _ in range(len(bodies) - most)]
            assert len(set(others)) == len(bodies) - most
        if "1.1" in broker.versions:  # 1.0 has no heart-beats; a connection is given up after two intervals
            wait_for(
                lambda: receiver(engine, "ingest_oldest_unsettled_seconds") > 5, engine, "waiting for long"
            )
        assert window(engine) == most
        assert events(engine, "connection_lost") == []
    engine.wait_settled(len(bodies))
    assert_stored(connection, bodies)
    assert engine.stop() == 0
    assert_empty(broker, queue)


def test_what_a_killed_engine_had_not_acknowledged_comes_again(
    broker: Broker, queue: str, start: Start, database: str, connection: Connection
) -> None:
    """kill -9 with a full window; the next engine settles every message."""
    old, new = nodes(8), nodes(8, minute=2)
    publish(broker, queue, old + new)  # before the engine comes: StompServer loses what it never had to queue
    most = 1 if broker.versions == ("1.0",) else len(old + new)
    with nothing_settles(database):
        engine = start(broker.url())
        wait_for(lambda: window(engine) == most, engine, f"{most} in the window")
        engine.kill()
    again = start(broker.url())
    assert again.wait_settled(len(old + new))["quarantined"] == 0
    assert_stored(connection, new)
    assert again.stop() == 0
    assert_empty(broker, queue)


def test_a_broker_restarts_with_messages_in_the_queue(
    broker: Broker, queue: str, start: Start, database: str, connection: Connection
) -> None:
    """The engine connects again by itself and goes on; what was persistent, and what the engine had, is stored."""
    window_max = WINDOW_MESSAGES if broker.keeps_messages else 1000  # what only the embedded one has is gone
    bodies = nodes(8)
    publish(broker, queue, bodies)  # before the engine comes: StompServer loses what it never had to queue
    with nothing_settles(database):
        engine = start(broker.url(), "--window-messages-max", str(window_max))
        most = 1 if broker.versions == ("1.0",) else min(window_max, len(bodies))
        wait_for(lambda: window(engine) == most, engine, f"{most} in the window")
        if broker.survives_kill:
            broker.kill()
        else:
            broker.stop()
        wait_for(lambda: events(engine, "connection_lost"), engine, "connection lost")
    broker.start()
    wait_for(lambda: stored_nodes(connection) == len(bodies), engine, "everything stored")
    after = nodes(10)
    publish(broker, queue, after[8:])
    wait_for(lambda: stored_nodes(connection) == len(after), engine, "what came after the restart")
    assert_stored(connection, after)
    assert engine.stop() == 0
    assert_empty(broker, queue)


def stored_nodes(connection: Connection) -> int:
    row: Any = connection.execute("SELECT count(*) FROM node_catalogs").fetchone()
    return int(row[0])


@pytest.mark.parametrize("command", ["run", "publish"])
def test_a_wrong_password_is_one_line(broker: Broker, database: str, tmp_path: Path, command: str) -> None:
    """Exit code 2, with the setting and the broker in the line, and without the password."""
    url = broker.url(password="wr0ng")
    if command == "run":
        done = ingest("run", "--queue-source", url, "--database", database, "--metrics-port", "0")
    else:
        (tmp_path / "catalog.json").write_bytes(nodes(1)[0])
        done = ingest("publish", tmp_path / "catalog.json", "--queue-source", url)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "--queue-source" in line
    assert f"127.0.0.1:{broker.port} refused the login" in line
    assert "Traceback" not in done.stderr
    assert "wr0ng" not in done.stderr
    print(line)


def test_who_may_not_read_the_queue_is_told_why(
    running: Callable[[str], Broker], queue: str, database: str, tmp_path: Path
) -> None:
    """The broker's own words are in the log, in one line; the engine is not ready, and goes on trying."""
    broker = running("rabbitmq")
    engine = Engine(broker.url(user=READER), database, "--destination", queue, log=tmp_path / "log")
    try:
        wait_for(lambda: len(events(engine, "connection_lost")) >= 5, engine, "refused five times")
        reasons = {event["reason"] for event in events(engine, "connection_lost")}
        assert len(reasons) == 1
        assert "ACCESS_REFUSED" in reasons.pop()
        assert engine.stop() == 0
    finally:
        engine.kill()


def test_a_quorum_queue_is_read_by_its_amqp_name(
    running: Callable[[str], Broker], queue: str, start: Start, connection: Connection
) -> None:
    """RabbitMQ does not let a queue be declared again with other properties, which /queue/NAME does."""
    broker = running("rabbitmq")
    with client(broker) as declaring:
        declaring.subscribe(queue, **{"x-queue-type": "quorum", "durable": "true", "auto-delete": "false"})
        declaring.disconnect()
    destination = queue.replace("/queue/", "/amq/queue/")
    bodies = nodes(5)
    publish(broker, destination, bodies)
    engine = start(broker.url(), "--destination", destination)
    engine.wait_settled(len(bodies))
    assert_stored(connection, bodies)
    assert engine.stop() == 0
    assert_empty(broker, destination)


SPOKEN = [(name, version) for name, kind in BROKERS.items() for version in kind.versions]


@pytest.mark.parametrize(("name", "version"), SPOKEN)
def test_every_version_of_stomp_that_a_broker_speaks(
    running: Callable[[str], Broker], queue: str, monkeypatch: pytest.MonkeyPatch, name: str, version: str
) -> None:
    """Agreed on, headers come through with what that version can escape, and one acknowledgement settles one
    message: the others come again to the next connection."""
    broker = running(name)
    monkeypatch.setattr(opening, "VERSIONS", version)
    said = {"1.0": "plain", "1.1": "a:b\\c\nd", "1.2": "a:b\\c\nd\re"}[version]
    room = Room()
    with engine_end(broker, room) as producer:
        assert producer.version == version
        for number in range(3):
            headers = {"certname": said, "receipt": f"r{number}"}
            producer.send_message(queue, f"body {number}".encode(), headers)
        until(producer, lambda found: len(producer.receipts) == 3)
    for numbers in ((0,), (1, 2)):
        with engine_end(broker, room) as consumer:
            consumer.subscribe(queue, "one", prefetch_messages=1, window_bytes=1)
            for number in numbers:
                message = until(consumer, lambda found: len(found) == 1)[0]
                assert room.body(message) == f"body {number}".encode()
                assert message.headers["certname"] == said
                headers = message.headers
                consumer.acknowledge([(headers.get("ack", ""), headers["message-id"])], "one")
            consumer.disconnect("bye")
            with contextlib.suppress(Unavailable):  # some close right after the receipt, some instead of it
                until(consumer, lambda _, receipts=consumer.receipts: "bye" in receipts)
    assert_empty(broker, queue)


@contextlib.contextmanager
def engine_end(broker: Broker, room: Room) -> Iterator[StompClient]:
    """The engine's side of a connection, without the engine."""
    opened = StompClient(
        Endpoint("127.0.0.1", broker.port, USER, PASSWORD, "/", None),
        connect_timeout_s=30, heartbeat_s=10, body_bytes_max=1 << 20, space=room,
    )  # fmt: skip
    try:
        yield opened
    finally:
        opened.close()


def until(connection: StompClient, condition: Callable[[list[Message]], bool]) -> list[Message]:
    """Reads until the condition holds of the messages that came; returns them."""
    found: list[Message] = []
    connection.flush()
    while not condition(found):
        assert select.select([connection], [], [], 30)[0], "nothing comes"
        found += connection.read()
    return found
