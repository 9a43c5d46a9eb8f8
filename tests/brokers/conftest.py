"""Each kind of broker once for all tests, started when a test first wants it; a queue of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.brokers import BROKERS, KINDS, Broker
from lab.certificates import Certificates
from lab.engine import Engine, Start

_numbers = itertools.count()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def running(certificates: Certificates) -> Iterator[Callable[[str], Broker]]:
    """Gives the broker of a name, up and running; skips where it is not installed."""
    made: dict[str, Broker] = {}

    def get(name: str) -> Broker:
        kind = KINDS[name]
        if reason := kind.missing():
            pytest.skip(reason)
        if name not in made:
            made[name] = kind(certificates)
        if made[name].process is None:
            made[name].start()
        return made[name]

    yield get
    for broker in made.values():
        broker.remove()


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, running: Callable[[str], Broker]) -> Broker:
    return running(request.param)


@pytest.fixture
def queue() -> str:
    return f"/queue/test-{next(_numbers)}"


@pytest.fixture
def start(database: str, queue: str, tmp_path: Path) -> Iterator[Start]:
    """Starts an engine on the test's own queue and database: ``start(broker_urls, *flags)``."""
    engines: list[Engine] = []

    def begin(urls: str, *flags: str) -> Engine:
        log = tmp_path / f"log-{len(engines)}"
        engine = Engine(urls, database, "--destination", queue, "--workers", "2", *flags, log=log)
        engines.append(engine)
        engine.wait_ready()
        return engine

    yield begin
    for engine in engines:
        engine.kill()
