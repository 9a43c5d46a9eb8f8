"""The engine's fixtures, and whether the long form is wanted: INGEST_TEST_FAULTS_LONG=1 (``make faults-long``)."""

from __future__ import annotations

import os

import pytest

from tests.engine.conftest import broker, start

__all__ = ["broker", "start"]

LONG = bool(os.environ.get("INGEST_TEST_FAULTS_LONG"))


@pytest.fixture
def long() -> bool:
    return LONG
