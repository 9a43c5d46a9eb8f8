"""``ingest run --listen``: PuppetDB's interface as a part of one engine, on one box."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.engine import Engine, wait_for
from lab.front import Answer, ask
from lab.servers import free_port
from tests.front.test_commands import QUERY, payload

Run = Callable[..., tuple[Engine, int]]


@pytest.fixture
def run(broker: str, database: str, tmp_path: Path) -> Iterator[Run]:
    begun: list[Engine] = []

    def begin(*flags: str) -> tuple[Engine, int]:
        port = free_port()
        engine = Engine(broker, database, "--listen", f"127.0.0.1:{port}", *flags, log=tmp_path / "run.log")
        begun.append(engine)
        engine.wait_ready()
        return engine, port

    yield begin
    for engine in begun:
        engine.process.kill()
        engine.process.wait()


def fronts(engine: Engine) -> list[int]:
    """The pids of its front: one, or none."""
    found = subprocess.run(
        ["pgrep", "-P", str(engine.process.pid), "-f", "ingest.front"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(pid) for pid in found.stdout.split()]


def send(port: int) -> Answer:
    parameters = QUERY | {"secondsToWaitForCompletion": "30"}
    headers = {"Content-Type": "application/json"}
    body = json.dumps(payload()).encode()
    return ask(port, "/pdb/cmd/v1", parameters, method="POST", body=body, headers=headers)


def certnames(port: int) -> list[Any]:
    return [row["certname"] for row in ask(port, "/pdb/query/v4/nodes").json]


def test_one_command_takes_stores_and_answers(run: Run) -> None:
    """What is sent to its port is stored by its writers and answered from there; status and metrics tell of it; SIGTERM ends
    both in order."""
    engine, port = run()
    assert send(port).json["processed"] is True
    assert certnames(port) == ["n1"]
    assert engine.status()["processes"]["supervisor"]["ingest_front_up"] == 1
    engine.process.terminate()
    assert engine.process.wait(60) == 0
    with pytest.raises(ConnectionRefusedError):
        certnames(port)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_front_that_dies_is_replaced(run: Run, workers: str) -> None:
    """Killed: the engine says so, counts it, and serves again on the same port."""
    engine, port = run("--http-workers", workers)
    (before,) = fronts(engine)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: fronts(engine) not in ([], [before]), engine, "another one")
    wait_for(lambda: engine.status().get("health", {}).get("ready"), engine, "ready")
    assert certnames(port) == []
    assert engine.status()["processes"]["supervisor"]["ingest_front_restarts_total"] >= 1
    assert '"front_died"' in engine.log.read_text()


def test_none_is_left_behind_by_a_killed_engine(run: Run) -> None:
    """kill -9 of the engine ends its front too: the next one finds the port free."""
    engine, _ = run()
    (front,) = fronts(engine)
    engine.process.kill()
    engine.process.wait()
    wait_for(lambda: not Path(f"/proc/{front}").exists() or "Z" in state(front), engine, "its end")


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    ("listen", "said"),
    [("nonsense", "--listen: 'nonsense' is not HOST:PORT"), ("0.0.0.0:0", "--listen: without TLS everybody")],
)
def test_what_cannot_be_listened_on_is_said(broker: str, database: str, listen: str, said: str) -> None:
    """One line that names the setting, and no engine."""
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "run", "--database", database, "--queue-source", broker,
         "--metrics-port", "0", "--listen", listen],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
