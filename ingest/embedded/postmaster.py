"""The embedded PostgreSQL's server as a program that is kept running."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ingest.errors import Unavailable

START_TIMEOUT_S = 60.0  # recovery after a crash replays up to max_wal_size; pg_ctl waits as long


class Postmaster:
    """``start`` starts the server of the directory."""

    name = "embedded_database"
    stop_signal = signal.SIGINT  # postgres(1): fast shutdown
    stop_timeout_s = 30.0

    def __init__(self, directory: Path, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._directory = directory
        self.start = start

    def wait_until_ready(self, process: subprocess.Popen[bytes], is_stopping: Callable[[], bool]) -> None:
        """Until the server's own pid file says "ready", as pg_ctl waits too."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_stopping():
            with contextlib.suppress(OSError):
                lines = (self._directory / "postmaster.pid").read_text().split("\n")
                if lines[0] == str(process.pid) and "ready" in [line.strip() for line in lines[7:8]]:
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self._directory / "log").read_text(errors="replace").splitlines()[-3:]
                raise Unavailable(f"the PostgreSQL in {self._directory} does not start: {' '.join(said)}")
            time.sleep(0.02)
