"""PuppetDB's interface as a child of the engine, for one box: ``ingest run --listen HOST:PORT``.

It is a program of its own (``ingest.front``) that shares nothing with the others but the settings: started when the engine
is, started again when it ends, told to finish when the engine drains.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import msgspec
import structlog

from ingest.config.settings import Config
from ingest.core.delivery.restarts import Restarts
from ingest.core.metrics import Metric
from ingest.errors import Misconfigured, Unavailable
from ingest.ipc.parent import Said
from ingest.observe.exposition import Health

START_S_MAX = 60.0  # imports and a look at the database: 2 s on a slow machine
STOP_S_MAX = 15.0  # more than the front itself gives what it is answering
TICK_S = 1.0  # how late the end of the engine may be noticed
DRAINING = "draining"  # the reason by which an engine is not ready then


class FrontChild:
    """The running one and its successors; ``health`` is the engine's, ``count`` its counter."""

    def __init__(
        self, config: Config, health: Callable[[], Health], count: Callable[[int, float], None]
    ) -> None:
        self._config = config
        self._engine_health = health
        self._count = count
        self._restarts = Restarts()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = structlog.get_logger()
        self._stop = threading.Event()
        self._is_up = False
        self._keeper = threading.Thread(target=self._keep, name="front", daemon=True)

    def start(self) -> None:
        """Until it serves. Raises Misconfigured or Unavailable when it cannot."""
        said = self._begin()
        if said.reason:
            raise Misconfigured(said.setting, said.reason) if said.setting else Unavailable(said.reason)
        self._keeper.start()

    def health(self) -> Health:
        """The engine's, and whether this one is there too."""
        found = self._engine_health()
        if self._is_up or DRAINING in found.reasons:
            return found
        return Health(healthy=False, ready=False, reasons=(*found.reasons, "the front is not running"))

    def stop(self) -> None:
        """After what it is answering has been answered."""
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()
        self._end()

    def _begin(self) -> Said:
        self._restarts.started(time.monotonic())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ingest.front", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C is for the supervisor
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin:
            self._process.stdin.write(msgspec.msgpack.encode(self._config))
        said = self._hear()
        self._set_up(not said.reason)
        if said.reason:
            self._end()
        return said

    def _hear(self) -> Said:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector, self._process.stdout as output:
            selector.register(output, selectors.EVENT_READ)
            line = output.readline() if selector.select(START_S_MAX) else b""
        try:
            return msgspec.json.decode(line, type=Said)
        except msgspec.DecodeError:
            return Said("it ended before it served: its own lines in the log say why")

    def _keep(self) -> None:
        """Starts it again; a thread that lives as long as the engine, for the child ends with the one that started it."""
        while not self._stop.is_set():
            if DRAINING in self._engine_health().reasons:
                self._end()
                return
            if self._process is not None:
                self._watch(self._process)
            elif self._restarts.is_due(time.monotonic()):
                self._count(Metric.FRONT_RESTARTS, 1)
                said = self._begin()
                if said.reason:
                    self._log.warning("front_failed", reason=said.reason)
            else:
                self._stop.wait(TICK_S / 10)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(TICK_S)
        except subprocess.TimeoutExpired:
            return
        how = process.returncode
        told = f"signal {signal.Signals(-how).name}" if how < 0 else f"exit {how}"
        self._log.warning("front_died", how=told)
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        self._set_up(False)
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._restarts.ended(time.monotonic())

    def _set_up(self, is_up: bool) -> None:
        if is_up != self._is_up:
            self._is_up = is_up
            self._count(Metric.FRONT_UP, 1 if is_up else -1)
