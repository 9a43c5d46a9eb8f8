"""Catalogs that name no time, on real brokers: the order is that in which they were sent, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.brokers import Broker
from lab.engine import Engine, Start, wait_for
from tests.brokers.test_real_brokers import nothing_settles, publish, receiver, window

VERSION = 1745164281  # when the manifests were parsed: that of all compiles since
# StompServer neither stamps messages nor says which of them it gives out again.
TELLING = ("rabbitmq", "activemq", "embedded")
STAMPING = ("activemq", "embedded")


def body(form: str, certname: str, message: str, version: int = VERSION) -> bytes:
    catalog = {
        "tags": ["settings"], "name": certname, "version": version, "code_id": None, "catalog_uuid": None,
        "catalog_format": 1, "environment": "production", "edges": [], "classes": ["settings"],
        "resources": [{"type": "Notify", "title": "fact", "exported": True, "tags": ["notify"],
                       "parameters": {"message": message}}],
    }  # fmt: skip
    if form == "legacy":
        return json.dumps(
            {"document_type": "Catalog", "data": catalog, "metadata": {"api_version": 1}}
        ).encode()
    return json.dumps(catalog).encode()


def messages(connection: Connection) -> dict[str, str]:
    rows: Any = connection.execute(
        "SELECT certname, parameters ->> 'message' FROM exported_resources"
    ).fetchall()
    return dict(rows)


def nodes(count: int) -> list[str]:
    return [f"n{number}.example.com" for number in range(count)]


def all_told(connection: Connection, broker: Broker, engines: int, after: datetime) -> bool:
    """Whether so many engines have told that they hold nothing from before; where the broker stamps, nobody has to."""
    row: Any = connection.execute(
        "SELECT count(*) FROM engines WHERE unsettled_since > %s", [after]
    ).fetchone()
    return broker.name in STAMPING or row[0] == engines


def newest(connection: Connection) -> datetime:
    row: Any = connection.execute("SELECT max(producer_timestamp) FROM catalogs").fetchone()
    assert isinstance(row[0], datetime)
    return row[0]


@pytest.mark.parametrize("form", ["legacy", "native"])
def test_the_one_that_was_sent_last_is_stored(
    broker: Broker, queue: str, start: Start, connection: Connection, form: str
) -> None:
    """Ten in one burst for each of five nodes, with versions that stand still or go back, from masters that parsed at
    different times; then one more, with the content of the first."""
    bodies = [
        body(form, node, f"run {run}", VERSION - 1000 * (run % 3)) for node in nodes(5) for run in range(10)
    ]
    publish(broker, queue, bodies)
    engine = start(broker.url())
    assert engine.wait_settled(len(bodies))["quarantined"] == 0
    assert messages(connection) == dict.fromkeys(nodes(5), "run 9")
    publish(broker, queue, [body(form, node, "run 0") for node in nodes(5)])
    engine.wait_settled(len(bodies) + 5)
    assert messages(connection) == dict.fromkeys(nodes(5), "run 0")
    assert engine.stop() == 0
    assert connection.execute("SELECT count(*) FROM engines").fetchone() == (0,)


@pytest.mark.parametrize("name", TELLING)
def test_what_a_killed_engine_held_is_stored_by_its_successors(
    running: Callable[[str], Broker],
    queue: str,
    start: Start,
    database: str,
    connection: Connection,
    name: str,
) -> None:
    """kill -9 with a burst in its hands, right after the runs before were stored; then two engines instead: each node ends
    at its last one."""
    broker = running(name)
    publish(broker, queue, [body("legacy", node, "before") for node in nodes(6)])
    first = start(broker.url())
    first.wait_settled(6)
    with nothing_settles(database):
        publish(broker, queue, [body("legacy", node, f"run {run}") for run in range(2) for node in nodes(6)])
        wait_for(lambda: window(first) == 12, first, "twelve in the window")
        first.kill()
    successors = start(broker.url()), start(broker.url())
    wait_for(
        lambda: messages(connection) == dict.fromkeys(nodes(6), "run 1"), successors[0], "the last of each"
    )
    for successor in successors:
        assert successor.stop() == 0
    assert messages(connection) == dict.fromkeys(nodes(6), "run 1")


@pytest.mark.parametrize("name", TELLING)
def test_what_another_engine_stored_meanwhile_stays(
    running: Callable[[str], Broker], queue: str, start: Start, connection: Connection, name: str
) -> None:
    """An engine stands still with a message in its hands. Another one comes, and stores what was sent after it. Then the
    first is killed, and what it held comes again: it is older, and stays so."""
    broker = running(name)
    held = start(broker.url(), "--window-messages-max", "1")
    wait_for(lambda: all_told(connection, broker, 1, datetime.fromtimestamp(0).astimezone()), held, "told")
    processes = [held.process.pid, *held.children().values()]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    publish(broker, queue, [body("native", "n", "first")])
    other = start(broker.url())
    publish(broker, queue, [body("native", "n", "second")])
    other.wait_settled(1)
    assert messages(connection) == {"n": "second"}
    wait_for(lambda: all_told(connection, broker, 1, newest(connection)), other, "told")
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    assert other.wait_settled(2)["stale"] == 1
    assert messages(connection) == {"n": "second"}
    publish(broker, queue, [body("native", "n", "third")])
    other.wait_settled(3)
    assert messages(connection) == {"n": "third"}


@pytest.mark.parametrize("name", TELLING)
def test_what_was_sent_last_is_stored_by_whoever_survives(
    running: Callable[[str], Broker],
    queue: str,
    start: Start,
    database: str,
    connection: Connection,
    name: str,
) -> None:
    """Two engines hold the newest catalog of a node each, and one is killed: the other one gets it, and stores it, although
    both have stored what was sent before."""
    broker = running(name)
    both = [start(broker.url(), "--window-messages-max", "1") for _ in range(2)]
    publish(broker, queue, [body("native", node, "before") for node in nodes(4)])
    wait_for(lambda: len(messages(connection)) == 4, both[0], "stored")
    wait_for(lambda: all_told(connection, broker, 2, newest(connection)), both[0], "told")
    with nothing_settles(database):
        publish(broker, queue, [body("native", node, "after") for node in nodes(2)])
        for engine in both:
            wait_for(lambda engine=engine: window(engine) == 1, engine, "one in the window")
        both[0].kill()
    wait_for(
        lambda: messages(connection) == dict.fromkeys(nodes(4), "before") | dict.fromkeys(nodes(2), "after"),
        both[1], "the last of each",
    )  # fmt: skip
    assert both[1].stop() == 0


@pytest.mark.parametrize("name", TELLING)
def test_a_connection_that_breaks_turns_nothing_round(
    running: Callable[[str], Broker],
    queue: str,
    start: Start,
    database: str,
    connection: Connection,
    name: str,
) -> None:
    """A receiver is killed with several catalogs of each node in its hands, twice: the last ones are stored."""
    broker = running(name)
    engine = start(broker.url())
    publish(broker, queue, [body("legacy", node, "before") for node in nodes(3)])
    engine.wait_settled(3)
    for kill in range(2):
        with nothing_settles(database):
            publish(
                broker,
                queue,
                [body("legacy", node, f"{kill} {run}") for run in range(3) for node in nodes(3)],
            )
            wait_for(lambda: window(engine) >= 9, engine, "nine in the window")
            os.kill(engine.children()["receiver"], signal.SIGKILL)
        expected = dict.fromkeys(nodes(3), f"{kill} 2")
        wait_for(lambda expected=expected: messages(connection) == expected, engine, "the last of each")
    assert receiver(engine, "ingest_redelivered_total") > 0
    assert engine.stop() == 0


def test_a_stamp_of_rabbitmqs_own_decides(
    running: Callable[[str], Broker], queue: str, start: Start, connection: Connection
) -> None:
    """As its interceptor or plugin writes it, in seconds and in milliseconds: what comes later with an older stamp is
    older."""
    from tests.brokers.test_real_brokers import client

    broker = running("rabbitmq")
    engine = start(broker.url())
    stamp_ms = 1712051230500
    for place, (run, stamped_ms) in enumerate([("newer", stamp_ms), ("older", stamp_ms - 1)]):
        stamps = {"timestamp": str(stamped_ms // 1000), "timestamp_in_ms": str(stamped_ms)}
        with client(broker) as producer:
            producer.publish(queue, body("native", "n", run), stamps)
        engine.wait_settled(place + 1)
    assert messages(connection) == {"n": "newer"}


@pytest.mark.parametrize("name", TELLING)
def test_a_forged_stamp_shuts_no_node_out(
    running: Callable[[str], Broker], queue: str, start: Start, connection: Connection, name: str
) -> None:
    """ActiveMQ and RabbitMQ pass on what a publisher writes there: of 2099 it counts as received now, and the log says
    so."""
    from tests.brokers.test_real_brokers import client, events

    broker = running(name)
    engine: Engine = start(broker.url())
    with client(broker) as producer:
        producer.publish(queue, body("native", "n", "forged"), {"timestamp": "4073000000000"})
    engine.wait_settled(1)
    publish(broker, queue, [body("native", "n", "true")])
    engine.wait_settled(2)
    assert messages(connection) == {"n": "true"}
    told = [event["certname"] for event in events(engine, "timestamp_in_the_future")]
    assert told == ([] if name == "embedded" else ["n"])
