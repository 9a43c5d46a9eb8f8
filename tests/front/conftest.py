"""A broker, a database and ``ingest serve`` before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.store.connection import Connection
from lab.front import Front
from lab.servers import embedded_broker
from tests.store.test_query import fleet

Serve = Callable[..., Front]


@pytest.fixture
def broker() -> Iterator[str]:
    with embedded_broker() as url:
        yield url


@pytest.fixture
def serve(broker: str, database: str, tmp_path: Path) -> Iterator[Serve]:
    """Starts one with more flags; the later of the same name counts."""
    begun: list[Front] = []

    def begin(*flags: str) -> Front:
        front = Front(database, broker, *flags, log=tmp_path / f"serve-{len(begun)}.log")
        begun.append(front)
        front.wait_ready()
        return front

    yield begin
    for front in begun:
        front.stop()


@pytest.fixture
def front(serve: Serve, connection: Connection) -> Front:
    """Over the three nodes of the store's tests."""
    fleet(connection)
    return serve()
