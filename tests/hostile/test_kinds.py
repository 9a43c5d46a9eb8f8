"""Each kind of hostile message by itself: its neighbours are stored in time, nobody dies, nobody takes too much memory."""

from __future__ import annotations

import time

import pytest

from ingest.config.loading import load
from ingest.store.connection import Connection
from lab.engine import Start, publish
from lab.store_model import expected, resource, stored, wire_body
from tests.hostile.messages import KINDS
from tests.hostile.watching import watched

FLAGS = ("--workers", "1", "--decode-memory-bytes-max", "256MiB", "--body-bytes-max", "32MiB")
CONFIG = load({"decode_memory_bytes_max": "256MiB", "body_bytes_max": "32MiB"}, {}).config
GOOD = [wire_body(f"good{n}.example.com", 1, [resource(f"/{n}")]) for n in range(2)]
PATIENCE_S = 30.0  # on a machine that is busy with other tests; the dearest takes two seconds alone


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_hostile_message(start: Start, broker: str, connection: Connection, kind: str) -> None:
    """Sent twice, between two good ones."""
    engine = start(*FLAGS)
    with watched(engine) as watch:
        publish(broker, GOOD[0])
        began_s = time.monotonic()
        hostile = [message for n in range(2) for message in KINDS[kind](n)]
        for message in hostile:
            publish(broker, message.body, headers=message.headers)
        publish(broker, GOOD[1])
        engine.wait_settled(len(hostile) + 2)
        took_s = time.monotonic() - began_s
    assert [stored(connection, f"good{n}.example.com") for n in range(2)] == [expected(body) for body in GOOD]
    assert watch.deaths() == []
    assert watch.over(CONFIG) == {}
    assert took_s < PATIENCE_S
    assert engine.stop() == 0
