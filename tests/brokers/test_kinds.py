"""A queue for each kind, at each broker: what comes on one is acknowledged there, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import psycopg
import pytest

from ingest.core.delivery.importance import RANKS
from ingest.store.connection import Connection
from lab.brokers import PASSWORD, USER, Broker
from lab.engine import Engine, Start, wait_for
from lab.kinds import body_of, stored_nodes
from lab.stomp_client import Client

MANY = ("rabbitmq", "activemq", "embedded")  # that have more than one message on the way


@pytest.fixture
def queues(queue: str) -> dict[str, str]:
    return dict(zip(RANKS, (queue, f"{queue}-facts", f"{queue}-reports"), strict=True))


@pytest.fixture
def begin(start: Start, queues: dict[str, str]) -> Callable[..., Engine]:
    """Starts an engine that takes from the three."""

    def started(broker: Broker, *flags: str) -> Engine:
        flags = ("--facts-destination", queues["facts"], "--reports-destination", queues["report"], *flags)
        return start(broker.url(), *flags)

    return started


def client(broker: Broker) -> Client:
    return Client(broker.port, USER, PASSWORD)


def publish(broker: Broker, destination: str, *bodies: bytes) -> None:
    with client(broker) as producer:
        for body in bodies:
            producer.publish(destination, body)


def assert_empty(broker: Broker, queues: dict[str, str]) -> None:
    """Of each queue: a message sent now is the first that a new consumer gets."""
    for destination in queues.values():
        publish(broker, destination, b"last")
        with client(broker) as consumer:
            consumer.subscribe(destination)
            last = consumer.message()
            consumer.acknowledge(last)
            consumer.disconnect()
        assert last.body == b"last"


@contextlib.contextmanager
def nothing_settles(database: str) -> Iterator[None]:
    """Another session holds the table of nodes, which every kind needs."""
    with psycopg.connect(database) as holder:
        holder.execute("LOCK TABLE nodes IN ACCESS EXCLUSIVE MODE")
        yield


def in_window(engine: Engine) -> int:
    return int(engine.status().get("processes", {}).get("receiver", {}).get("ingest_window_messages", 0))


@pytest.mark.parametrize("name", MANY)
def test_each_kind_comes_by_its_queue_and_any_kind_by_any(
    name: str,
    running: Callable[[str], Broker],
    queues: dict[str, str],
    begin: Callable[..., Engine],
    connection: Connection,
) -> None:
    """All is stored and acknowledged on the subscription that it came on: afterwards the queues are empty."""
    broker = running(name)
    for place, destination in enumerate(queues.values()):
        publish(broker, destination, *(body_of(kind, f"{kind}-{place}") for kind in RANKS))
    engine = begin(broker)
    settled = engine.wait_settled(9)
    assert (settled["stored"], settled["quarantined"]) == (9, 0)
    for kind in RANKS:
        assert stored_nodes(connection, kind) == {f"{kind}-{place}" for place in range(3)}
    receiver = engine.status()["processes"]["receiver"]
    assert [receiver[f"ingest_settle_seconds_{kind}_count"] for kind in RANKS] == [3, 3, 3]
    assert engine.stop() == 0
    assert_empty(broker, queues)


def test_over_stomp_1_0_an_engine_takes_from_one_queue(
    running: Callable[[str], Broker],
    queues: dict[str, str],
    begin: Callable[..., Engine],
    connection: Connection,
) -> None:
    """Its acknowledgements do not say of which subscription. Of the others the log says so; what comes on the one is stored,
    of whatever kind, and an engine for another kind takes from that one's."""
    broker = running("stompserver")
    for kind in RANKS:
        publish(broker, queues["catalog"], body_of(kind, "n1"))
    publish(broker, queues["report"], body_of("report", "n2"))
    engine = begin(broker)
    engine.wait_settled(3)
    told = [line for line in engine.lines() if line.get("event") == "queues_not_taken"]
    assert [line["destinations"] for line in told] == [[queues["facts"], queues["report"]]]
    assert [stored_nodes(connection, kind) for kind in RANKS] == [{"n1"}] * 3
    assert engine.stop() == 0
    other = begin(broker, "--kinds", "report")
    other.wait_settled(1)
    assert stored_nodes(connection, "report") == {"n1", "n2"}
    assert other.stop() == 0
    assert_empty(broker, queues)


