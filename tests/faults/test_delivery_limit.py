"""A broker that drops what it delivered too often: an outage of the database costs a message a handful of deliveries."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.brokers import PASSWORD, USER, ActiveMQ, RabbitMQ
from lab.engine import Engine, publish, wait_for
from lab.proxy import Mode
from lab.stomp_client import Client
from tests.faults.test_drain import DRAINED, Lines, bodies, catalogs, receiver, said, wait_acknowledged

MESSAGES = 500
LIMIT = 3  # RabbitMQ 4 has 20, and no policy can switch that off
QUEUE = "limited"
ADDRESS = f"/amq/queue/{QUEUE}"


class Limited(RabbitMQ):
    """Its queue is a quorum queue with a delivery-limit, and what it drops lies in another one."""

    def prepare(self) -> None:
        super().prepare()
        file = self.directory / "definitions.json"
        definitions = json.loads(file.read_text())
        policy = {"delivery-limit": LIMIT, "dead-letter-exchange": "", "dead-letter-routing-key": "dropped"}
        definitions["policies"] = [
            {
                "vhost": "/",
                "name": "limit",
                "pattern": f"^{QUEUE}$",
                "apply-to": "queues",
                "definition": policy,
            }
        ]
        file.write_text(json.dumps(definitions))

    def start(self) -> None:
        super().start()
        for name, more in (("dropped", {}), (QUEUE, {"x-queue-type": "quorum"})):
            with Client(self.port, USER, PASSWORD) as client:
                headers = {"durable": "true", "auto-delete": "false", "receipt": "there", **more}
                client.subscribe(f"/queue/{name}", **headers)
                assert client.frame().command == "RECEIPT"

    def dropped(self) -> int:
        """How many messages it gave up: all that come until nothing comes."""
        count = 0
        with Client(self.port, USER, PASSWORD) as client:
            client.subscribe("/amq/queue/dropped")
            while True:
                try:
                    client.acknowledge(client.frame(1.0))
                except TimeoutError:
                    return count
                count += 1


@pytest.fixture
def limited() -> Iterator[Limited]:
    if missing := RabbitMQ.missing():
        pytest.skip(missing)
    server = Limited()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def lines(limited: Limited, database: str, tmp_path: Path) -> Iterator[Lines]:
    made = Lines(limited.url(), database, tmp_path)
    yield made
    made.close()


def start(lines: Lines, *flags: str) -> Engine:
    return lines.start("--destination", ADDRESS, "--hold-s", "2", *flags)


def fill(limited: Limited) -> None:
    with Client(limited.port, USER, PASSWORD) as client:
        for body in bodies(MESSAGES):
            client.publish(ADDRESS, body)


def away(lines: Lines, how: str) -> None:
    lines.database.mode = Mode[how]
    if how == "REFUSE":
        lines.database.reset()


def taken(engine: Engine) -> float:
    return receiver(engine).get("ingest_received_total", 0)


def all_is_stored(engine: Engine, limited: Limited, connection: Connection) -> None:
    wait_for(lambda: catalogs(connection) == MESSAGES, engine, "all stored", 120)
    wait_for(
        lambda: receiver(engine).get("ingest_acknowledged_total", 0) >= MESSAGES, engine, "acknowledged", 60
    )
    assert receiver(engine)["ingest_delivery_count_max"] < LIMIT
    assert engine.stop() == DRAINED
    assert limited.dropped() == 0
    row: Any = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    assert row == (0,)


@pytest.mark.parametrize("how", ["REFUSE", "STALL"])
def test_an_outage_drops_nothing(
    limited: Limited, lines: Lines, connection: Connection, how: str, long: bool
) -> None:
    """Many times hold_s without a database, and the broker's limit is three: what was taken is let go of once, nothing
    more is taken, and everything is stored when the database is back."""
    engine = start(lines, "--statement-timeout-s", "5", "--lock-timeout-s", "2")
    away(lines, how)
    fill(limited)
    wait_for(lambda: said(engine, "deliveries_let_go"), engine, "let go")
    most = taken(engine)
    time.sleep(150 if long else 12)
    assert taken(engine) == most
    assert len(said(engine, "deliveries_let_go")) == 1
    health = engine.status()["health"]
    assert not health["ready"]
    assert any("paused" in reason for reason in health["reasons"]), health
    lines.database.mode = Mode.PASS
    all_is_stored(engine, limited, connection)
    assert said(engine, "broker_counts_deliveries"), "the limit can be seen, and nobody was told"


@pytest.mark.parametrize("how", ["REFUSE", "STALL"])
def test_an_outage_that_begins_at_commit_drops_nothing(
    limited: Limited, lines: Lines, connection: Connection, how: str
) -> None:
    """PostgreSQL hears the COMMIT, and its answer comes to nobody: a batch is stored that no writer knows of. Nothing is
    delivered more than twice for it, or stored twice."""
    engine = start(lines, "--statement-timeout-s", "5", "--lock-timeout-s", "2", "--commit-timeout-s", "2")
    lines.database.freeze_after(b"COMMIT")
    fill(limited)
    wait_for(lambda: not lines.database.waits_to_freeze, engine, "in COMMIT")
    away(lines, how)
    wait_for(lambda: said(engine, "deliveries_let_go"), engine, "let go")
    most = taken(engine)
    time.sleep(4)
    assert taken(engine) == most
    assert len(said(engine, "deliveries_let_go")) == 1
    lines.database.mode = Mode.PASS
    if how == "STALL":
        lines.database.reset()  # what was frozen stays so; PostgreSQL's own end is closed
    all_is_stored(engine, limited, connection)


def test_a_new_receiver_takes_nothing_while_the_database_is_away(
    limited: Limited, lines: Lines, connection: Connection
) -> None:
    """Its predecessors' let-gos are not known to it, but the writers' word is."""
    engine = start(lines)
    away(lines, "REFUSE")
    fill(limited)
    wait_for(lambda: said(engine, "database_unavailable"), engine, "away")
    before = len(said(engine, "connected"))
    for _ in range(LIMIT + 1):
        os.kill(pid := engine.children()["receiver"], signal.SIGKILL)
        wait_for(lambda pid=pid: engine.children().get("receiver", pid) != pid, engine, "replaced")
        time.sleep(1)
    assert len(said(engine, "connected")) == before
    lines.database.mode = Mode.PASS
    all_is_stored(engine, limited, connection)


def test_a_lost_broker_is_not_asked_again_while_the_database_is_away(
    limited: Limited, lines: Lines, connection: Connection
) -> None:
    """The broker's connection breaks in the outage: nothing is taken on a new one before there is a database."""
    engine = start(lines, "--hold-s", "1000")
    away(lines, "REFUSE")
    fill(limited)
    wait_for(lambda: said(engine, "database_unavailable"), engine, "away")
    before = len(said(engine, "connected"))
    lines.broker.reset()
    time.sleep(4)
    assert len(said(engine, "connected")) == before
    lines.database.mode = Mode.PASS
    all_is_stored(engine, limited, connection)


