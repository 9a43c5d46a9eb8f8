"""A list of brokers in ``queue_source``: the engine is at one of them, whichever lets it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.store.connection import Connection
from lab.brokers import Broker
from lab.engine import Start, wait_for
from lab.servers import free_port
from tests.brokers.command import ingest
from tests.brokers.test_real_brokers import (
    assert_empty,
    assert_stored,
    events,
    nodes,
    nothing_settles,
    publish,
    stored_nodes,
    window,
)


@pytest.mark.parametrize("first", ["nobody listens", "wrong password"])
def test_the_next_broker_of_the_list_is_taken(
    running: Callable[[str], Broker],
    queue: str,
    start: Start,
    connection: Connection,
    tmp_path: Path,
    first: str,
) -> None:
    """Where the first one is away or does not let us in; by the engine, and by ``ingest publish``."""
    broker = running("embedded")
    away = f"stomp://127.0.0.1:{free_port()}" if first == "nobody listens" else broker.url(password="wrong")
    urls = f"{away}, {broker.url()}"
    body = nodes(1)[0]
    (tmp_path / "catalog.json").write_bytes(body)
    done = ingest("publish", tmp_path / "catalog.json", "--queue-source", urls, "--destination", queue)
    assert done.returncode == 0, done.stderr
    engine = start(urls)
    engine.wait_settled(1)
    assert_stored(connection, [body])
    assert engine.stop() == 0


def test_brokers_of_two_kinds_die_in_turn(
    running: Callable[[str], Broker], queue: str, start: Start, database: str, connection: Connection
) -> None:
    """RabbitMQ is killed with messages in the engine's window, then ActiveMQ: each time the engine goes on at the
    other one, with its flow control, and at the end everything of both queues is stored."""
    rabbitmq, activemq = running("rabbitmq"), running("activemq")
    bodies = nodes(24)
    publish(rabbitmq, queue, bodies[:8])
    publish(activemq, queue, bodies[8:16])
    with nothing_settles(database):
        engine = start(f"{rabbitmq.url()},{activemq.url()}", "--window-messages-max", "3")
        wait_for(lambda: window(engine) == 3, engine, "3 in the window")
        rabbitmq.kill()
        wait_for(lambda: len(events(engine, "connected")) == 2, engine, "connected to the second one")
    # 3 of the first one's were in the window.
    wait_for(lambda: stored_nodes(connection) == 3 + 8, engine, "the second one's queue stored")
    rabbitmq.start()
    publish(rabbitmq, queue, bodies[16:])
    activemq.kill()
    wait_for(lambda: stored_nodes(connection) == len(bodies), engine, "everything stored")
    assert_stored(connection, bodies)
    servers = [event["server"].partition("/")[0] for event in events(engine, "connected")]
    assert servers == ["RabbitMQ", "ActiveMQ", "RabbitMQ"]
    assert engine.stop() == 0
    activemq.start()
    for broker in (rabbitmq, activemq):
        assert_empty(broker, queue)


def test_when_no_broker_lets_in_the_first_reason_is_told(
    running: Callable[[str], Broker], database: str
) -> None:
    """One line about the first of the list, and exit code 3 when it is only away."""
    away = f"127.0.0.1:{free_port()}"
    urls = f"stomp://{away},{running('embedded').url(password='wr0ng')}"
    done = ingest("run", "--queue-source", urls, "--database", database, "--metrics-port", "0")
    assert done.returncode == 3
    assert f"no STOMP broker at {away} (--queue-source): Connection refused" in done.stderr
    assert "Traceback" not in done.stderr
