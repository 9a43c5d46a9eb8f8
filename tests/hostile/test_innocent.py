"""A message that was in the hands of processes that were killed by chance is not to blame: tried alone, it is stored."""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from typing import Any

import pytest

from ingest.engine.process import cpu_s
from ingest.store.connection import Connection
from lab.engine import Engine, Start, publish, wait_for
from lab.store_model import expected, resource, stored, wire_body

# A decoder starts with half a second of CPU time, and takes several for the large message.
START_CPU_S = 1.2


def events(engine: Engine, name: str) -> list[dict[str, Any]]:
    return [line for line in engine.lines() if line.get("event") == name]


def kill_whoever_works(engine: Engine) -> bool:
    """Kills a decoder in the middle of the large message; True when that is suspected."""
    if events(engine, "message_set_aside"):
        return True
    for name, pid in engine.children().items():
        if name.startswith("decoder") and cpu_s(pid) > START_CPU_S:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return False


@pytest.mark.parametrize("workers", ["1", "3"])
def test_an_innocent_message_is_stored(
    start: Start, broker: str, connection: Connection, workers: str
) -> None:
    """Its decoder is killed until the message is suspected; then nobody kills any more, it is tried alone, and stored.
    Meanwhile its neighbours are stored, and nothing is in quarantine."""
    engine = start("--workers", workers, "--alone-after-s", "2")
    slow = wire_body(
        "slow.example.com", 1, [resource(f"/{n}", parameters={"c": f"{n}"}) for n in range(150_000)]
    )
    good = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(20)]
    publish(broker, slow, *good)
    wait_for(partial(kill_whoever_works, engine), engine, "suspected", timeout_s=90)
    wait_for(lambda: engine.settled()["stored"] >= len(good), engine, "neighbours stored")
    assert engine.wait_settled(len(good) + 1)["quarantined"] == 0
    assert events(engine, "message_condemned") == []
    assert stored(connection, "slow.example.com") == expected(slow)
    assert engine.stop() == 0
