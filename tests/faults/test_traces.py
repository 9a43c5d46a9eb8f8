"""The check at the end of each run of faults finds what it looks for."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

from tests.faults.traces import Traces

# Starts a child that leaves the session and outlives it, as an engine's could; prints the child's pid.
ORPHANING = (
    "import subprocess, sys; print(subprocess.Popen(['sleep', '60'], start_new_session=True, "
    "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
)


def test_a_process_that_outlived_its_engine_is_found(tmp_path: Path) -> None:
    """Also in a session of its own, with another parent; and nothing once it is gone."""
    traces = Traces(tmp_path)
    assert traces.left(0) == []
    engine = subprocess.run(
        [sys.executable, "-c", ORPHANING], env=traces.environment | {"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    pid = int(engine.stdout)
    try:
        deadline = time.monotonic() + 10  # a process in the middle of its exec shows no environment
        while not traces.processes() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert traces.left(0) == [f"process {pid}: sleep 60 "]
    finally:
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
    assert traces.left() == []


def test_shared_memory_and_files_are_found(tmp_path: Path) -> None:
    """By their names, if they were not there before."""
    traces = Traces(tmp_path)
    memory = Path("/dev/shm", f"ingest-test-{uuid.uuid4().hex}")
    file = Path(traces.environment["TMPDIR"], "forgotten")
    try:
        memory.touch()
        file.touch()
        assert set(traces.left(0)) == {str(memory), str(file)}
        assert Traces(_fresh(tmp_path)).left(0) == []
    finally:
        memory.unlink()


def _fresh(tmp_path: Path) -> Path:
    directory = tmp_path / "other"
    directory.mkdir()
    return directory