@pytest.mark.parametrize("name", MANY)
def test_a_killed_receiver_had_messages_of_several_kinds(
    name: str,
    running: Callable[[str], Broker],
    queues: dict[str, str],
    begin: Callable[..., Engine],
    connection: Connection,
    database: str,
) -> None:
    """Its successor gets them all again, each on its subscription, and settles them once."""
    broker = running(name)
    engine = begin(broker)
    with nothing_settles(database):
        for kind, destination in queues.items():
            publish(broker, destination, *(body_of(kind, f"{kind}-{place}") for place in range(3)))
        wait_for(lambda: in_window(engine) == 9, engine, "all in the window")
        killed = engine.children()["receiver"]
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: engine.children().get("receiver", killed) != killed, engine, "a successor")
    # By the successor: what the writers had told the killed one counts for nothing.
    assert engine.wait_settled(9)["quarantined"] == 0
    assert [len(stored_nodes(connection, kind)) for kind in RANKS] == [3, 3, 3]
    assert engine.stop() == 0
    assert_empty(broker, queues)


@pytest.mark.parametrize("name", MANY)
def test_what_comes_again_on_one_subscription_is_acknowledged_on_it(
    name: str,
    running: Callable[[str], Broker],
    queues: dict[str, str],
    begin: Callable[..., Engine],
    connection: Connection,
) -> None:
    """Another consumer had facts and went away with them, while catalogs and reports went on."""
    broker = running(name)
    with client(broker) as other:
        other.subscribe(queues["facts"])
        publish(broker, queues["facts"], body_of("facts", "n1"))
        assert other.message()
        engine = begin(broker)
        publish(broker, queues["catalog"], body_of("catalog", "n1"))
        publish(broker, queues["report"], body_of("report", "n1"))
        engine.wait_settled(2)
        assert stored_nodes(connection, "facts") == set()
    engine.wait_settled(3)
    assert stored_nodes(connection, "facts") == {"n1"}
    receiver = engine.status()["processes"]["receiver"]
    assert receiver["ingest_redelivered_total"] == 1
    assert engine.stop() == 0
    assert_empty(broker, queues)


def of_receiver(engine: Engine) -> dict[str, float]:
    found: dict[str, float] = engine.status()["processes"]["receiver"]
    return found


@pytest.mark.parametrize("name", MANY)
def test_held_for_too_long_all_subscriptions_are_let_go_of(
    name: str,
    running: Callable[[str], Broker],
    queues: dict[str, str],
    begin: Callable[..., Engine],
    connection: Connection,
    database: str,
) -> None:
    """While the database settles nothing another consumer gets what was in each of them, and the engine takes none again;
    then it settles all."""
    broker = running(name)
    engine = begin(broker, "--hold-s", "1")
    with nothing_settles(database):
        for kind, destination in queues.items():
            publish(broker, destination, body_of(kind, "n1"))
        for kind, destination in queues.items():
            with client(broker) as other:
                other.subscribe(destination)
                # The engine may still have it: another consumer waits until it lets go.
                assert other.message(60).body == body_of(kind, "n1") or kind == "report"
        # It says so a moment after the broker has given them to others.
        wait_for(lambda: of_receiver(engine)["ingest_broker_connected"] == 0, engine, "let go of")
        assert of_receiver(engine)["ingest_broker_connections_total"] == 1
    for kind in RANKS:
        wait_for(lambda kind=kind: stored_nodes(connection, kind) == {"n1"}, engine, f"{kind} stored")
    wait_for(lambda: engine.settled()["unchanged"] >= 3, engine, "what came again")
    assert engine.stop() == 0
    assert_empty(broker, queues)
