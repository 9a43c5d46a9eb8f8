"""The real command, as a person would start it, with hands on its process tree."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ingest.ipc.names import WRITER, kind_of
from lab.servers import free_port

# Starts an engine against the test's own broker and database, with more flags.
Start = Callable[..., "Engine"]
SETTLED = ("stored", "unchanged", "stale", "superseded", "quarantined")


class Engine:
    """``ingest run`` against a given broker and database."""

    def __init__(
        self,
        broker: str,
        database: str,
        *flags: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
        through: Sequence[str] = (),  # a program that becomes it, such as prlimit
        tree: Path | None = None,  # of another revision, whose program it is
    ) -> None:
        self.port = free_port()
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*through, sys.executable, "-m", "ingest", "run", "--queue-source", broker,
                 *(("--database", database) if database else ()),
                 "--metrics-port", str(self.port), "--log-format", "json", *flags],
                stderr=file, cwd=tree,
                env=os.environ | {"INGEST_GC_INTERVAL_S": "0"} | dict(environment or {})
                | ({"PYTHONPATH": str(tree)} if tree else {}),
            )  # fmt: skip

    def status(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status.json", timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            return {}

    def wait_ready(self) -> None:
        wait_for(lambda: self.status().get("health", {}).get("ready"), self, "ready")

    def settled(self) -> dict[str, float]:
        receiver = self.status().get("processes", {}).get("receiver", {})
        return {name: receiver.get(name, 0) for name in SETTLED}

    def written(self, metric: str) -> float:
        """The sum of a writers' metric."""
        processes = self.status()["processes"]
        return float(sum(its[metric] for name, its in processes.items() if kind_of(name) == WRITER))

    def wait_settled(self, messages: int) -> dict[str, float]:
        wait_for(lambda: sum(self.settled().values()) >= messages, self, f"{messages} settled")
        return self.settled()

    def children(self) -> dict[str, int]:
        """Name and pid of each child of ours."""
        found = {}
        for pid in _children_of(self.process.pid):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended
            if b"ingest.engine.child" in words:
                found[words[words.index(b"ingest.engine.child") + 1].decode()] = pid
        return found

    def stop(self, timeout_s: float = 40) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def wait_for(condition: Callable[[], Any], engine: Engine, what: str, timeout_s: float = 60) -> None:
    """Until the condition holds; fails with the engine's log when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, (
            f"not {what}: {engine.settled()}\n{engine.log.read_text()[-4000:]}"
        )
        time.sleep(0.05)


def _children_of(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def publish(broker: str, *bodies: bytes, headers: dict[str, str] | None = None) -> None:
    """Sends bodies as a producer would, with receipts."""
    from ingest.config.loading import load
    from ingest.transport.publisher import Publisher

    publisher = Publisher(load({"queue_source": broker}, {}).config)
    try:
        assert publisher.publish((body, headers or {}) for body in bodies) == len(bodies)
    finally:
        publisher.close()
