"""Runs the embedded broker as a process of its own, for those who get the login that was made for it."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ingest.embedded.broker.listening import Place
from ingest.embedded.keeping import kept_running
from ingest.errors import Misconfigured, Unavailable

USER = "ingest"


class BrokerOptions(NamedTuple):
    """What the process is started with."""

    directory: Path | None = None  # where it keeps what it gave a receipt for; None: everything ends with it
    disk_bytes_max: int = 10 * 1024**3  # there; over it, publishers are refused
    producers_login_file: Path | None = None  # of those who may only send
    public: Place | None = None  # where it listens, too
    log_format: str = "console"
    log_level: str = "warning"
    producers_destinations: tuple[str, ...] = ()  # where they may send; none: anywhere

    def arguments(self) -> list[str]:
        kept = []
        if self.directory is not None:
            kept = ["--directory", str(self.directory), "--disk-bytes-max", str(self.disk_bytes_max)]
        if self.producers_login_file is not None:
            kept += ["--producers-login-file", str(self.producers_login_file)]
        for destination in dict.fromkeys(self.producers_destinations):
            kept.append(f"--producers-destination={destination}")
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
    broker = _Broker(options or BrokerOptions(), port)
    with kept_running(broker):
        yield f"stomp://{USER}:{broker.password}@127.0.0.1:{broker.port}"


class _Broker:
    """The program; each process after the first has the port and the login of the first."""

    name = "embedded_broker"
    stop_signal = signal.SIGTERM
    stop_timeout_s = 5.0

    def __init__(self, options: BrokerOptions, port: int) -> None:
        self.password = secrets.token_urlsafe(24)
        self.port = port
        self._options = options

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "ingest.embedded.broker", "--port", str(self.port), "--with-parent",
             "--login-file", "-", *self._options.arguments()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(f"{USER}:{self.password}\n".encode())
        return process

    def wait_until_ready(self, process: subprocess.Popen[bytes], _: Callable[[], bool]) -> None:
        """Until it has said its one line: "listening HOST:PORT", or why it does not."""
        assert process.stdout is not None
        with process.stdout as stdout:
            word, _space, said = stdout.readline().decode().strip().partition(" ")
        if word == "listening":
            self.port = int(said.rpartition(":")[2])
            return
        setting, colon, text = said.partition(": ")
        if setting.startswith("--") and colon:
            raise Misconfigured(setting, text)
        raise Unavailable(said or "the embedded broker did not start")
