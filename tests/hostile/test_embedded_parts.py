"""The embedded parts belong to their user: nobody else on the machine gets in, and what they need is private."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ingest.config.loading import load
from ingest.core.passwords import HIDDEN
from ingest.embedded.broker.segments import lock_directory
from ingest.embedded.broker.starting import embedded_broker
from ingest.embedded.postgresql import HBA_FILE, PASSWORD_FILE, embedded_database
from ingest.embedded.programs import runnable_programs, system_programs
from ingest.errors import Misconfigured, Unavailable
from ingest.transport.publisher import Publisher
from lab.engine import publish

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another local user")
REPOSITORY = Path(__file__).parent.parent.parent


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def postmaster(directory: Path) -> psutil.Process:
    return psutil.Process(int((directory / "postmaster.pid").read_text().split()[0]))


def host_of(conninfo: str) -> Path:
    return Path(str(conninfo_to_dict(conninfo)["host"]))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may enter, as /srv is: what is private below it is so by itself."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-place-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


# PostgreSQL


@pytest.mark.parametrize("length", [0, 40, 100, 200])
def test_the_database_wants_its_password_and_no_network(place: Path, length: int) -> None:
    """However long the path of its data: a private socket, a password, a private file for that, no TCP."""
    directory = place / ("x" * length or "short") / "postgresql"
    with embedded_database(directory) as conninfo:
        with psycopg.connect(conninfo) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("postgres",)
        sockets = host_of(conninfo)
        assert mode(sockets) == 0o700
        assert mode(sockets / ".s.PGSQL.5432") == 0o700
        assert mode(directory) == 0o700
        password_file = directory / PASSWORD_FILE
        assert mode(password_file) == 0o600
        assert password_file.stat().st_uid == os.geteuid()
        for wrong in ("/dev/null", str(place / "nowhere")):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(make_conninfo(conninfo, passfile=wrong))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(make_conninfo(conninfo, password="postgres"))
        assert postmaster(directory).net_connections(kind="inet") == []
    assert not sockets.exists()


def test_the_password_stands_in_no_command_line_no_log_and_no_conninfo(place: Path) -> None:
    """Whoever lists processes or reads the log does not learn it, nor does the server get our environment."""
    directory = place / "postgresql"
    os.environ["INGEST_TEST_SECRET"] = "geheim"
    try:
        with embedded_database(directory) as conninfo:
            password = (directory / PASSWORD_FILE).read_text().strip().rpartition(":")[2]
            assert len(password) > 20
            assert password not in conninfo
            server = postmaster(directory)
            for process in (server, *server.children(recursive=True)):
                assert password not in " ".join(process.cmdline())
            assert "INGEST_TEST_SECRET" not in server.environ()
            with psycopg.connect(conninfo) as connection, contextlib.suppress(psycopg.Error):
                connection.execute("SELECT broken")
            assert password not in (directory / "log").read_text()
    finally:
        del os.environ["INGEST_TEST_SECRET"]


def test_a_database_of_the_version_before_gets_a_password_and_keeps_its_data(place: Path) -> None:
    """Made with "trust" and without a password file: taken over as it is, and closed."""
    directory = place / "postgresql"
    with embedded_database(directory) as conninfo, psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        connection.execute("ALTER ROLE postgres PASSWORD NULL")
    (directory / PASSWORD_FILE).unlink()
    (directory / HBA_FILE).unlink()
    (directory / "pg_hba.conf").write_text("local all all trust\nhost all all 0.0.0.0/0 trust\n")
    with (directory / "postgresql.conf").open("a") as file:
        file.write("listen_addresses = '127.0.0.1'\nport = 5599\nunix_socket_permissions = 0777\n")
    with embedded_database(directory) as conninfo:
        with psycopg.connect(conninfo) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (42,)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(make_conninfo(conninfo, passfile="/dev/null"))
        assert postmaster(directory).net_connections(kind="inet") == []
        assert mode(host_of(conninfo) / ".s.PGSQL.5432") == 0o700


@pytest.mark.parametrize("spoilt", ["readable", "link", "empty-handed"])
def test_a_password_file_that_others_had_is_made_anew(place: Path, spoilt: str) -> None:
    """Readable by others, or a link to somewhere: a new password, a new file, and nothing is written through the link."""
    directory = place / "postgresql"
    with embedded_database(directory):
        pass
    file = directory / PASSWORD_FILE
    before = file.read_text()
    other = place / "other"
    other.write_text("untouched")
    if spoilt == "readable":
        file.chmod(0o644)
    else:
        file.unlink()
        if spoilt == "link":
            file.symlink_to(other)
    with embedded_database(directory) as conninfo:
        psycopg.connect(conninfo).close()
        assert file.read_text() != before
        assert mode(file) == 0o600
        assert not file.is_symlink()
    assert other.read_text() == "untouched"


def test_the_log_is_not_written_through_a_link(place: Path) -> None:
    """A link in place of the log is refused with one line that names it."""
    directory = place / "postgresql"
    with embedded_database(directory):
        pass
    (directory / "log").unlink()
    (directory / "log").symlink_to(place / "elsewhere")
    with pytest.raises(Misconfigured, match="log"), embedded_database(directory):
        pass
    assert not (place / "elsewhere").exists()


def test_a_second_one_in_the_same_directory_is_one_clear_line(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that the directory is in use; the first one goes on."""
    monkeypatch.setattr("ingest.embedded.postgresql.LOCK_PATIENCE_S", 0.2)
    with embedded_database(place / "postgresql") as conninfo:
        with pytest.raises(Unavailable, match="in use"), embedded_database(place / "postgresql"):
            pass
        psycopg.connect(conninfo).close()


