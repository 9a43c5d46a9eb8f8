"""The embedded parts start, work, say what is missing, and leave nothing running."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from ingest.embedded.broker.starting import embedded_broker
from ingest.embedded.postgresql import embedded_database
from ingest.embedded.programs import WHEEL, system_programs
from ingest.errors import Misconfigured, Unavailable

PROGRAMS = system_programs()
needs_postgresql = pytest.mark.skipif(PROGRAMS is None, reason="the system has no PostgreSQL installed")


def _postmaster(directory: Path) -> int:
    return int((directory / "postmaster.pid").read_text().split()[0])


def _sockets(conninfo: str) -> Path:
    return Path(conninfo.split()[0].removeprefix("host=").strip("'"))


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "share" / "postgresql"


@needs_postgresql
def test_the_systems_postgresql_serves_and_keeps_its_data(directory: Path) -> None:
    """Started twice in one directory, the second one has what the first one stored; both end."""
    assert PROGRAMS is not None
    for statement, expected in (("CREATE TABLE kept AS SELECT 42 AS n", None), ("SELECT n FROM kept", (42,))):
        with embedded_database(directory, PROGRAMS) as conninfo:
            pid = _postmaster(directory)
            with psycopg.connect(conninfo) as connection:
                cursor = connection.execute(statement)
                if expected is not None:
                    assert cursor.fetchone() == expected
        assert not _runs(pid)
        assert not _sockets(conninfo).exists()


@needs_postgresql
def test_the_systems_postgresql_ends_with_whoever_started_it(directory: Path) -> None:
    """kill -9 of the engine leaves no server behind, and the next one starts on the same files."""
    assert PROGRAMS is not None
    script = (
        "import signal, sys\nfrom pathlib import Path\nfrom ingest.embedded.postgresql import embedded_database\n"
        "with embedded_database(Path(sys.argv[1]), Path(sys.argv[2])) as conninfo:\n"
        "    print(conninfo, flush=True)\n    signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, directory, PROGRAMS], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        sockets = _sockets(process.stdout.readline())
        pid = _postmaster(directory)
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while _runs(pid):
        assert time.monotonic() < deadline, "PostgreSQL still runs"
        time.sleep(0.02)
    sockets.rmdir()  # all that is left, and empty
    with embedded_database(directory, PROGRAMS):
        pass


@needs_postgresql
def test_a_killed_server_is_started_again(directory: Path) -> None:
    """kill -9 of PostgreSQL's first process: what was committed is there, under the same conninfo; the end ends it."""
    assert PROGRAMS is not None
    with embedded_database(directory, PROGRAMS) as conninfo:
        with psycopg.connect(conninfo) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        for _ in range(2):
            pid = _postmaster(directory)
            os.kill(pid, signal.SIGKILL)
            assert _asked(conninfo, "SELECT n FROM kept", pid, directory) == (42,)
        pid = _postmaster(directory)
    assert not _runs(pid)


def _asked(conninfo: str, statement: str, before: int, directory: Path) -> object:
    """Of the server's successor."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with psycopg.connect(conninfo) as connection:
                found = connection.execute(statement).fetchone()
            if _postmaster(directory) != before:
                return found
        except (psycopg.OperationalError, OSError, IndexError):
            pass
        assert time.monotonic() < deadline, "PostgreSQL does not come back"
        time.sleep(0.05)


@needs_postgresql
def test_files_of_another_version_are_one_clear_line(directory: Path) -> None:
    """A directory that this PostgreSQL cannot use is named, with PostgreSQL's own reason."""
    assert PROGRAMS is not None
    with embedded_database(directory, PROGRAMS):
        pass
    (directory / "PG_VERSION").write_text("9\n")
    with (
        pytest.raises(Unavailable, match=re.escape(str(directory)) + r".*not compatible"),
        embedded_database(directory, PROGRAMS),
    ):
        pass


def test_a_data_dir_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    """A file in the way: the line names --data-dir."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(Misconfigured, match="--data-dir"),
        embedded_database(tmp_path / "file" / "postgresql"),
    ):
        pass


def test_a_taken_port_is_one_clear_line() -> None:
    """The second embedded broker on a port says so."""
    with embedded_broker(0) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(Unavailable, match=str(port)), embedded_broker(port):
            pass


@needs_postgresql
def test_without_the_wheel_the_systems_postgresql_is_taken(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    """The extra [embedded] is one way, a package of the system the other."""
    monkeypatch.setitem(sys.modules, WHEEL, None)  # what import finds as missing
    with embedded_database(directory) as conninfo, psycopg.connect(conninfo) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
