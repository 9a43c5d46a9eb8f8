"""Whole engines on one queue and one database: nobody waits in a circle, nobody writes what is older, one keeps house."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection
from ingest.store.housekeeping import take
from lab.engine import Engine, publish, wait_for
from lab.servers import Postgres, embedded_broker
from lab.store_model import expected, resource, stored, wire_body
from tests.cluster import whole_runs
from tests.cluster.whole_runs import Runs, compare_runs
from tests.faults import audit

# make test-store-long: 200 nodes, 20 rounds.
NODES = int(os.environ.get("INGEST_TEST_STORE_NODES", "60"))
ROUNDS = int(os.environ.get("INGEST_TEST_STORE_ROUNDS", "8"))
DUPLICATES = 0.2  # share of the messages that come twice
DISORDER_ROUNDS = 3  # how far behind its round a message may come
RUNS = 6  # whole ones, of a third of the nodes
LATEST = "SELECT transaction_uuid::text FROM reports r JOIN node_latest_reports l ON encode(l.hash, 'hex') = r.hash"


def catalog(node: int, round_: int) -> bytes:
    """Half of the fleet's content is the same on every node, and all of it new with every other round: a deploy
    that reaches all of them at once."""
    release = round_ // 2
    shared = [
        resource(f"/shared/{n}", tags=[f"release-{release}"], parameters={"release": release}, line=round_)
        for n in range(20)
    ]
    own = [
        resource(f"/own/{n}", parameters={"node": node, "round": round_ if n == 0 else 0}) for n in range(20)
    ]
    key = resource(f"key-{node}", type_="Sshkey", exported=True, parameters={"key": f"{node} {release}"})
    edges = [(n, n + 1, "before") for n in range(round_ % 5, 19)]
    return wire_body(f"n{node}.example.com", round_, [*shared, *own, key], edges)


@pytest.fixture
def engines(database: str, tmp_path: Path) -> Iterator[tuple[str, list[Engine]]]:
    started: list[Engine] = []
    with embedded_broker() as broker:
        try:
            for name in ("one", "two"):
                # Garbage is collected all the time; batches are gathered for as long as it takes another to come.
                started.append(
                    Engine(broker, database, "--workers", "1", "--writers", "2", "--gc-interval-s", "1",
                           "--log-level", "info", log=tmp_path / name)
                )  # fmt: skip
            yield broker, started
        finally:
            for engine in started:
                engine.kill()


def test_two_instances_end_at_the_newest_of_every_node(
    engines: tuple[str, list[Engine]], connection: Connection, postgres: Postgres
) -> None:
    """Catalogs in random order, many twice, split between two engines while both collect garbage: the newest of
    every node is stored, and PostgreSQL has logged no deadlock, no retry and no error but that a collector gave way."""
    broker, started = engines
    log_before = len(postgres.log())
    for engine in started:
        engine.wait_ready()
    chance = random.Random(7)
    messages = [(node, round_) for node in range(NODES) for round_ in range(ROUNDS)]
    messages += [message for message in messages if chance.random() < DUPLICATES]
    messages.sort(key=lambda message: message[1] + chance.uniform(0, DISORDER_ROUNDS))
    publish(broker, *(catalog(node, round_) for node, round_ in messages))

    def settled() -> float:
        return sum(sum(engine.settled().values()) for engine in started)

    wait_for(lambda: settled() >= len(messages), started[0], f"{len(messages)} settled", timeout_s=240)
    for engine in started:
        assert engine.settled()["stored"] > 0, "one engine did everything"
        assert engine.settled()["quarantined"] == 0
        assert engine.stop() == 0
        assert [line for line in engine.lines() if line["level"] in ("warning", "error")] == []
    for node in range(NODES):
        newest = catalog(node, ROUNDS - 1)
        assert stored(connection, f"n{node}.example.com") == expected(newest)
    rows: Any = connection.execute("SELECT count(*) FROM exported_resources WHERE type = 'Sshkey'").fetchone()
    assert rows[0] == NODES
    said = [line for line in postgres.log()[log_before:].splitlines() if "due to lock timeout" not in line]
    assert not [line for line in said if "ERROR" in line or "deadlock" in line or "serialize" in line]


def test_whole_runs_in_any_order_end_at_the_newest_of_every_kind(
    engines: tuple[str, list[Engine]], connection: Connection
) -> None:
    """Facts, catalogs and reports of the same nodes in random order, many twice, split between two engines: each node's
    newest facts and catalog are stored whole, its newest report is the latest one, every report is there once, and no
    state ever went back."""
    broker, started = engines
    audit.install(connection)
    for engine in started:
        engine.wait_ready()
    runs, chance = Runs([], seed=11), random.Random(11)
    numbers = [run * whole_runs.NODES + node for run in range(1, 1 + RUNS) for node in range(NODES // 3)]
    bodies = {(run, kind): body for run in numbers for kind, body in enumerate(runs.bodies(run))}
    for (run, kind), body in bodies.items():
        runs.took(run, kind, body)
    messages = list(bodies) + [message for message in bodies if chance.random() < DUPLICATES]
    messages.sort(key=lambda message: message[0] // whole_runs.NODES + chance.uniform(0, DISORDER_ROUNDS))
    publish(broker, *(bodies[message] for message in messages))
    wait_for(
        lambda: sum(sum(engine.settled().values()) for engine in started) >= len(messages), started[0],
        f"{len(messages)} settled", timeout_s=240,
    )  # fmt: skip
    for engine in started:
        assert engine.settled()["stored"] > len(messages) / 10, "one engine did everything"
        assert engine.stop() == 0
    assert compare_runs(connection, runs) == ([], [], 0, 0)
    latest: Any = connection.execute(LATEST).fetchall()
    sent = {json.loads(runs.report(run))["payload"]["transaction_uuid"] for run in numbers[-(NODES // 3) :]}
    assert {uuid for (uuid,) in latest} == sent


def test_one_of_several_instances_keeps_house(database: str, connection: Connection, tmp_path: Path) -> None:
    """Three that each would do it every two seconds do it no oftener together."""
    started: list[Engine] = []
    times: set[object] = set()

    def look() -> int:
        row: Any = connection.execute("SELECT house_kept_at FROM content_state").fetchone()
        times.update(row)
        return len(times - {None})

    with embedded_broker() as broker:
        try:
            for name in ("one", "two", "three"):
                flags = ("--workers", "1", "--writers", "1", "--gc-interval-s", "2", "--log-level", "info")
                started.append(Engine(broker, database, *flags, log=tmp_path / name))
            wait_for(lambda: look() >= 3, started[0], "three times of housekeeping", timeout_s=120)
            for engine in started:
                engine.stop()
        finally:
            for engine in started:
                engine.kill()
    kept = [line for engine in started for line in engine.lines() if line["event"] == "housekeeping"]
    assert 2 <= len(kept) <= look()


def test_who_keeps_house_is_settled_in_the_database(connection: Connection) -> None:
    """The first who asks; nobody before the interval is over; a clock that was set back stops nobody."""
    hour = timedelta(hours=1)
    assert take(connection, hour)
    assert not take(connection, hour)
    connection.execute("UPDATE content_state SET house_kept_at = now() - interval '61 minutes'")
    assert take(connection, hour)
    connection.execute("UPDATE content_state SET house_kept_at = now() + interval '1 day'")
    assert take(connection, hour)
