"""A message that was in the hands of processes that were killed by chance is not to blame: tried alone, it is stored."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
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


@pytest.fixture
def tight() -> Iterator[Path]:
    """A control group of little memory: the kernel's OOM killer ends who needs more there."""
    top = Path("/sys/fs/cgroup/memory")
    unified = not top.is_dir()
    top = top.parent if unified else top
    made = top / f"ingest-test-{os.getpid()}"
    try:
        made.mkdir()
        limit = made / ("memory.max" if unified else "memory.limit_in_bytes")
        limit.write_text(str(16 * 1024 * 1024))
        if unified:
            (made / "memory.swap.max").write_text("0")
    except OSError as error:
        with contextlib.suppress(OSError):
            made.rmdir()
        pytest.skip(f"a control group of its own needs root, and a kernel that lets it: {error}")
    yield made
    deadline = time.monotonic() + 10
    while made.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            made.rmdir()
        time.sleep(0.05)


def oom_kills(group: Path) -> int:
    for name in ("memory.oom_control", "memory.events"):
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)", (group / name).read_text(), re.MULTILINE)
            if found:
                return int(found[1])
    return 0


def test_one_that_the_oom_killer_took_a_decoder_from_is_stored(
    start: Start, broker: str, connection: Connection, tight: Path
) -> None:
    """Each decoder that begins with it finds too little memory, until the message is suspected; then the machine has enough
    again, it is tried alone, and stored, and so are its neighbours."""
    engine = start("--workers", "1", "--alone-after-s", "1")
    body = [resource(f"/{n}", parameters={"c": f"{n}" * 20}) for n in range(40_000)]
    large = wire_body("large.example.com", 1, body)
    good = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(20)]
    squeezed: set[int] = set()

    def squeeze() -> bool:
        pid = engine.children().get("decoder-0")
        if pid is not None and pid not in squeezed and not events(engine, "message_set_aside"):
            squeezed.add(pid)
            with contextlib.suppress(OSError):
                (tight / "cgroup.procs").write_text(str(pid))
        return bool(events(engine, "message_set_aside"))

    squeeze()
    publish(broker, large, *good)
    wait_for(squeeze, engine, "suspected", timeout_s=90)
    assert oom_kills(tight) >= 2
    assert engine.wait_settled(len(good) + 1)["quarantined"] == 0
    assert stored(connection, "large.example.com") == expected(large)
    died = [line["how"] for line in events(engine, "child_died")]
    assert set(died) == {"signal SIGKILL"}
    assert engine.stop() == 0


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
