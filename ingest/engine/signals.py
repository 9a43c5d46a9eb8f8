"""Signals: as bytes on a socket, so that one selector waits for everything; or as the end of a command."""

from __future__ import annotations

import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def signals_through(
    selector: selectors.BaseSelector, numbers: frozenset[signal.Signals], arrived: Callable[[int], None]
) -> Iterator[None]:
    """Meanwhile the selector's events of this socket call ``arrived`` with the number of each signal."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}

    def read() -> None:
        for number in reading.recv(64):
            if number in numbers:
                arrived(number)

    selector.register(reading, selectors.EVENT_READ, read)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        selector.close()
        reading.close()
        writing.close()


def leave_on_signals() -> None:
    """From now on SIGTERM, and SIGHUP where it is not ignored, end this program as an exception does: what it
    started is ended, what it made is removed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
