"""Loads structlog without what it takes along for programs unlike ours, which is 3 to 7 MiB in every process.

rich draws tracebacks, and no process of ours logs one; asyncio is for loggers that nobody here makes. Who does use one of them
gets it all the same.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType


def load_structlog() -> None:
    """For the start of a process: where structlog is loaded already this changes nothing."""
    if "structlog" in sys.modules:
        return
    _postpone("asyncio")
    hides_rich = "rich" not in sys.modules
    if hides_rich:
        sys.modules["rich"] = None  # type: ignore[assignment]  how sys.modules says that there is none
    import_module("structlog")
    if hides_rich:
        del sys.modules["rich"]


def _postpone(name: str) -> None:
    """Whoever uses the module first loads it. Not importlib's LazyLoader: for that a second ``import`` is a use."""
    if name in sys.modules:
        return
    stand_in = ModuleType(name)

    def load(attribute: str) -> object:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    vars(stand_in)["__getattr__"] = load
    sys.modules[name] = stand_in
