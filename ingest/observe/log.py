"""Events: one line each on standard error, without bodies, passwords or anything that breaks a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, MutableMapping
from pathlib import PurePath
from traceback import extract_tb, format_exception
from types import TracebackType
from typing import Any, TextIO

import structlog

from ingest.core.passwords import hide_passwords
from ingest.core.printable import escape_unprintable

LOGGED_CHARACTERS_MAX = 2000  # of one value; a line must stay readable, and short of a body

_level = 0


def configure(log_format: str, level: str, *, process: str = "", stream: TextIO | None = None) -> None:
    """One line an event on standard error, for a person (console) or a machine (json)."""
    stream = stream or sys.stderr
    set_level(level)
    renderer: Any
    if resolve_format(log_format) == "json":
        renderer = structlog.processors.JSONRenderer(sort_keys=False)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)
    structlog.configure(
        processors=[
            _important_enough,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _process(process),
            _presentable,
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(_Lines(stream)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    sys.excepthook = crashed
    threading.excepthook = lambda crash: crashed(crash.exc_type, crash.exc_value, crash.exc_traceback)


def crashed(kind: type[BaseException], _: BaseException | None, traceback: TracebackType | None) -> None:
    """What an exception that nobody expected says may quote a message: where it was raised is enough to find it."""
    at = [
        f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in extract_tb(traceback)[-8:]
    ]
    structlog.get_logger().error("crashed", error=kind.__name__, at="; ".join(at))


def set_level(level: str) -> None:
    """The least important events to show, from now on: also for loggers that exist already."""
    global _level  # noqa: PLW0603  the log is one for the process
    _level = structlog.processors.NAME_TO_LEVEL[level]


def _important_enough(_: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if structlog.processors.NAME_TO_LEVEL[method] < _level:
        raise structlog.DropEvent
    return event


def resolve_format(log_format: str) -> str:
    """What "auto" means here and now."""
    if log_format == "auto":
        return "console" if sys.stderr.isatty() else "json"
    return log_format


class _Lines:
    """A stream that may break: a log reader that left, or a full disk, does not end the engine."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _process(name: str) -> Callable[[Any, str, Any], Any]:
    def add(_: Any, __: str, event: Any) -> Any:
        if name:
            event["process"] = name
        return event

    return add


def _presentable(_: Any, __: str, event: Any) -> Any:
    """No password and no body in a line, and nothing that breaks it or speaks to the terminal."""
    for key, value in event.items():
        event[key] = _harmless(value)
    return event


def _harmless(value: Any) -> Any:
    match value:
        case str():
            return escape_unprintable(hide_passwords(value)[:LOGGED_CHARACTERS_MAX])
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case dict():
            return {_harmless(str(key)): _harmless(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_harmless(inner) for inner in value]
        case None | bool() | int() | float():
            return value
    return _harmless(str(value))


def show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For ``--debug``: all that is known, though its message may be a stranger's text."""
    lines = "".join(format_exception(kind, error, trace)).splitlines()
    with contextlib.suppress(OSError):
        sys.stderr.write("".join(f"{_harmless(line)}\n" for line in lines))
