"""Which queues an engine takes from, and what goes first when much waits in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ingest.core.delivery.importance import RANKS
from ingest.store.connection import Connection
from lab.engine import Start, publish, wait_for
from lab.kinds import body_of, reports, stored_nodes
from lab.stomp_client import Client
from tests.brokers.command import ingest

QUEUES = {"catalog": "/queue/catalog", "facts": "/queue/facts", "report": "/queue/reports"}
FLOOD = 400


@contextlib.contextmanager
def client(broker: str) -> Iterator[Client]:
    with Client(int(urlsplit(broker).port or 0), "", "") as opened:
        yield opened


def left_in(broker: str, destination: str) -> list[bytes]:
    """What is in the queue: all before a last message."""
    with client(broker) as producer:
        producer.publish(destination, b"last")
    found = []
    with client(broker) as consumer:
        consumer.subscribe(destination)
        while (message := consumer.message()).body != b"last":
            found.append(message.body)
            consumer.acknowledge(message)
        consumer.acknowledge(message)
        consumer.disconnect()
    return found


def test_by_default_each_kind_has_a_queue(start: Start, broker: str, connection: Connection) -> None:
    """And all of them are taken from."""
    for kind, destination in QUEUES.items():
        with client(broker) as producer:
            producer.publish(destination, body_of(kind, f"{kind}.example"))
    engine = start("--workers", "1")
    engine.wait_settled(3)
    assert [stored_nodes(connection, kind) for kind in RANKS] == [{f"{kind}.example"} for kind in RANKS]
    connected = [line for line in engine.lines() if line.get("event") == "connected"]
    assert [line["destinations"] for line in connected] == [list(QUEUES.values())]


def test_a_site_with_one_queue_of_its_own_has_all_kinds_there(
    start: Start, broker: str, connection: Connection
) -> None:
    """As before there were queues for each: only the one is subscribed to."""
    with client(broker) as producer:
        for kind in RANKS:
            producer.publish("/queue/mine", body_of(kind, "n1"))
        producer.publish("/queue/facts", body_of("facts", "another.example"))
    engine = start("--workers", "1", "--destination", "/queue/mine")
    engine.wait_settled(3)
    assert [stored_nodes(connection, kind) for kind in RANKS] == [{"n1"}] * 3
    assert engine.stop() == 0
    assert left_in(broker, "/queue/facts") == [body_of("facts", "another.example")]


def test_an_engine_takes_the_kinds_that_it_is_for(start: Start, broker: str, connection: Connection) -> None:
    """Others stay in their queues; what another kind has in its queue is stored."""
    with client(broker) as producer:
        for destination in QUEUES.values():
            for kind in RANKS:
                producer.publish(destination, body_of(kind, f"{kind}{destination}"))
    engine = start("--workers", "1", "--kinds", "catalog,facts")
    engine.wait_settled(6)
    assert engine.stop() == 0
    assert len(left_in(broker, "/queue/reports")) == 3
    for kind in RANKS:
        assert stored_nodes(connection, kind) == {f"{kind}/queue/catalog", f"{kind}/queue/facts"}


def test_commands_send_to_the_queues_of_the_running_engine(
    broker: str, database: str, tmp_path: Path, start: Start, connection: Connection
) -> None:
    """Where they are told of none: its one queue for all, or each of its own."""
    file = tmp_path / "facts"
    file.write_bytes(body_of("facts", "n1"))
    engine = start("--workers", "1", "--destination", "/queue/mine", "--instance", "queues-test")
    done = ingest("publish", file, "--instance", "queues-test")
    assert done.returncode == 0, done.stderr
    engine.wait_settled(1)
    assert stored_nodes(connection, "facts") == {"n1"}


def test_a_catalog_does_not_wait_behind_a_flood_of_reports(
    start: Start, broker: str, connection: Connection
) -> None:
    """It comes when they are being stored, as others have before it, and most of them are stored after it."""
    with client(broker) as producer:
        producer.publish("/queue/catalog", body_of("catalog", "n0"))
        for body in reports("busy.example", FLOOD):
            producer.send("SEND", {"destination": "/queue/reports", "content-length": str(len(body))}, body)
        producer.publish("/queue/reports", body_of("report", "last.example"))
    engine = start("--workers", "2")
    engine.wait_settled(1)
    publish(broker, body_of("catalog", "n1"))
    wait_for(lambda: "n1" in stored_nodes(connection, "catalog"), engine, "the catalog stored")
    engine.wait_settled(FLOOD + 3)
    row: Any = connection.execute(
        "SELECT count(*) FILTER (WHERE r.xmin::text::bigint > c.xmin::text::bigint), count(*) "
        "FROM node_reports r, catalogs c JOIN nodes n ON n.id = c.node_id WHERE n.certname = 'n1'"
    ).fetchone()
    after, all_ = row
    assert all_ == FLOOD + 1
    assert after > FLOOD // 2


def test_a_person_s_commands_use_the_queue_of_the_kind(
    start: Start, broker: str, database: str, tmp_path: Path
) -> None:
    """``ingest publish``, and ``ingest quarantine retry`` for what comes back from there."""
    files = []
    for kind in RANKS:
        files.append(tmp_path / kind)
        files[-1].write_bytes(body_of(kind, "n1"))
    assert ingest("publish", *files, "--queue-source", broker).returncode == 0
    for kind, destination in QUEUES.items():
        assert len(left_in(broker, destination)) == 1, kind
    bad = body_of("facts", "n1").replace(b'"version": 5', b'"version": 9')
    publish(broker, bad)
    engine = start("--workers", "1")
    assert engine.wait_settled(1)["quarantined"] == 1
    assert engine.stop() == 0
    listed = ingest("quarantine", "list", "--database", database, "--kind", "facts")
    assert "unsupported_version" in listed.stdout
    assert ingest("quarantine", "list", "--database", database, "--kind", "report").stdout == ""
    number = listed.stdout.split()[0]
    done = ingest("quarantine", "retry", number, "--database", database, "--queue-source", broker)
    assert (done.returncode, done.stdout.strip()) == (0, "1 given back to /queue/facts"), done.stderr
    assert left_in(broker, "/queue/facts") == [bad]
