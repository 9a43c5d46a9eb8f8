"""RabbitMQ, ActiveMQ, StompServer and the embedded broker under the whole engine, each through the same tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from ingest.store.connection import Connection
from tests import corpus
from tests.brokers.client import Client
from tests.brokers.real import PASSWORD, USER, Broker
from tests.engine.engine import Engine, Start, wait_for
from tests.model import expected, resource, stored, wire_body

# What the engine makes of a broker's own window; the first one that fits, as StompServer sends one at a time.
WINDOW_MESSAGES = 3


def ingest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command, as a person would type it."""
    return subprocess.run(
        [sys.executable, "-m", "ingest", *arguments], capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"INGEST_GC_INTERVAL_S": "0"},
    )  # fmt: skip


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
    return int(engine.status().get("processes", {}).get("receiver", {}).get("ingest_window_messages", 0))


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
    assert [event["stomp"] for event in connected] == [broker.versions[-1]]
    assert broker.name.split("-")[0] in connected[0]["server"].lower() or broker.name == "stompserver"


def test_the_window_is_what_the_broker_delivers_unacknowledged(
    broker: Broker, queue: str, start: Start, database: str, connection: Connection
) -> None:
    """While nothing can be stored the broker gives the engine no more than its window: all others go to a second
    consumer. That one goes away without acknowledging, and the engine settles them all."""
    bodies = nodes(10)
    most = 1 if broker.versions == ("1.0",) else WINDOW_MESSAGES
    engine = start(broker.url(), "--window-messages-max", str(WINDOW_MESSAGES))
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
        assert window(engine) == most
    engine.wait_settled(len(bodies))
    assert_stored(connection, bodies)
    assert engine.stop() == 0
    assert_empty(broker, queue)


def test_what_a_killed_engine_had_not_acknowledged_comes_again(
    broker: Broker, queue: str, start: Start, database: str, connection: Connection
) -> None:
    """kill -9 with a full window; the next engine settles every message."""
    old, new = nodes(8), nodes(8, minute=2)
    # Before the engine comes: StompServer loses what it never had to queue.
    publish(broker, queue, old + new)
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
