"""Tells systemd how the service is, where it was started by it: ready, alive, reloading, stopping.

Its protocol is a datagram of NAME=VALUE lines to the socket in NOTIFY_SOCKET (sd_notify(3)), so no library is needed. The
supervisor's own loop tells that it is alive: one that hangs is killed and started again (WatchdogSec= in the unit).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping

ALIVE_EVERY = 3  # times within WatchdogSec=, for a loop that is late now and then


class ServiceManager:
    """``environment`` loses what is meant for this process alone."""

    def __init__(
        self, environment: MutableMapping[str, str], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._now_s = now_s
        self._address = environment.pop("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        watched_pid = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        is_watched = watchdog_us.isdigit() and watched_pid == str(os.getpid())
        self._alive_every_s = int(watchdog_us) / 1e6 / ALIVE_EVERY if is_watched else 0.0
        self._told_s = float("-inf")
        self._status = ""

    def ready(self) -> None:
        self._tell("READY=1", f"MAINPID={os.getpid()}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=draining")

    def tick(self, status: str) -> None:
        """Once a second: what ``systemctl status`` shows when it changes, and that we are alive when that is due."""
        if not self._address:
            return
        words = []
        if status != self._status:
            self._status = status
            words.append(f"STATUS={status}")
        if self._alive_every_s and self._now_s() - self._told_s >= self._alive_every_s:
            self._told_s = self._now_s()
            words.append("WATCHDOG=1")
        if words:
            self._tell(*words)

    def _tell(self, *words: str) -> None:
        """A manager that is gone or busy is no reason to stop or to wait."""
        if not self._address:
            return
        text = "\n".join(word.replace("\n", " ") for word in words)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.setblocking(False)
            told.sendto(text.encode(), self._address)
