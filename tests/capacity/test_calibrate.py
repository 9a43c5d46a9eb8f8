"""A calibration of this machine, in small: the real engine, a database of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingest.capacity.calibrate import Scale, calibrate
from ingest.capacity.calibration import FACTS_KINDS, KINDS, REPORT_KINDS, load, save
from ingest.capacity.catalogs import synthetic
from ingest.capacity.costs import costs_of
from ingest.capacity.engine import children_of
from ingest.capacity.run_rounds import RunScale
from ingest.capacity.simulation import simulate
from ingest.capacity.world import Arrival, Setup
from ingest.config.loading import load as load_config
from ingest.core.catalog.decoding import Decoding
from ingest.core.delivery.work import Claim, Descriptor, Full, SectionDigests
from ingest.engine.process import cpu_s
from ingest.store.connection import Connection
from lab.decoding import work_of
from lab.servers import Postgres
from lab.store_model import at

SMALL = Scale(clones=2, singles=20, mixed=3, commits=5, runs=RunScale(nodes=16, flow=16, singles=4))


def test_the_real_engine_is_measured_and_leaves_nothing(
    postgres: Postgres, database: str, connection: Connection, tmp_path: Path
) -> None:
    """Every stage and kind has a cost above zero, the record can be read back, the cluster is as it was."""
    before = _databases(connection), set(children_of(os.getpid()))
    config = load_config({"database": database, "workers": "2"}, {}).config
    said: list[float] = []
    found = calibrate(config, synthetic(2, 1), "made up", lambda what, share: said.append(share), SMALL)
    assert (_databases(connection), set(children_of(os.getpid()))) == before
    assert connection.execute("SELECT count(*) FROM nodes").fetchone() == (0,)
    assert said == sorted(said)
    assert {kind for r in found.rounds for kind in r.kinds} == set(KINDS)
    for round_ in found.rounds:
        for stage in ("receiver", "decoder", "writer", "postgresql"):
            assert round_.cpu_s[stage] > 0, (round_.name, stage)
        # A small backlog is in the receiver's socket before the engine goes on.
        assert round_.cpu_s["broker"] + round_.cpu_s.get("broker_in", 0) > 0
        assert round_.batches > 0
        assert round_.wal_bytes > 0
    assert found.runs is not None
    assert {kind for r in found.runs.rounds for kind in r.kinds} == {*FACTS_KINDS, *REPORT_KINDS}
    for round_ in found.runs.rounds:
        assert round_.batches > 0
        assert round_.cpu_s["decoder"] > 0
        assert round_.wal_bytes > 0
    assert found.runs.stored_bytes["report_few"] > found.runs.event_bytes > 0
    assert {sample.kind for sample in found.samples} == set(KINDS)
    save(found, tmp_path / "c.json")
    assert load(tmp_path / "c.json") == found
    costs = costs_of(found)
    assert costs.decoder["few"].at(1e6) > costs.decoder["unchanged"].at(1e6) > 0
    outcome = simulate(costs, Setup(cores=2, workers=2, writers=2), [Arrival(0.0, "few", 1_000_000, 1)])
    assert 0.002 < outcome.freshness_s[0] < 1  # a commit, and no more than a second of work


def test_a_calibration_that_is_terminated_leaves_nothing(
    postgres: Postgres, database: str, connection: Connection, tmp_path: Path
) -> None:
    """The engine is in a session of its own: no terminal ends it."""
    before = _databases(connection)
    command = [sys.executable, "-m", "ingest", "capacity", "calibrate", "--database", database]
    with subprocess.Popen([*command, "--output", str(tmp_path / "c.json")]) as process:
        deadline_s = time.monotonic() + 60
        while not (engine := [pid for pid in _below(process.pid) if _is_receiver(pid)]):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        everybody = _below(process.pid)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert engine[0] in everybody
    assert [pid for pid in everybody if Path(f"/proc/{pid}").exists()] == []
    assert _databases(connection) == before


def _below(pid: int) -> list[int]:
    return [one for child in children_of(pid) for one in (child, *_below(child))]


def _is_receiver(pid: int) -> bool:
    try:
        return b"\0receiver\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_made_up_catalogs_change_as_kinds_say() -> None:
    """Unchanged ones become claims; a tweak brings a few contents, a release more; of another node most is known."""
    (template,) = synthetic(1, 1)
    decoding = Decoding(64 << 20)
    known: dict[str, SectionDigests] = {}

    def decode(certname: str, **changes: int) -> Claim | Full:
        body = template.render(certname, at(0), **changes)
        descriptor = Descriptor(1, 1, 0, len(body), len(body), at(0), {})
        work = work_of(decoding, descriptor, body, known)
        assert isinstance(work, Claim | Full)
        known[certname] = work.sections
        return work

    first = decode("a.example.com")
    assert isinstance(first, Full)
    assert 100 <= first.slots <= 4000
    assert len(first.contents) > 0.95 * first.slots
    assert isinstance(decode("a.example.com"), Claim)
    other = decode("b.example.com")
    assert isinstance(other, Full)
    assert 0 < len(other.contents) < 0.05 * other.slots
    few = decode("a.example.com", tweak=1)
    assert isinstance(few, Full)
    assert 0 < len(few.contents) <= 0.02 * few.slots
    upgrade = decode("a.example.com", tweak=1, release=1)
    assert isinstance(upgrade, Full)
    # Moved lines too: a decoder knows resources by their bytes.
    assert 0.3 * upgrade.slots < len(upgrade.contents) < 0.6 * upgrade.slots
    assert upgrade.position_set != few.position_set


def test_cpu_time_is_told_in_more_than_clock_ticks() -> None:
    """A catalog takes less than the ten milliseconds of /proc/PID/stat."""
    before = cpu_s(os.getpid())
    sum(range(20_000))
    assert 0 < cpu_s(os.getpid()) - before < 1
    assert cpu_s(2**22 + 1) == 0  # over pid_max


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _databases(connection: Connection) -> set[object]:
    return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
