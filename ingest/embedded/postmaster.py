"""The embedded PostgreSQL's server as a program that is kept running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable

from ingest.embedded.own_files import OwnFiles
from ingest.errors import Unavailable

PID_FILE = "postmaster.pid"
START_TIMEOUT_S = 60.0  # recovery after a crash replays up to max_wal_size; pg_ctl waits as long


class Postmaster:
    """``start`` starts the server of the directory."""

    name = "embedded_database"
    stop_signal = signal.SIGINT  # postgres(1): fast shutdown
    stop_timeout_s = 30.0

    def __init__(self, files: OwnFiles, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._files = files
        self.start = start

    def wait_until_ready(self, process: subprocess.Popen[bytes], is_stopping: Callable[[], bool]) -> None:
        """Until the server's own pid file says "ready", as pg_ctl waits too."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_stopping():
            lines = self._files.read(PID_FILE).split("\n")
            if lines[0] == str(process.pid) and "ready" in [line.strip() for line in lines[7:8]]:
                return
            if process.poll() is not None or time.monotonic() > deadline:
                said = " ".join(self._files.read("log").splitlines()[-3:])
                raise Unavailable(f"the PostgreSQL in {self._files.directory} does not start: {said}")
            time.sleep(0.02)


def forget_stranger(files: OwnFiles) -> None:
    """Removes a pid file that was left behind, and whose number another process has by now: PostgreSQL would take that for
    a server of its own. Who holds the directory's lock knows better. Raises Misconfigured."""
    files.require(PID_FILE)
    number = files.read(PID_FILE).partition("\n")[0].strip().lstrip("-")
    if not number.isascii() or not number.isdigit():
        return
    with contextlib.suppress(OSError):  # it runs no more, or is another user's: PostgreSQL knows these
        where, ours = os.stat(f"/proc/{number}/cwd"), os.fstat(files.fd)
        if (where.st_dev, where.st_ino) != (ours.st_dev, ours.st_ino):
            os.unlink(PID_FILE, dir_fd=files.fd)
