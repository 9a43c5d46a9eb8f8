"""Signals as bytes on a socket, so that one selector waits for everything."""

from __future__ import annotations

import selectors
import signal
import socket
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
