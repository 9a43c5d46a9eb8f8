"""``--also URL``: each command that the broker has taken is passed on to a PuppetDB, for a while in which both run.

No answer waits for it. A command is put into a file and sent from there, so that a PuppetDB that is away for hours gets what it
has missed, also after a restart of ours. What has no room is counted and told; nodes send their next run anyway.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import threading
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import structlog

from ingest.config.directories import make_private, require_private
from ingest.config.settings import Config
from ingest.errors import Misconfigured, Unavailable
from ingest.front.command_rules import Command
from ingest.front.peer import Declined, Peer
from ingest.observe.seldom import Seldom

WAITING_MAX = 256  # commands on their way to the disk; their bodies are in memory or in the front's own files
WORKERS_MAX = 64  # processes, each with a directory of its own
PAUSE_S, PAUSE_S_MAX = 0.5, 30.0
TOLD_EVERY_S = 30.0
TIMEOUT_S = 60.0
STOP_S = 2.0
KEPT_MAX = 200_000  # files in one directory, and their names in memory: an hour of 10 000 nodes
SUFFIX = ".command"


class _Kept(NamedTuple):
    path: Path
    size: int


class Mirror:
    """Of one process. Raises Misconfigured."""

    def __init__(self, config: Config) -> None:
        self._peer = check_mirror(config)
        self._bytes_max = config.also_bytes_max
        self.passed = self.refused = self.dropped = 0
        self._directory, self._lock_fd = _own_directory(Path(config.data_dir) / "mirror")
        self._kept = deque(_left_behind(self._directory))
        self._kept_bytes = sum(one.size for one in self._kept)
        self._number = int(self._kept[-1].path.name.partition(".")[0]) if self._kept else 0
        self._incoming: queue.Queue[tuple[Command, bytes | memoryview] | None] = queue.Queue(WAITING_MAX)
        self._some = threading.Condition()
        self._stopping = threading.Event()
        self._dropping, self._away, self._refusing = (Seldom(TOLD_EVERY_S) for _ in range(3))
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (("keeping", self._keep_all), ("passing", self._pass_all))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        return len(self._kept) + self._incoming.qsize()

    def take(self, command: Command, payload: bytes | memoryview) -> None:
        """At once, whatever the disk and PuppetDB do. ``payload`` must not change any more."""
        try:
            self._incoming.put_nowait((command, payload))
        except queue.Full:
            self._drop("the disk is too slow")

    def close(self) -> None:
        """What is on its way to the disk gets there; the rest is sent by whoever comes after us."""
        self._incoming.put(None)
        self._threads[0].join(TIMEOUT_S)
        self._stopping.set()
        with self._some:
            self._some.notify_all()
        self._threads[1].join(STOP_S)  # what it is sending now is sent once more: that does no harm
        os.close(self._lock_fd)

    def _keep_all(self) -> None:
        while (one := self._incoming.get()) is not None:
            self._keep(*one)

    def _keep(self, command: Command, payload: bytes | memoryview) -> None:
        head = json.dumps([command.name, command.version, command.certname, command.producer_timestamp])
        size = len(head) + 1 + memoryview(payload).nbytes
        if self._kept_bytes + size > self._bytes_max or len(self._kept) >= KEPT_MAX:
            self._drop(f"{len(self._kept)} commands wait already (also_bytes_max)")
            return
        self._number += 1
        path = self._directory / f"{self._number:020d}{SUFFIX}"
        partial = path.with_suffix(".part")
        try:
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(head.encode() + b"\n")
                file.write(payload)
            partial.rename(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            self._drop(f"{self._directory}: {error.strerror}")
            return
        with self._some:
            self._kept.append(_Kept(path, size))
            self._kept_bytes += size
            self._some.notify_all()

    def _pass_all(self) -> None:
        pause_s = PAUSE_S
        while not self._stopping.is_set():
            with self._some:
                while not self._kept and not self._stopping.is_set():
                    self._some.wait()
                if self._stopping.is_set():
                    break
                one = self._kept[0]
            if self._pass(one):
                pause_s = PAUSE_S
            else:
                self._stopping.wait(pause_s)
                pause_s = min(PAUSE_S_MAX, pause_s * 2)
        self._peer.close()

    def _pass(self, one: _Kept) -> bool:
        """No: it is away, and gets it later."""
        try:
            head, _, payload = one.path.read_bytes().partition(b"\n")
            self._peer.post(_address(head), payload)
            self.passed += 1
        except Unavailable as error:
            if self._away.happened(time.monotonic()):
                structlog.get_logger().warning("mirror_away", reason=str(error), waiting=self.waiting)
            return False
        except (Declined, OSError, ValueError) as error:
            self.refused += 1
            if count := self._refusing.happened(time.monotonic()):
                structlog.get_logger().warning("mirror_refused", reason=str(error)[:300], commands=count)
        with self._some:
            self._kept.popleft()
            self._kept_bytes -= one.size
        one.path.unlink(missing_ok=True)
        return True

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        if count := self._dropping.happened(time.monotonic()):
            structlog.get_logger().error("mirror_dropped", reason=reason, commands=count, to=self._peer.name)


def check_mirror(config: Config) -> Peer:
    """Whom it is passed on to; nothing is sent yet. Raises Misconfigured."""
    return Peer(
        config.also,
        setting="--also",
        cert=config.also_ssl_cert or config.ssl_cert,
        key=config.also_ssl_key or config.ssl_key,
        ca=config.also_ssl_ca_cert or config.ssl_ca_cert,
        timeout_s=TIMEOUT_S,
    )


def _address(head: bytes) -> str:
    name, version, certname, timestamp = json.loads(head)
    parameters = {
        "command": name.replace(" ", "_"),
        "version": version,
        "certname": certname,
        "producer-timestamp": timestamp,
    }
    return f"/pdb/cmd/v1?{urlencode(parameters)}"


def _own_directory(base: Path) -> tuple[Path, int]:
    """The first that no other process has, and what holds it. Raises Misconfigured."""
    try:
        for number in range(WORKERS_MAX):
            directory = base / str(number)
            make_private(directory)
            require_private(directory)  # what waits there is whole commands
            fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                continue
            return directory, fd
    except OSError as error:
        raise Misconfigured("--data-dir", f"{error.filename}: {error.strerror}") from error
    raise Misconfigured("--data-dir", f"{WORKERS_MAX} processes have a directory in {base} already")


def _left_behind(directory: Path) -> list[_Kept]:
    for partial in directory.glob("*.part"):
        partial.unlink(missing_ok=True)
    return [_Kept(path, path.stat().st_size) for path in sorted(directory.glob(f"*{SUFFIX}"))]
