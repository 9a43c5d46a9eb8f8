"""A process of the tree as its supervisor sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

import msgspec

from ingest.config.settings import Config
from ingest.core.delivery.restarts import Restarts
from ingest.core.delivery.stuck import Stuck
from ingest.ipc.control import ParentChannel
from ingest.ipc.names import DECODER, RECEIVER, WRITER, kind_of


class ChildProcess:
    """One process of the tree and its successive incarnations."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = kind_of(name)
        self.incarnation = 0
        self.restarts = Restarts()
        self.stuck = Stuck()
        self.retires_because: str | None = None  # it said that it ends, to be replaced
        self.control: ParentChannel | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1

    def start(self, config: Config) -> None:
        self.incarnation += 1
        self.restarts.started(time.monotonic())
        self.stuck = Stuck()
        self.retires_because = None
        self.control = ParentChannel()
        fd = self.control.child.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ingest.engine.child", self.name, str(fd), str(os.getpid())],
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for the supervisor
        )
        self.control.child.close()
        self.control.connection.send_bytes(msgspec.msgpack.encode(config))
        self.pidfd = os.pidfd_open(self.process.pid)

    def wait_or_kill(self, deadline_s: float) -> None:
        if self.process is not None:
            try:
                self.process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill()

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def is_stopped(self) -> bool:
        """Somebody sent it SIGSTOP, and nobody SIGCONT since."""
        if self.process is None:
            return False
        try:
            flags = os.WSTOPPED | os.WNOHANG | os.WNOWAIT  # WNOWAIT: the next look finds it stopped too
            return os.waitid(os.P_PID, self.process.pid, flags) is not None
        except ChildProcessError:  # it has just ended
            return False

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def forget(self) -> None:
        """After its end: closes what the supervisor kept of it."""
        if self.process is not None:
            self.process.wait()
            os.close(self.pidfd)
            self.process = None
        if self.control is not None:
            self.control.close()
            self.control = None


def neighbours(children: Iterable[ChildProcess]) -> Iterator[tuple[ChildProcess, ChildProcess]]:
    """Who sends to whom."""
    by_kind: dict[str, list[ChildProcess]] = {RECEIVER: [], DECODER: [], WRITER: []}
    for child in children:
        by_kind[child.kind].append(child)
    (receiver,) = by_kind[RECEIVER]
    for decoder in by_kind[DECODER]:
        yield receiver, decoder
        yield decoder, receiver
        for writer in by_kind[WRITER]:
            yield decoder, writer
    for writer in by_kind[WRITER]:
        yield writer, receiver
