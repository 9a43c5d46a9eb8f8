"""A broker of its own for each test, and engines that end with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.engine import Engine, Start
from lab.servers import embedded_broker


@pytest.fixture
def broker() -> Iterator[str]:
    with embedded_broker() as url:
        yield url


@pytest.fixture
def start(broker: str, database: str, tmp_path: Path) -> Iterator[Start]:
    engines: list[Engine] = []

    def begin(*flags: str) -> Engine:
        engine = Engine(broker, database, *flags, log=tmp_path / "log")
        engines.append(engine)
        engine.wait_ready()
        return engine

    yield begin
    for engine in engines:
        engine.kill()