def test_an_engine_that_starts_in_an_outage_takes_nothing(
    limited: Limited, lines: Lines, connection: Connection
) -> None:
    """The database goes when the engine was let in by it, before a writer was: nothing is subscribed to."""
    fill(limited)
    engine = start(lines)
    wait_acknowledged(engine, 1)
    away(lines, "REFUSE")
    for name, pid in engine.children().items():  # all are new, as after a start
        if name.startswith(("writer", "receiver")):
            os.kill(pid, signal.SIGKILL)
    time.sleep(1.5)
    before = taken(engine)
    time.sleep(3)
    assert taken(engine) == before
    assert not receiver(engine).get("ingest_broker_connected")
    lines.database.mode = Mode.PASS
    all_is_stored(engine, limited, connection)


def test_activemq_moves_nothing_away(database: str, connection: Connection, tmp_path: Path) -> None:
    """Six redeliveries are its clients' limit, and what is over it lies in ActiveMQ.DLQ: an outage of the database costs one,
    and as many receivers killed in a row send nothing there either."""
    if missing := ActiveMQ.missing():
        pytest.skip(missing)
    server = ActiveMQ()
    server.start()
    made = Lines(server.url(), database, tmp_path)
    try:
        engine = made.start("--hold-s", "1")
        away(made, "REFUSE")
        publish(server.url(), *bodies(40))
        wait_for(lambda: said(engine, "deliveries_let_go"), engine, "let go")
        most = taken(engine)
        time.sleep(4)
        assert taken(engine) == most
        made.database.mode = Mode.PASS
        wait_acknowledged(engine, 40)
        made.database.mode = Mode.STALL
        publish(server.url(), *(body.replace(b".example.com", b".new.example.com") for body in bodies(40)))
        for _ in range(7):  # once more than six
            wait_for(lambda: receiver(engine).get("ingest_window_messages"), engine, "in its hands")
            os.kill(pid := engine.children()["receiver"], signal.SIGKILL)
            wait_for(lambda pid=pid: engine.children().get("receiver", pid) != pid, engine, "replaced")
        made.database.mode = Mode.PASS
        made.database.reset()
        wait_for(lambda: catalogs(connection) == 80, engine, "all stored")
        assert engine.stop() == DRAINED
        with Client(server.port, USER, PASSWORD) as client:
            client.subscribe("/queue/ActiveMQ.DLQ")
            with pytest.raises(TimeoutError):
                client.frame(2.0)
    finally:
        made.close()
        server.remove()


def test_brokers_that_do_not_count_are_not_warned_of(broker: str, database: str, tmp_path: Path) -> None:
    """No x-delivery-count, no warning: a redelivery alone says nothing of a limit."""
    made = Lines(broker, database, tmp_path)
    try:
        engine = made.start("--hold-s", "1")
        away(made, "REFUSE")
        publish(broker, *bodies(20))
        wait_for(lambda: said(engine, "deliveries_let_go"), engine, "let go")
        made.database.mode = Mode.PASS
        wait_acknowledged(engine, 20)
        assert not said(engine, "broker_counts_deliveries")
    finally:
        made.close()
