"""Who may speak for which node, where the broker says who published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.store.connection import Connection
from lab.brokers import PASSWORD, PUBLISHERS, Broker
from lab.engine import Engine, Start
from lab.stomp_client import Client
from lab.store_model import resource, wire_body
from tests.brokers.command import ingest

A, B = PUBLISHERS
DEACTIVATE = (
    b'{"command":"deactivate node","version":3,"payload":{"certname":"n1.b",'
    b'"producer_timestamp":"2026-10-01T00:00:00Z"}}'
)


@pytest.fixture(params=["rabbitmq", "activemq"])
def broker(request: pytest.FixtureRequest, running: Callable[[str], Broker]) -> Broker:
    return running(request.param)


@pytest.fixture
def engine(broker: Broker, start: Start, tmp_path: Path) -> Engine:
    rules = tmp_path / "producers.toml"
    rules.write_text(f'[producers]\n{A} = ["*.a"]\n{B} = ["*.b"]\n')
    return start(broker.url(), "--producers-file", str(rules))


def send(broker: Broker, queue: str, user: str, body: bytes, headers: dict[str, str]) -> None:
    with Client(broker.port, user, PASSWORD) as producer:
        producer.publish(queue, body, headers)


def body(certname: str, minute: int = 1) -> bytes:
    return wire_body(certname, minute, [resource("/x")])


def test_a_publisher_speaks_for_its_own_nodes_only(
    broker: Broker, queue: str, engine: Engine, connection: Connection
) -> None:
    """Two logins, two sets of nodes: a catalog or a deactivation of another's node ends in quarantine, whatever header
    its publisher chooses, and the node's own goes through."""
    send(broker, queue, A, body("n1.a"), {"user-id": A})
    send(broker, queue, B, body("n1.b"), {"user-id": B})
    send(broker, queue, A, body("n2.b"), {"user-id": A})
    send(broker, queue, A, body("n3.b"), {"user-id": A, "JMSXUserID": B, "publisher": B})
    send(broker, queue, A, DEACTIVATE, {"user-id": A})
    settled = engine.wait_settled(5)
    assert settled["stored"] == 2
    assert settled["quarantined"] == 3
    rows = connection.execute("SELECT certname, deactivated FROM nodes ORDER BY certname").fetchall()
    assert rows == [("n1.a", None), ("n1.b", None)]
    reasons = connection.execute("SELECT DISTINCT reason FROM quarantine").fetchall()
    assert reasons == [("forbidden_producer",)]


def test_a_message_that_names_no_publisher_is_nobodys(
    broker: Broker, queue: str, engine: Engine, connection: Connection
) -> None:
    """RabbitMQ lets a publisher leave its name out; ActiveMQ adds it."""
    send(broker, queue, A, body("n1.a"), {})
    settled = engine.wait_settled(1)
    assert settled["quarantined"] == (1 if broker.name == "rabbitmq" else 0)


def test_our_own_publisher_says_who_it_is(broker: Broker, queue: str, engine: Engine, tmp_path: Path) -> None:
    """``ingest publish`` is let through where its login may speak for the node."""
    file = tmp_path / "catalog.json"
    file.write_bytes(body("n1.a"))
    done = ingest("publish", str(file), "--queue-source", broker.url(A), "--destination", queue)
    assert done.returncode == 0, done.stderr
    assert engine.wait_settled(1)["stored"] == 1
