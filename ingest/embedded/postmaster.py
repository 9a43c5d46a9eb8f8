"""Keeps the embedded PostgreSQL's server running: one that ends by itself, or is killed, is started again on the same files."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import structlog

from ingest.errors import IngestError, Unavailable

START_TIMEOUT_S = 60.0  # recovery after a crash replays up to max_wal_size; pg_ctl waits as long
STOP_TIMEOUT_S = 30.0
# A killed server's last processes have its shared memory until they notice; its successor refuses to start meanwhile.
RESTARTED_AFTER_S = 0.5


class Postmaster:
    """The running one and its successors, for as long as the block lasts. ``start`` starts the server of the directory."""

    def __init__(self, directory: Path, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._directory = directory
        self._start_one = start
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # who starts one looks first whether it shall
        self._keeper = threading.Thread(target=self._keep, name="postgresql", daemon=True)

    def __enter__(self) -> Self:
        """When it takes connections. Raises Unavailable or Misconfigured."""
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._keeper.join()

    def _end(self) -> None:
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGINT)  # postgres(1): fast shutdown
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _keep(self) -> None:
        log = structlog.get_logger()
        while not self._stopping.is_set():
            assert self._process is not None
            code = self._process.wait()
            if self._stopping.wait(RESTARTED_AFTER_S):
                return
            log.error("embedded_database_died", exit_code=code, note="started again")
            try:
                self._start()
            except (IngestError, OSError) as error:
                log.warning("embedded_database_not_started", reason=str(error))

    def _start(self) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            self._process = process = self._start_one()
        self._wait_until_ready(process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Until the server's own pid file says "ready", as pg_ctl waits too."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._stopping.is_set():
            with contextlib.suppress(OSError):
                lines = (self._directory / "postmaster.pid").read_text().split("\n")
                if lines[0] == str(process.pid) and "ready" in [line.strip() for line in lines[7:8]]:
                    return
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self._directory / "log").read_text(errors="replace").splitlines()[-3:]
                raise Unavailable(f"the PostgreSQL in {self._directory} does not start: {' '.join(said)}")
            time.sleep(0.02)
