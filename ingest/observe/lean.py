"""Loads libraries without what they take along for programs unlike ours, which is 3 to 7 MiB in every process.

structlog would load rich and colorama for tracebacks and consoles that no process of ours draws, and asyncio for loggers that
nobody here makes; msgspec typing_extensions for what Python has by itself. Whoever does use one of them gets it all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType


def load_libraries() -> None:
    """For the start of a process, before anybody else imports one of them: later it changes nothing."""
    if "msgspec" not in sys.modules:
        _load("msgspec", without=["typing_extensions"])
    if "structlog" not in sys.modules:
        _postpone("asyncio")
        _load("structlog", without=["rich", "colorama"])


def _load(name: str, without: Iterable[str]) -> None:
    hidden = [other for other in without if other not in sys.modules]
    # How sys.modules says that there is none.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    import_module(name)
    for other in hidden:
        del sys.modules[other]


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
