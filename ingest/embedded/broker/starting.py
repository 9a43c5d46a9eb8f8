"""Runs the embedded broker as a process of its own, for those who get the login that was made for it."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog

from ingest.embedded.broker.listening import Place
from ingest.errors import IngestError, Misconfigured, Unavailable

USER = "ingest"
RESTARTED_AFTER_S = 0.5


class BrokerOptions(NamedTuple):
    """What the process is started with."""

    directory: Path | None = None  # where it keeps what it gave a receipt for; None: everything ends with it
    disk_bytes_max: int = 10 * 1024**3  # there; over it, publishers are refused
    producers_login_file: Path | None = None  # of those who may only send
    public: Place | None = None  # where it listens, too
    log_format: str = "console"
    log_level: str = "warning"

    def arguments(self) -> list[str]:
        kept = []
        if self.directory is not None:
            kept = ["--directory", str(self.directory), "--disk-bytes-max", str(self.disk_bytes_max)]
        if self.producers_login_file is not None:
            kept += ["--producers-login-file", str(self.producers_login_file)]
        if self.public is not None:
            kept += ["--public", self.public.address, "--public-certfile", self.public.certfile]
            kept += ["--public-keyfile", self.public.keyfile]
        return [*kept, "--log-format", self.log_format, "--log-level", self.log_level]


@contextmanager
def embedded_broker(port: int, options: BrokerOptions | None = None) -> Iterator[str]:
    """Runs the embedded broker on 127.0.0.1 (port 0: a free one), again and again if it dies; gives its URL with the login,
    which no other user of this machine gets to see.

    Raises Unavailable when the port is taken or the directory is in use.
    """
    keeper = _Keeper(options or BrokerOptions(), secrets.token_urlsafe(24))
    try:
        address = keeper.start(port)
        yield f"stomp://{USER}:{keeper.password}@{address}"
    finally:
        keeper.stop()


class _Keeper:
    """Starts the process, and another on the same port when it ends without being told to."""

    def __init__(self, options: BrokerOptions, password: str) -> None:
        self.password = password
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # who starts one looks first whether it shall

    def start(self, port: int) -> str:
        """Its HOST:PORT. Raises Unavailable or Misconfigured."""
        address = self._start(port)
        self._thread = threading.Thread(
            target=self._keep, args=(int(address.rpartition(":")[2]),), daemon=True
        )
        self._thread.start()
        return address

    def stop(self) -> None:
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None:
            _end(process)
        if self._thread is not None:
            self._thread.join()

    def _keep(self, port: int) -> None:
        log = structlog.get_logger()
        while not self._stopping.is_set():
            assert self._process is not None
            code = self._process.wait()
            if self._stopping.wait(RESTARTED_AFTER_S):
                return
            log.error("embedded_broker_died", exit_code=code, note="started again")
            try:
                self._start(port)
            except IngestError as error:
                log.warning("embedded_broker_not_started", reason=str(error))

    def _start(self, port: int) -> str:
        with self._lock:
            if self._stopping.is_set():
                return ""
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", "ingest.embedded.broker", "--port", str(port), "--with-parent",
                 "--login-file", "-", *self._options.arguments()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                text=True,
            )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{USER}:{self.password}\n")
            process.stdin.close()
        with process.stdout as stdout:
            word, _, said = stdout.readline().strip().partition(" ")
        if word != "listening":
            setting, colon, text = said.partition(": ")
            if setting.startswith("--") and colon:
                raise Misconfigured(setting, text)
            raise Unavailable(said or "the embedded broker did not start")
        return said


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
