"""A whole engine to measure: ``ingest run`` as a process tree, with the CPU time of each of its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

from ingest.config.settings import SETTINGS, Config
from ingest.engine.process import cpu_s
from ingest.errors import Unavailable
from ingest.observe.asking import read_status

START_TIMEOUT_S = 30.0
CHILD_MODULE = "ingest.engine.child"
SETTLED = ("stored", "unchanged", "stale", "superseded", "quarantined")


class MeasuredEngine:
    """The running tree: what it says of itself, and what the kernel says of it."""

    def __init__(self, process: subprocess.Popen[bytes], config: Config) -> None:
        self.process = process
        self.config = config

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(Unavailable):
            return read_status(self.config)
        return {}

    def counters(self) -> dict[str, dict[str, float]]:
        """The numbers of /status.json, by process."""
        found: dict[str, dict[str, float]] = self.status().get("processes", {})
        return found

    def settled(self) -> float:
        receiver = self.counters().get("receiver", {})
        return sum(receiver.get(name, 0) for name in SETTLED)

    def pids(self) -> dict[str, int]:
        """Name and pid of each child."""
        found = {}
        for pid in children_of(self.process.pid):
            with contextlib.suppress(psutil.Error):  # it has just ended
                words = psutil.Process(pid).cmdline()
                if CHILD_MODULE in words:
                    found[words[words.index(CHILD_MODULE) + 1]] = pid
        return found

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Until the condition holds. Raises Unavailable when it does not in time or the engine has ended."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise Unavailable(f"the engine under measurement ended with code {self.process.returncode}")
            if time.monotonic() > deadline:
                raise Unavailable(f"the engine under measurement: {what} took over {timeout_s:.0f} s")
            time.sleep(0.005)

    @contextmanager
    def intake_stopped(self) -> Iterator[None]:
        """While a backlog is made. The supervisor sleeps too, or it would replace a receiver that stands still."""
        pids = (self.process.pid, self.pids()["receiver"])
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def measured_engine(config: Config) -> Iterator[MeasuredEngine]:
    """``ingest run`` with these settings, ready when this gives control; ended afterwards."""
    environment = os.environ | {
        f"INGEST_{setting.name.upper()}": str(getattr(config, setting.name)) for setting in SETTINGS
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest", "run"],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    engine = MeasuredEngine(process, config)
    try:
        engine.wait(
            lambda: bool(engine.status().get("health", {}).get("ready")), "its start", START_TIMEOUT_S
        )
        yield engine
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def cpu_of(pids: Mapping[str, int]) -> dict[str, float]:
    return {name: cpu_s(pid) for name, pid in pids.items()}


def private_bytes(pid: int) -> int:
    """Memory of a process that it shares with nobody; 0 where that may not be read."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_full_info().uss)
    return 0


def busy_elsewhere_s(own_s: float, before_s: float) -> float:
    """CPU seconds that others used of this machine since ``machine_busy_s`` gave ``before_s``."""
    return max(0.0, machine_busy_s() - before_s - own_s)


def machine_busy_s() -> float:
    """CPU seconds of everything on this machine since it started, steal included."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)