def test_quotes_and_spaces_in_a_path_are_no_matter(place: Path) -> None:
    """The conninfo is quoted as libpq wants it."""
    with embedded_database(place / "it's a \\ path" / "postgresql") as conninfo:
        psycopg.connect(conninfo).close()


def test_a_directory_for_temporary_files_with_a_long_path_is_no_matter(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket's path has 107 bytes: another private directory is found."""
    deep = place / ("t" * 120)
    deep.mkdir(mode=0o755)
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with embedded_database(place / "postgresql") as conninfo:
        psycopg.connect(conninfo).close()
        assert mode(host_of(conninfo)) == 0o700


@as_root
def test_another_local_user_does_not_get_in(place: Path) -> None:
    """Neither into the socket's directory nor to the data nor to the password."""
    directory = place / ("y" * 100) / "postgresql"
    psql = runnable_programs(directory, NOBODY, None) / "psql"
    with embedded_database(directory) as conninfo:
        given = [psql, "-w", "-h", host_of(conninfo), "-U", "postgres", "-c", "SELECT 1"]
        done = subprocess.run([*NOBODY, *given], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode != 0
        assert "Permission denied" in done.stderr
        for file in (directory, directory / PASSWORD_FILE, directory / "log"):
            assert subprocess.run([*NOBODY, "test", "-r", file], check=False).returncode != 0


@as_root
@pytest.mark.parametrize("made", ["by root", "by us", "not yet"])
@pytest.mark.parametrize("programs", ["default", "system"])
def test_root_changes_no_mode_and_gives_only_the_data_away(place: Path, made: str, programs: str) -> None:
    """In a private directory below a private directory it works, and both are as private as before."""
    private = place / "private"
    private.mkdir(mode=0o700)
    directory = private / "postgresql"
    chosen = system_programs() if programs == "system" else None
    if programs == "system" and chosen is None:
        pytest.skip("the system has no PostgreSQL installed")
    if made != "not yet":
        directory.mkdir(mode=0o700)
    if made == "by us":
        with embedded_database(directory, chosen):
            pass
    before = (private.stat().st_uid, mode(private), mode(place))
    with embedded_database(directory, chosen) as conninfo, psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
        connection.commit()
        connection.autocommit = True
        connection.execute("CHECKPOINT")
        owner = directory.stat().st_uid
        assert owner != 0
        assert postmaster(directory).uids().real == owner
        assert (private.stat().st_uid, mode(private), mode(place)) == before
        assert mode(directory) == 0o700
    assert mode(directory) == 0o700


@as_root
def test_root_gives_away_no_directory_that_holds_anything_else(place: Path) -> None:
    """Somebody's files are not PostgreSQL's: one line, and the owner stays."""
    directory = place / "home"
    directory.mkdir()
    (directory / "letter").touch()
    with pytest.raises(Misconfigured, match="not empty"), embedded_database(directory):
        pass
    assert directory.stat().st_uid == 0


@as_root
def test_the_owner_of_the_files_is_whom_root_becomes(place: Path) -> None:
    """Files that another user's PostgreSQL made stay that user's."""
    directory = place / "postgresql"
    directory.mkdir(mode=0o700)
    os.chown(directory, 1, 1)  # daemon
    with embedded_database(directory) as conninfo:
        psycopg.connect(conninfo).close()
        assert postmaster(directory).uids().real == 1
    assert directory.stat().st_uid == 1


@as_root
def test_programs_that_their_user_may_not_run_are_one_clear_line(place: Path) -> None:
    """A wheel in root's closed home directory is named; nothing is opened to anybody."""
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    (closed / "postgres").write_text("#!/bin/sh\n")
    (closed / "postgres").chmod(0o755)
    with pytest.raises(Misconfigured, match=str(closed)), embedded_database(place / "postgresql", closed):
        pass
    assert mode(closed) == 0o700


@as_root
def test_the_directory_of_another_user_is_one_clear_line(place: Path) -> None:
    """Whoever is not root and not the owner is told so."""
    theirs = place / "theirs"
    theirs.mkdir(mode=0o755)
    script = (
        "import sys\nfrom pathlib import Path\nfrom ingest.embedded.postgresql import embedded_database\n"
        "with embedded_database(Path(sys.argv[1])):\n    pass\n"
    )
    packages = str(Path(msgspec_file()).parent.parent)
    done = subprocess.run(
        [*NOBODY, "/usr/bin/python3", "-c", script, theirs],
        capture_output=True, text=True, check=False, cwd="/",
        env={"PYTHONPATH": f"{REPOSITORY}:{packages}", "PATH": os.defpath},
    )  # fmt: skip
    assert "belongs to another user" in done.stderr.splitlines()[-1]
    assert list(theirs.iterdir()) == []


def msgspec_file() -> str:
    import msgspec

    return str(msgspec.__file__)


# The broker


def test_the_broker_lets_only_its_login_in(tmp_path: Path) -> None:
    """A random password each time; whoever has none, or another one, is refused with an ERROR."""
    with embedded_broker(0) as url, embedded_broker(0) as other:
        password = url.split(":")[2].partition("@")[0]
        assert len(password) > 20
        assert password != other.split(":")[2].partition("@")[0]
        publish(url, b"{}")
        address = url.rpartition("@")[2]
        for login in ("", "ingest:wrong@", "ingest:@", f"guest:{password}@", f"ingest:{password}x@"):
            with pytest.raises(Misconfigured, match="refused"):
                Publisher(load({"queue_source": f"stomp://{login}{address}"}, {}).config)


@pytest.mark.parametrize("spoilt", ["open", "foreign"])
def test_a_journal_in_a_directory_that_others_have_is_one_clear_line(place: Path, spoilt: str) -> None:
    """It holds whole messages: who made the directory first, or may write into it, would have them."""
    (place / "broker").mkdir()
    if spoilt == "open":
        (place / "broker").chmod(0o777)
    elif os.geteuid() == 0:
        os.chown(place / "broker", 65534, 65534)
    else:
        (place / "broker").rmdir()
        (place / "broker").symlink_to("/")
    with pytest.raises(Misconfigured, match=r"--data-dir: cannot use .*(others may write|belongs to)"):
        lock_directory(place / "broker")


def test_the_brokers_password_stands_in_no_command_line_and_no_environment() -> None:
    """It went to the process over its standard input."""
    with embedded_broker(0) as url:
        password = url.split(":")[2].partition("@")[0]
        brokers = [
            child
            for child in psutil.Process().children(recursive=True)
            if "ingest.embedded.broker" in child.cmdline()
        ]
        assert brokers
        for broker in brokers:
            assert password not in " ".join(broker.cmdline())
            assert password not in str(broker.environ())


def test_strangers_cannot_fill_the_log_or_stop_the_broker(capfd: pytest.CaptureFixture[str]) -> None:
    """Thousands of refused logins are a few lines, and the broker serves its user all the while."""
    import socket

    with embedded_broker(0) as url:
        host, _, port = url.rpartition("@")[2].partition(":")
        for _ in range(2000):
            with socket.create_connection((host, int(port)), timeout=10) as opened:
                opened.sendall(b"CONNECT\naccept-version:1.2\nhost:/\nlogin:x\npasscode:\x1b[2J\n\n\0")
                assert opened.recv(65536).startswith(b"ERROR")
        publish(url, b"{}")
    said = capfd.readouterr().err
    assert 1 <= said.count("login refused") <= 45
    assert HIDDEN not in said
    assert "\x1b" not in said


def test_an_engine_with_both_parts_keeps_what_it_has_to_itself(place: Path) -> None:
    """``ingest run`` with nothing configured: no password in any command line of its tree, nor in its log; and whatever the
    umask is, others read and write nothing that it makes."""
    from lab.servers import free_port

    port = free_port()
    with (place / "log").open("wb") as log:
        engine = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(port), "run", "--data-dir", str(place / "data"),
             "--metrics-host", f"unix:{place / 'metrics'}", "--workers", "1", "--writers", "1"],
            stderr=log, cwd=place, umask=0,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "RUNTIME_DIRECTORY": str(place / "runtime")},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while b'"running"' not in (place / "log").read_bytes():
            assert engine.poll() is None, (place / "log").read_text()
            assert time.monotonic() < deadline, (place / "log").read_text()
            time.sleep(0.05)
        running = place / "runtime" / "main.engine"
        assert mode(running) == 0o600
        assert mode(running.parent) == 0o700
        url = json.loads(running.read_text())["queue_source"]
        secrets = [
            url.split(":")[2].partition("@")[0],
            (place / "data" / "postgresql" / PASSWORD_FILE).read_text().strip().rpartition(":")[2],
        ]
        tree = [psutil.Process(engine.pid), *psutil.Process(engine.pid).children(recursive=True)]
        assert len(tree) >= 6
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                assert not [secret for secret in secrets if secret in " ".join(process.cmdline())]
                assert not [secret for secret in secrets if secret in str(process.environ())]
        publish(url, b'{"name": "a", "resources": [], "edges": []}')
        assert mode(place / "metrics") == 0o660
        made = [place / "data", *(place / "data").rglob("*"), place / "runtime"]
        assert not [path for path in made if mode(path) & stat.S_IWOTH]
        assert not [path for path in made if path.is_file() and mode(path) & stat.S_IROTH]
    finally:
        engine.terminate()
        assert engine.wait(60) == 0
    said = (place / "log").read_text()
    assert not [secret for secret in secrets if secret in said]
    assert not running.exists()


# The engine takes STOMP's own port for the embedded broker; a test may not.
_RUN = """
import sys
from ingest.engine import run
port = int(sys.argv.pop(1))
start = run.embedded_broker
run.embedded_broker = lambda _, *given, **named: start(port, *given, **named)
from ingest.cli.main import main
main()
"""
