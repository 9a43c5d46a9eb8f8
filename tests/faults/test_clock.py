"""The machine's clock jumps by years while the engine works; libfaketime moves it (Debian: faketime)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.engine import Engine, publish, wait_for
from lab.store_model import expected, resource, stored, wire_body

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def test_a_clock_that_jumps_disturbs_nothing(
    broker: str, database: str, connection: Connection, tmp_path: Path
) -> None:
    """Ten years ahead, then twenty back: every catalog is stored, no child dies, no connection is lost. What a producer says
    of its own time decides; while that is years ahead of the engine's clock it counts as of its arrival, and after that
    the node goes on as before."""
    if not LIBRARIES:
        pytest.skip("no libfaketime: apt-get install faketime")
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    engine = Engine(
        broker, database, "--heartbeat-s", "0.5", log=tmp_path / "log",
        environment={
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as on a real machine: settimeofday(2) leaves it alone
        },
    )  # fmt: skip
    try:
        engine.wait_ready()
        for number, offset in enumerate(("+0", "+3650d", "-3650d", "+0")):
            clock.write_text(f"{offset}\n")
            bodies = [wire_body(f"n{n}.example.com", number, [resource(f"/{n}-{number}")]) for n in range(20)]
            publish(broker, *bodies)
            settled = engine.wait_settled(20 * (number + 1))
            assert settled["stored"] == 20 * (number + 1)
            wanted = expected(bodies[7])
            if offset == "-3650d":
                wanted["producer_timestamp"] = stored(connection, "n7.example.com")["producer_timestamp"]
                assert wanted["producer_timestamp"] < "2020"
            assert stored(connection, "n7.example.com") == wanted
        # One that says nothing of its time counts as of the broker's stamp; the jump must have been real.
        clock.write_text("+3650d\n")
        body = wire_body("n.example.com", 1, []).replace(b'"version": "1"', b'"version": "v"')
        publish(broker, body.replace(b'"producer_timestamp"', b'"x"'))
        engine.wait_settled(81)
        row: Any = connection.execute(
            "SELECT received_at > now() + interval '9 years' AND"
            " producer_timestamp < now() + interval '1 day' FROM catalogs JOIN nodes ON id = node_id "
            "WHERE certname = 'n.example.com'"
        ).fetchone()
        assert row == (True,)
        events = {line.get("event") for line in engine.lines()}
        assert not events & {"child_died", "child_stuck", "connection_lost", "database_unavailable"}
        wait_for(lambda: engine.status()["health"]["ready"], engine, "ready")
    finally:
        processes = [engine.process.pid, *engine.children().values()]
        engine.kill()  # no drain: libfaketime breaks clock_nanosleep(2), with which that waits
        for pid in processes:  # and it leaves its own shared memory behind whoever is killed
            for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
                (Path("/dev/shm") / name).unlink(missing_ok=True)
