"""SIGHUP: what can change at work does, what cannot is named."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection
from lab.engine import Engine, publish, wait_for
from lab.store_model import resource, wire_body


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "engine.toml"
    file.write_text("quarantine_unnamed_max = 1\nworkers = 1\n")
    return file


def test_sighup_changes_what_can_be_changed_and_names_the_rest(
    broker: str, database: str, connection: Connection, tmp_path: Path, toml: Path
) -> None:
    """The new quarantine limit and log level hold without a restart; the number of workers needs one."""
    engine = Engine(broker, database, "--config", str(toml), log=tmp_path / "log")
    try:
        engine.wait_ready()
        children = engine.children()
        toml.write_text('quarantine_unnamed_max = 10\nlog_level = "debug"\nworkers = 3\n')
        os.kill(engine.process.pid, signal.SIGHUP)
        wait_for(lambda: events(engine, "reloaded"), engine, "reloaded")
        (reloaded,) = events(engine, "reloaded")
        assert reloaded["changed"] == ["log_level", "quarantine_unnamed_max"]
        assert reloaded["need_a_restart"] == ["workers"]
        publish(broker, b"bad", b"worse", b"worst", wire_body("n.example.com", 1, [resource("/n")]))
        assert engine.wait_settled(4)["quarantined"] == 3
        assert events(engine, "batch_stored")  # an event of the level "debug", in a child
        assert engine.children() == children
        assert engine.stop() == 0
    finally:
        engine.kill()


def test_a_wrong_setting_is_refused_and_the_old_ones_stay(
    broker: str, database: str, connection: Connection, tmp_path: Path, toml: Path
) -> None:
    """One line that names the setting; the engine goes on."""
    engine = Engine(broker, database, "--config", str(toml), log=tmp_path / "log")
    try:
        engine.wait_ready()
        toml.write_text("batch_linger_ms = -1\n")
        os.kill(engine.process.pid, signal.SIGHUP)
        wait_for(lambda: events(engine, "reload_refused"), engine, "refused")
        assert "--batch-linger-ms" in events(engine, "reload_refused")[0]["reason"]
        publish(broker, wire_body("n.example.com", 1, [resource("/n")]))
        engine.wait_settled(1)
        assert engine.stop() == 0
    finally:
        engine.kill()


def events(engine: Engine, name: str) -> list[dict[str, Any]]:
    return [line for line in engine.lines() if line.get("event") == name]
