"""systemd is told what it asked for, and nobody else is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.engine.service_manager import ServiceManager
from lab.servers import Postgres, embedded_broker


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What listens where NOTIFY_SOCKET points to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


def told(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def silent(manager: socket.socket) -> bool:
    manager.setblocking(False)
    try:
        manager.recv(4096)
    except BlockingIOError:
        return True
    finally:
        manager.settimeout(60)
    return False


def test_ready_alive_stopping(tmp_path: Path, manager: socket.socket) -> None:
    """Alive is told three times within WatchdogSec=, a status when it changes; children inherit nothing of it."""
    now = [100.0]
    environment = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "A": "b",
    }
    service = ServiceManager(environment, lambda: now[0])
    assert environment == {"A": "b"}
    service.ready()
    assert "READY=1" in told(manager)
    service.tick("ready")
    assert told(manager) == ["STATUS=ready", "WATCHDOG=1"]
    now[0] += 9.9
    service.tick("ready")
    assert silent(manager)
    now[0] += 0.1
    service.tick("not ready: a\nb")
    assert told(manager) == ["STATUS=not ready: a b", "WATCHDOG=1"]
    service.stopping()
    assert "STOPPING=1" in told(manager)


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}], ids=str
)
def test_a_watchdog_that_is_not_for_us(
    tmp_path: Path, manager: socket.socket, watchdog: dict[str, str]
) -> None:
    """None is asked for, another process is meant, or it is no number: no word of being alive."""
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), **watchdog})
    service.tick("ready")
    assert told(manager) == ["STATUS=ready"]
    service.tick("ready")
    assert silent(manager)


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody-listens-here"])
def test_without_a_manager_nothing_happens(address: str) -> None:
    """Started by hand, or the manager has gone."""
    service = ServiceManager({"NOTIFY_SOCKET": address} if address else {})
    service.ready()
    service.tick("ready")
    service.stopping()


def test_the_engine_says_when_it_can_work(
    tmp_path: Path, manager: socket.socket, postgres: Postgres, database: str
) -> None:
    """READY after all of its processes are, STOPPING at SIGTERM."""
    with embedded_broker() as url:
        engine = subprocess.Popen(
            [sys.executable, "-m", "ingest", "run", "--queue-source", url, "--database", database, "--metrics-port", "0",
             "--workers", "1", "--writers", "1"],
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            words: list[str] = []
            while "READY=1" not in words:
                words += told(manager)
            while words.count("WATCHDOG=1") < 2 or "STATUS=ready" not in words:
                words += told(manager)
            engine.terminate()
            while "STOPPING=1" not in words:
                words += told(manager)
            assert engine.wait(60) == 0
        finally:
            engine.kill()
            engine.wait()
