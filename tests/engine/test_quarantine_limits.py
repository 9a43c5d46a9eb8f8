"""A bad deploy must not empty the queue into quarantine."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.engine import Engine, Start, publish, wait_for
from lab.store_model import expected, resource, stored, wire_body

BAD = [b'{"command": "replace universe", "version": 1, "payload": {"n": %d}}' % n for n in range(20)]
GOOD = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(20)]


@pytest.mark.parametrize("limit", ["--quarantine-messages-max", "--quarantine-per-minute-max"])
def test_the_engine_stops_before_the_limit_is_passed(
    start: Start, broker: str, connection: Connection, limit: str
) -> None:
    """Exit code 5 and one line that names the setting; what is beyond the limit, and the good, is not lost."""
    engine = start(limit, "5")
    publish(broker, *(body for pair in zip(BAD, GOOD, strict=True) for body in pair))
    assert engine.process.wait(60) == 5
    last = engine.log.read_text().splitlines()[-1]
    assert last.startswith("ingest: ")
    assert limit[2:].replace("-", "_") in last
    assert _in_quarantine(connection) == 5
    again = start("--quarantine-messages-max", "0", "--quarantine-per-minute-max", "0")
    _wait_for_all(again, connection)
    assert all(stored(connection, f"n{n}.example.com") == expected(GOOD[n]) for n in range(20))


def test_a_message_that_is_there_already_finds_room(
    start: Start, broker: str, connection: Connection
) -> None:
    """The same bad message once more is another attempt, not another message: the engine goes on."""
    engine = start("--quarantine-messages-max", "1")
    publish(broker, BAD[0], BAD[0], BAD[0])
    assert engine.wait_settled(3)["quarantined"] == 3
    assert _in_quarantine(connection) == 1
    assert engine.stop() == 0


def _in_quarantine(connection: Connection) -> int:
    row: Any = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    return int(row[0])


def _wait_for_all(engine: Engine, connection: Connection) -> None:
    def is_settled() -> bool:
        row: Any = connection.execute("SELECT count(*) FROM catalogs").fetchone()
        return bool(row[0] == len(GOOD) and _in_quarantine(connection) == len(BAD))

    wait_for(is_settled, engine, "all settled")
