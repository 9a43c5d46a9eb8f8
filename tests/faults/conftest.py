"""The engine's fixtures, and whether the full sizes are wanted: ``--long`` (``make faults-long``)."""

from __future__ import annotations

import pytest

from tests.engine.conftest import broker, start

__all__ = ["broker", "start"]


@pytest.fixture
def long(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--long"))
