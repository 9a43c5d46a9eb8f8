"""The end of an engine, and letting go of deliveries: whatever is not settled stays with the broker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.brokers import RabbitMQ
from lab.engine import Engine, publish, wait_for
from lab.proxy import Mode, Proxy
from lab.store_model import resource, wire_body
from tests.faults.queue_depth import take_all

MESSAGES = 500
DRAINED, GIVEN_UP = 0, 7  # exit codes, docs/operating.md


class Lines:
    """An engine whose lines to its broker and its database run through proxies."""

    def __init__(self, broker: str, database: str, directory: Path) -> None:
        self._login, _, self._address = broker.removeprefix("stomp://").rpartition("@")
        host, _, port = self._address.partition(":")
        words = dict(word.split("=") for word in database.split())
        self.broker = Proxy(host, int(port))
        self.database = Proxy(words["host"], int(words["port"]))
        login = f"{self._login}@" if self._login else ""
        self._queue_source = f"stomp://{login}127.0.0.1:{self.broker.port}"
        self._conninfo = (
            f"host=127.0.0.1 port={self.database.port} user={words['user']} dbname={words['dbname']}"
        )
        self._log = directory / "log"
        self._engines: list[Engine] = []

    def start(self, *flags: str) -> Engine:
        engine = Engine(self._queue_source, self._conninfo, "--backoff-max-s", "0.2", *flags, log=self._log)
        self._engines.append(engine)
        engine.wait_ready()
        return engine

    def left(self) -> int:
        """How many messages the broker still has; takes them."""
        host, _, port = self._address.partition(":")
        return len(take_all(host, int(port), self._login))

    def close(self) -> None:
        for engine in self._engines:
            engine.kill()
        self.broker.close()
        self.database.close()


@pytest.fixture
def lines(broker: str, database: str, tmp_path: Path) -> Iterator[Lines]:
    made = Lines(broker, database, tmp_path)
    yield made
    made.close()


def catalogs(connection: Connection) -> int:
    row: Any = connection.execute("SELECT count(*) FROM catalogs").fetchone()
    return int(row[0])


def receiver(engine: Engine) -> dict[str, float]:
    found: dict[str, float] = engine.status().get("processes", {}).get("receiver", {})
    return found


def wait_acknowledged(engine: Engine, messages: int) -> None:
    """Settled alone is not enough: what was settled for a connection that is gone comes again."""
    wait_for(lambda: receiver(engine).get("ingest_acknowledged_total", 0) >= messages, engine, "acknowledged")


def said(engine: Engine, event: str) -> list[dict[str, Any]]:
    return [line for line in engine.lines() if line.get("event") == event]


def bodies(count: int = MESSAGES) -> list[bytes]:
    return [
        wire_body(f"n{n}.example.com", 1, [resource(f"/{n}-{m}") for m in range(20)]) for n in range(count)
    ]


def test_sigterm_ends_with_every_acknowledgement_seen(
    lines: Lines, broker: str, connection: Connection
) -> None:
    """In the middle of the work: what was settled is acknowledged (the broker answered the DISCONNECT), what was not
    is still at the broker, and nothing is in both places."""
    engine = lines.start("--window-messages-max", "50")
    publish(broker, *bodies())
    engine.wait_settled(1)
    assert engine.stop() == DRAINED
    assert b"DISCONNECT\nreceipt:bye-" in lines.broker.tail_to_server
    assert b"RECEIPT\nreceipt-id:bye-" in lines.broker.tail_to_client
    assert catalogs(connection) + lines.left() == MESSAGES


def test_a_second_signal_ends_at_once(lines: Lines, broker: str, connection: Connection) -> None:
    """With a database that does not answer a drain cannot finish; whoever asks twice is not kept waiting."""
    engine = lines.start()
    lines.database.mode = Mode.STALL
    publish(broker, *bodies(50))
    wait_for(
        lambda: receiver(engine).get("ingest_received_total", 0) >= 50,
        engine,
        "received",
    )
    engine.process.send_signal(signal.SIGTERM)
    wait_for(lambda: said(engine, "draining"), engine, "draining")
    assert engine.process.poll() is None
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(10) == GIVEN_UP
    assert said(engine, "drain_given_up")[0]["reason"] == "a second signal"
    assert lines.left() == 50
    assert catalogs(connection) == 0


def test_a_drain_is_given_up_in_time(lines: Lines, broker: str, connection: Connection) -> None:
    """drain_timeout_s is the most that it may take; the next engine has everything again."""
    engine = lines.start("--drain-timeout-s", "1")
    children = engine.children()
    lines.database.mode = Mode.STALL
    publish(broker, *bodies(50))
    wait_for(
        lambda: receiver(engine).get("ingest_received_total", 0) >= 50,
        engine,
        "received",
    )
    assert engine.stop(timeout_s=10) == GIVEN_UP
    assert not [pid for pid in children.values() if os.path.exists(f"/proc/{pid}")]
    lines.database.mode = Mode.PASS
    again = lines.start()
    assert sum(again.wait_settled(50).values()) == 50
    assert catalogs(connection) == 50


def test_deliveries_are_let_go_once_and_taken_again(
    lines: Lines, broker: str, connection: Connection
) -> None:
    """A database that is away for longer than hold_s: no delivery gets old at the engine, none is lost, none counts
    as a fault of its message, and none is taken again before it can be settled."""
    engine = lines.start("--hold-s", "1", "--deaths-max", "1")
    _database_away(lines)
    publish(broker, *bodies(50))
    wait_for(lambda: said(engine, "deliveries_let_go"), engine, "let go")
    taken = receiver(engine)["ingest_received_total"]
    time.sleep(4)  # as many more times hold_s
    assert receiver(engine)["ingest_received_total"] == taken
    assert receiver(engine)["ingest_paused"] > 0
    assert len(said(engine, "deliveries_let_go")) == 1
    _database_back(lines)
    wait_acknowledged(engine, 50)  # the writers may have stored before what they had in their hands
    assert catalogs(connection) == 50
    assert engine.stop() == DRAINED
    assert lines.left() == 0
    row: Any = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    assert row == (0,)


class Impatient(RabbitMQ):
    """Closes the channel of a consumer that has not acknowledged within five seconds; looks every second."""

    def prepare(self) -> None:
        super().prepare()
        with (self.directory / "rabbitmq.conf").open("a") as file:
            file.write("consumer_timeout = 5000\n")

    def environment(self) -> dict[str, str]:
        given = super().environment()
        name = "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"
        # How often it looks has no key in rabbitmq.conf.
        return given | {name: given.get(name, "") + " -rabbit channel_tick_interval 1000"}


@pytest.mark.long
@pytest.mark.parametrize("hold_s", ["2", "1000"])
def test_rabbitmq_does_not_lose_its_patience(
    database: str, connection: Connection, tmp_path: Path, hold_s: str
) -> None:
    """With a hold_s below its consumer_timeout it never closes the connection of the engine; with a longer one it
    does, and still nothing is lost."""
    if missing := RabbitMQ.missing():
        pytest.skip(missing)
    server = Impatient()
    server.start()
    lines = Lines(server.url(), database, tmp_path)
    try:
        engine = lines.start("--hold-s", hold_s)
        _database_away(lines)
        publish(server.url(), *bodies(50))
        if hold_s == "2":
            wait_for(lambda: said(engine, "deliveries_let_go"), engine, "let go")
            time.sleep(12)  # twice consumer_timeout
            assert not said(engine, "connection_lost")
        else:
            wait_for(lambda: said(engine, "connection_lost"), engine, "thrown out")
        _database_back(lines)
        wait_acknowledged(engine, 50)
        assert catalogs(connection) == 50
        assert engine.stop() == DRAINED
        assert lines.left() == 0
    finally:
        lines.close()
        server.remove()


def _database_away(lines: Lines) -> None:
    lines.database.mode = Mode.REFUSE
    lines.database.reset()


def _database_back(lines: Lines) -> None:
    lines.database.mode = Mode.PASS
