"""Keeps a program running beside the engine: one that ends by itself, or is killed, is started again."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from ingest.errors import IngestError

# A killed PostgreSQL's last processes have its shared memory until they notice; its successor refuses to start meanwhile.
RESTARTED_AFTER_S = 0.5


class Program(Protocol):
    """What is kept running: how it is started, and how it is told to end."""

    name: str  # of events: ``NAME_died``, ``NAME_not_started``
    stop_signal: signal.Signals
    stop_timeout_s: float

    def start(self) -> subprocess.Popen[bytes]:
        """A new process; does not wait for it. Raises Misconfigured."""

    def wait_until_ready(self, process: subprocess.Popen[bytes], is_stopping: Callable[[], bool]) -> None:
        """Until it serves, or nobody wants that any more. Raises Unavailable or Misconfigured."""


@contextmanager
def kept_running(program: Program) -> Iterator[None]:
    """It and its successors, for as long as the block lasts; the block begins when it serves.

    Raises Unavailable or Misconfigured when it does not start.
    """
    keeper = _Keeper(program)
    thread = threading.Thread(target=keeper.keep, name=program.name, daemon=True)
    try:
        keeper.start()
        thread.start()
        yield
    finally:
        keeper.stop()
        if thread.ident is not None:
            thread.join()


class _Keeper:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # who starts one looks first whether it shall

    def start(self) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            self._process = process = self._program.start()
        self._program.wait_until_ready(process, self._stopping.is_set)

    def stop(self) -> None:
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is None:
            return
        process.send_signal(self._program.stop_signal)
        try:
            process.wait(self._program.stop_timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def keep(self) -> None:
        """The thread's."""
        log = structlog.get_logger()
        while not self._stopping.is_set():
            assert self._process is not None
            code = self._process.wait()
            if self._stopping.wait(RESTARTED_AFTER_S):
                return
            log.error(f"{self._program.name}_died", exit_code=code, note="started again")
            try:
                self.start()
            except (IngestError, OSError) as error:
                log.warning(f"{self._program.name}_not_started", reason=str(error))
