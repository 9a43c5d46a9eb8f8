"""An embedded broker and engines for each test, as the engine's own tests have them."""

from __future__ import annotations

from tests.engine.conftest import broker, start

__all__ = ["broker", "start"]
