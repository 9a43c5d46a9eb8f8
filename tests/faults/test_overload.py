"""More than can be done: the engine takes what its window holds, and its memory stays within its settings.

The peak of the whole process tree is printed. ``make faults-long`` has the full sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.config.loading import load
from ingest.config.settings import Config
from ingest.core.delivery.windows import windows
from ingest.store.connection import Connection
from lab.engine import Engine, publish, wait_for
from lab.proxy import Mode
from lab.store_model import resource, wire_body
from tests.faults.memory import MIB, Peak, limit_bytes, tree_bytes, watched
from tests.faults.test_drain import Lines, receiver
from tests.faults.traffic import Producer

PATIENCE_S = 240


@pytest.fixture
def lines(broker: str, database: str, tmp_path: Path) -> Iterator[Lines]:
    made = Lines(broker, database, tmp_path)
    yield made
    made.close()


def small(number: int) -> bytes:
    return wire_body(f"n{number % 5000}.example.com", number, [resource(f"/{number % 50}")])


def settings(**given: Any) -> tuple[Config, list[str]]:
    """The configuration and the flags that make it."""
    flags = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return load(given, {}).config, flags


def told(name: str, peak: Peak, idle: int, config: Config) -> None:
    print(
        f"\n{name}: peak {peak} of {limit_bytes(config) / MIB:.0f} MiB allowed, {idle / MIB:.0f} MiB before, "
        f"window {config.window_bytes_max / MIB:.0f} MiB"
    )
    assert idle < peak.bytes <= limit_bytes(config)


def wait_drained(engine: Engine, messages: int) -> None:
    wait_for(lambda: sum(engine.settled().values()) >= messages, engine, "all settled", PATIENCE_S)


def test_a_long_queue_and_a_stopped_database(
    lines: Lines, broker: str, connection: Connection, long: bool
) -> None:
    """The window fills and no more; when the database is back the whole queue is settled."""
    messages = 50_000 if long else 5_000
    config, flags = settings(workers=2, writers=2, window_bytes_max=64 * MIB, body_bytes_max=16 * MIB)
    engine = lines.start(*flags)
    idle = tree_bytes(engine)
    lines.database.mode = Mode.REFUSE
    lines.database.reset()
    with watched(engine) as peak:
        publish(broker, *(small(number) for number in range(messages)))
        in_window = windows(list(config.taken), config.window_messages_max)[config.destination]
        wait_for(lambda: receiver(engine).get("ingest_window_messages") == in_window, engine, "full")
        assert sum(engine.settled().values()) == 0
        lines.database.mode = Mode.PASS
        wait_drained(engine, messages)
    told(f"{messages} messages, database stopped", peak, idle, config)
    assert engine.stop() == 0
    assert lines.left() == 0


def test_a_producer_faster_than_the_writers(
    lines: Lines, broker: str, connection: Connection, long: bool
) -> None:
    """Each transaction takes 50 ms longer than it would, so that messages come at three times the rate that they
    can be written at: the broker keeps the difference."""
    messages = 9_000 if long else 1_500
    connection.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$"
    )
    connection.execute("CREATE TRIGGER slow AFTER INSERT OR UPDATE ON catalogs EXECUTE FUNCTION slow()")
    config, flags = settings(
        workers=2, writers=2, batch_messages_max=10, window_messages_max=200, window_bytes_max=64 * MIB,
        body_bytes_max=16 * MIB,
    )  # fmt: skip
    engine = lines.start(*flags)
    idle = tree_bytes(engine)
    producer = Producer(broker.removeprefix("stomp://"))
    try:
        with watched(engine) as peak:
            for number in range(messages):
                producer.send(f"m{number}", small(number))
            settled_meanwhile = sum(engine.settled().values())
            producer.finish()
            wait_drained(engine, messages)
    finally:
        producer.kill()
    print(f"\nsettled while the producer sent {messages}: {settled_meanwhile:.0f}")
    assert settled_meanwhile < messages / 3
    told("a producer faster than the writers", peak, idle, config)


def test_decoders_with_large_bodies(lines: Lines, broker: str, connection: Connection, long: bool) -> None:
    """32 MB in every decoder at the same time."""
    workers, bodies, megabytes = (8, 24, 32) if long else (2, 4, 16)
    config, flags = settings(
        workers=workers, writers=2, window_bytes_max=256 * MIB, decode_cpu_max_s=120, batch_bytes_max=8 * MIB
    )  # fmt: skip
    engine = lines.start(*flags)
    idle = tree_bytes(engine)
    with watched(engine) as peak:
        for number in range(bodies):
            publish(broker, large(number, megabytes))
        wait_drained(engine, bodies)
    told(f"{workers} decoders, bodies of {megabytes} MB", peak, idle, config)
    assert engine.settled()["quarantined"] == 0


def large(number: int, megabytes: int) -> bytes:
    """Many resources with long parameters, as a catalog of that size would have."""
    text = "x" * 20_000
    resources = [
        resource(f"/{number}/{n}", parameters={"content": f"{n}{text}"}) for n in range(megabytes * 50)
    ]
    body = wire_body(f"large{number}.example.com", 1, resources)
    assert len(body) >= megabytes * 1_000_000
    return body
