"""Several writers at once on the same nodes and the same new content, with housekeeping between them."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from ingest.core.delivery.work import Outcome
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import collect_garbage, expire_nodes, forget_quarantined, purge_nodes
from ingest.store.quarantine import QuarantineRow
from lab.servers import Postgres
from lab.store_model import Pipeline, expected, resource, stored, wire_body
from tests.store.test_writing import deactivate

WRITERS = 3
NODES = 12
ROUNDS = int(os.environ.get("INGEST_TEST_STORE_ROUNDS", "8")) * 2
BATCH = 5
# Both engines meet the same bad messages, when they come again.
REFUSED = [
    QuarantineRow(
        (n,), bytes([n] * 32), "invalid", "no catalog", None, None, {}, b"x", None, 1, None, datetime.now(UTC)
    )
    for n in range(6)
]


def catalog(node: int, round_: int) -> bytes:
    """New content each round, shared by all nodes, and in another order on each: whoever inserts it meets others."""
    shared = [
        resource(f"/{n}", tags=[f"tag{n}-{round_}"], parameters={"round": round_}, line=round_)
        for n in range(30)
    ]
    random.Random(node).shuffle(shared)
    return wire_body(f"n{node}.example.com", round_, shared, [(0, round_ % 29 + 1, "before")])


def test_writers_and_housekeeping_never_wait_in_a_circle(
    database: str, connection: Connection, postgres: Postgres
) -> None:
    """No transaction fails or is tried again, and the newest catalog of every node stands in the end."""
    log_before = len(postgres.log())
    failures: list[BaseException] = []
    is_over = threading.Event()

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return run

    writers = [threading.Thread(target=guarded(lambda n=n: _write(database, n))) for n in range(WRITERS)]  # type: ignore[misc]
    keeper = threading.Thread(target=guarded(lambda: _keep_house(database, is_over)))
    for thread in (*writers, keeper):
        thread.start()
    for thread in writers:
        thread.join(240)
    is_over.set()
    keeper.join(60)
    assert failures == []
    said = [
        line for line in postgres.log()[log_before:].splitlines() if "ERROR" in line or "deadlock" in line
    ]
    assert said == []
    for node in range(NODES):
        assert stored(connection, f"n{node}.example.com") == expected(catalog(node, ROUNDS - 1))
    collect_garbage(connection, pause_s=0)
    assert connection.execute("SELECT count(*) FROM resources").fetchone() == (30,)


def _write(database: str, number: int) -> None:
    opened = connect(database)
    pipeline = Pipeline(opened)
    chance = random.Random(number)
    messages = [(node, round_) for node in range(NODES) for round_ in range(ROUNDS)]
    messages.sort(key=lambda message: message[1] + chance.uniform(0, 3))
    for start in range(0, len(messages), BATCH):
        bodies = [catalog(*message) for message in messages[start : start + BATCH]]
        if chance.random() < 0.2:
            bodies.append(deactivate(f"n{chance.randrange(NODES)}.example.com", 0))
        assert Outcome.REDO not in pipeline.take(*bodies)
        pipeline.lane.apply(chance.sample(REFUSED, len(REFUSED)))
    opened.close()


def _keep_house(database: str, is_over: threading.Event) -> None:
    opened = connect(database)
    while not is_over.wait(0.01):
        collect_garbage(opened, step_rows=50, pause_s=0)
        expire_nodes(opened, timedelta(0), step_nodes=5)  # all of them are in the past
        # The deactivated ones; their catalogs come again.
        purge_nodes(opened, timedelta(days=1), step_nodes=5)
        forget_quarantined(opened, timedelta(0))
    opened.close()
