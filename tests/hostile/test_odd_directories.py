"""The embedded parts in directories as real machines and other users leave them: they work, or say in one line why not."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ingest.embedded.broker.producers import producers_login
from ingest.embedded.postgresql import HBA_FILE, PASSWORD_FILE, embedded_database
from ingest.errors import Misconfigured, Unavailable
from lab.servers import free_port
from tests.hostile.test_embedded_parts import NOBODY, as_root, host_of, mode, place, postmaster

__all__ = ["place"]

NOBODYS_ID = 65534
REPOSITORY = Path(__file__).parent.parent.parent
pytestmark = as_root


def works(directory: Path) -> Path:
    """A PostgreSQL there takes and keeps something; gives where its socket was."""
    with embedded_database(directory) as conninfo, psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (n integer)")
        connection.execute("INSERT INTO kept VALUES (1)")
        found = host_of(conninfo)
        assert mode(found) == 0o700
    return found


def count(directory: Path) -> int:
    with embedded_database(directory) as conninfo, psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
        assert row is not None
        return int(row[0])


@contextlib.contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


# Whose it is


def run(data_dir: str) -> tuple[int, list[str]]:
    """``ingest run`` with nothing but a data-dir; (exit code, lines on standard error). It must end by itself."""
    for _ in range(5):
        code, lines = run_once(data_dir)
        if not any("already in use" in line for line in lines):  # by another test, since it was free
            break
    return code, lines


def run_once(data_dir: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "run", "--data-dir", data_dir, "--metrics-port", str(free_port()),
         "--embedded-broker-port", str(free_port()), "--log-level", "error"],
        capture_output=True, text=True, timeout=60, check=False, cwd="/",
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()


def to_nobody(path: Path) -> None:
    os.chown(path, NOBODYS_ID, NOBODYS_ID)


def login_of(path: Path) -> None:
    path.mkdir()
    (path / "puppet-login").mkdir()


def other_inside(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        path.mkdir(mode=0o700)
        make(path / name)

    return made


# What is there before: (how it is made, what the line names)
USELESS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another user's": (lambda path: (path.mkdir(), to_nobody(path)), "belongs to the user 65534"),
    "another user's, behind a link": (
        lambda path: (path.with_name("theirs").mkdir(), to_nobody(path.with_name("theirs")), path.symlink_to("theirs")),
        "belongs to the user 65534",
    ),
    "open to all": (lambda path: (path.mkdir(), path.chmod(0o777)), "others may write into it"),
    "sticky, as /tmp": (lambda path: (path.mkdir(), path.chmod(0o1777)), "others may write into it"),
    "a file": (lambda path: path.write_text("x"), "is no directory"),
    "a pipe": (os.mkfifo, "is no directory"),
    "a link to nowhere": (lambda path: path.symlink_to("/nowhere/at/all"), "data-dir"),
    "a link to itself": (lambda path: path.symlink_to(path), "data-dir"),
    "broker is another user's": (other_inside("broker", lambda path: (path.mkdir(), to_nobody(path))), "belongs to the user"),
    "broker is a file": (other_inside("broker", lambda path: path.write_text("x")), "broker"),
    "broker is a pipe": (other_inside("broker", os.mkfifo), "broker"),
    "broker is open": (other_inside("broker", lambda path: (path.mkdir(), path.chmod(0o777))), "others may write"),
    "postgresql is a file": (other_inside("postgresql", lambda path: path.write_text("x")), "postgresql"),
    "postgresql is a pipe": (other_inside("postgresql", os.mkfifo), "postgresql"),
    "postgresql is a link to nowhere": (other_inside("postgresql", lambda path: path.symlink_to("/nowhere/x")), "postgresql"),
    "postgresql holds a letter": (
        other_inside("postgresql", lambda path: (path.mkdir(), (path / "letter").touch())), "is not empty"
    ),
    "postgresql is of a user without a name": (
        other_inside("postgresql", lambda path: (path.mkdir(), os.chown(path, 4242, 4242))), "4242"
    ),
    "puppet-login is a directory": (login_of, "puppet-login"),
    "puppet-login is empty": (other_inside("puppet-login", lambda path: path.touch()), "puppet-login"),
    "puppet-login is noise": (other_inside("puppet-login", lambda path: path.write_bytes(b"\xff\xfe")), "puppet-login"),
}  # fmt: skip


@pytest.mark.parametrize("what", USELESS)
def test_a_data_dir_of_no_use_is_one_line(place: Path, what: str) -> None:
    """Exit code 2, the setting by name, what is wrong, and whose; nothing of others is changed."""
    make, named = USELESS[what]
    make(place / "data")
    before = sorted((path, path.lstat().st_uid, path.lstat().st_mode) for path in place.rglob("*"))
    code, lines = run(str(place / "data"))
    assert (code, len(lines)) == (2, 1), lines
    assert named in lines[0]
    assert "data-dir" in lines[0]
    after = {(path, path.lstat().st_uid, path.lstat().st_mode) for path in place.rglob("*")}
    assert set(before) <= after


def test_a_data_dir_on_a_file_system_that_is_read_only_is_one_line(place: Path) -> None:
    with mounted(place / "ro", "ro,size=1m"):
        code, lines = run(str(place / "ro" / "data"))
    assert (code, len(lines)) == (2, 1), lines
    assert "Read-only file system" in lines[0]


def test_a_data_dir_on_a_full_disk_is_one_line_and_leaves_nothing_behind(place: Path) -> None:
    """Once there is room it works."""
    with mounted(place / "small", "size=8m,mode=0755"):
        with (
            pytest.raises(Unavailable, match="No space left"),
            embedded_database(place / "small" / "postgresql"),
        ):
            pass
        subprocess.run(["mount", "-o", "remount,size=200m", place / "small"], check=True)
        works(place / "small" / "postgresql")


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_whatever_the_umask_is_nobody_else_may_write_on_the_way(place: Path, umask: int) -> None:
    """Parents that are missing are made so that others may pass at most; the login is for its owner."""
    before = os.umask(umask)
    try:
        producers_login(place / "a" / "b" / "data")
    finally:
        os.umask(before)
    made = [place / "a", place / "a" / "b", place / "a" / "b" / "data"]
    assert not [path for path in made if mode(path) & 0o022]
    assert not mode(made[2]) & 0o077
    assert not mode(made[2] / "puppet-login") & 0o077


@pytest.mark.parametrize("name", ["-rf $(id) %s %n \n ünï a'b\"c", " " + "x" * 200])
def test_a_name_of_any_kind_is_no_matter(place: Path, name: str) -> None:
    works(place / name / "postgresql")


def test_a_link_of_ones_own_is_followed(place: Path) -> None:
    """A data-dir that was moved to a larger disk."""
    (place / "large").mkdir(mode=0o700)
    (place / "data").symlink_to(place / "large")
    works(place / "data" / "postgresql")
    assert (place / "large" / "postgresql" / "PG_VERSION").exists()


# What the last one left behind


@pytest.mark.parametrize("who", ["both", "initdb alone"])
def test_an_initdb_that_was_killed_is_begun_anew(place: Path, who: str) -> None:
    """At any moment: its files are no PostgreSQL, and are not taken for one."""
    directory = place / "postgresql"
    script = (
        "import sys\nfrom pathlib import Path\nfrom ingest.embedded.postgresql import embedded_database\n"
        "with embedded_database(Path(sys.argv[1])):\n    pass\n"
    )
    for seconds in (0.1, 0.4, 0.8):
        began = subprocess.Popen(
            [sys.executable, "-c", script, directory],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, start_new_session=True, stderr=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while not directory.exists() or not list(directory.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(seconds)
        ours = psutil.Process(began.pid)
        killed = ours.children(recursive=True)
        for process in [ours, *killed] if who == "both" else killed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        began.communicate()
    works(directory)
    assert count(directory) == 1
    assert not list(place.glob("*.making"))


def test_a_making_that_was_left_behind_costs_no_data(place: Path) -> None:
    """Only what has no password file yet was never a database."""
    directory = place / "postgresql"
    works(directory)
    (place / "postgresql.making").touch()
    assert count(directory) == 1


# What stands in the place of the pid file of a server that was killed.
PID_FILES: dict[str, Callable[[Path, int], object]] = {
    "of a process that lives": lambda path, pid: path.write_text(f"{pid}\n{path.parent}\n"),
    "of one in single-user mode": lambda path, pid: path.write_text(f"-{pid}\n{path.parent}\n"),
    "of one that is gone": lambda path, pid: path.write_text(f"{2**22 - 7}\n{path.parent}\n"),
    "of this very process": lambda path, pid: path.write_text(f"{os.getpid()}\n"),
    "of init": lambda path, pid: path.write_text("1\n"),
}


@pytest.mark.parametrize("what", PID_FILES)
def test_a_pid_file_that_was_left_behind_is_no_matter(place: Path, what: str) -> None:
    """Its number may be another process's of the same user by now, as in a container that starts again."""
    directory = place / "postgresql"
    works(directory)
    owner = directory.stat().st_uid
    other = subprocess.Popen(["setpriv", f"--reuid={owner}", "--clear-groups", "sleep", "600"])
    try:
        while "sleep" not in psutil.Process(other.pid).name():
            time.sleep(0.01)
        PID_FILES[what](directory / "postmaster.pid", other.pid)
        os.chown(directory / "postmaster.pid", owner, owner)
        assert count(directory) == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_server_that_somebody_started_by_hand_is_not_taken_over(place: Path) -> None:
    """It has the directory without our lock: its pid file stays, and one line says that it is there."""
    directory = place / "postgresql"
    works(directory)
    with embedded_database(directory):
        programs = Path(postmaster(directory).exe()).parent
    owner = directory.stat().st_uid
    (place / "sockets").mkdir()
    os.chown(place / "sockets", owner, owner)
    byhand = subprocess.Popen(
        ["setpriv", f"--reuid={owner}", "--clear-groups", programs / "postgres", "-D", directory,
         "-c", f"unix_socket_directories={place / 'sockets'}", "-c", "listen_addresses="],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not (directory / "postmaster.pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        with pytest.raises(Unavailable, match=r"postmaster\.pid"), embedded_database(directory):
            pass
        assert byhand.poll() is None
        assert (directory / "postmaster.pid").read_text().split()[0] == str(byhand.pid)
    finally:
        byhand.send_signal(signal.SIGINT)
        byhand.wait(30)


# What PostgreSQL's own user, or whoever became it, puts in root's way


def replaced(name: str, make: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    def work(directory: Path, victim: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            (directory / name).unlink()
        make(directory / name, victim)

    return work


def link_to(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def second_name(path: Path, victim: Path) -> None:
    os.link(victim, path)


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, _: Path) -> None:
    path.mkdir()


# (what is done, whether it is refused)
TRAPS: dict[str, tuple[Callable[[Path, Path], None], bool]] = {
    "the log is a pipe": (replaced("log", pipe), True),
    "the log is a second name of another file": (replaced("log", second_name), True),
    "the log is a directory": (replaced("log", folder), True),
    "the log is a link": (replaced("log", link_to), True),
    "the password file is a directory": (replaced(PASSWORD_FILE, folder), True),
    "the password file is a pipe": (replaced(PASSWORD_FILE, pipe), False),
    "the password file is a second name": (replaced(PASSWORD_FILE, second_name), False),
    "the rules are a link": (replaced(HBA_FILE, link_to), False),
    "the rules are a pipe": (replaced(HBA_FILE, pipe), False),
    "the rules are a directory": (replaced(HBA_FILE, folder), True),
    "the pid file is a pipe": (replaced("postmaster.pid", pipe), True),
    "the pid file is a link": (replaced("postmaster.pid", link_to), True),
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_in_the_database_leads_root_nowhere(place: Path, trap: str) -> None:
    """Nothing of root's is read, written, given away or waited for: it works, or one line says what is in the way."""
    directory = place / "postgresql"
    works(directory)
    victim = place / "victim"
    victim.write_text("root:secret\n")
    victim.chmod(0o600)
    before = victim.stat()
    do, is_refused = TRAPS[trap]
    do(directory, victim)
    if is_refused:
        with pytest.raises((Misconfigured, Unavailable)) as refused, embedded_database(directory):
            pass
        assert "\n" not in str(refused.value)
        assert "secret" not in str(refused.value)
    else:
        assert count(directory) == 1
    after = victim.stat()
    assert (after.st_uid, after.st_mode, after.st_size, after.st_mtime_ns) == (
        before.st_uid, before.st_mode, before.st_size, before.st_mtime_ns,
    )  # fmt: skip


# Directories for temporary files


def open_place(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def theirs(path: Path) -> None:
    path.mkdir()
    to_nobody(path)


def theirs_and_sticky(path: Path) -> None:
    path.mkdir()
    path.chmod(0o1777)
    to_nobody(path)


TEMPORARY: dict[str, Callable[[Path], object]] = {
    "others may rename what is in it": open_place,
    "another user's": theirs,
    "another user's, sticky": theirs_and_sticky,
    "a link to another user's": lambda path: (theirs(path.with_name("t")), path.symlink_to("t")),
    "not there": lambda path: None,
    "a file": lambda path: path.touch(),
    "closed": lambda path: path.mkdir(mode=0o700),
    "a long path": lambda path: (path / ("t" * 120)).mkdir(parents=True),
}


@pytest.mark.parametrize(
    ("variable", "what"),
    [
        *(("TMPDIR", what) for what in TEMPORARY),
        *(("RUNTIME_DIRECTORY", what) for what in list(TEMPORARY)[:2]),
    ],
)
def test_a_socket_lies_where_nobody_else_can_move_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, what: str, variable: str
) -> None:
    """Whatever the environment names; its directory is gone afterwards."""
    TEMPORARY[what](place / "temporary")
    given = place / "temporary" / ("t" * 120 if what == "a long path" else "")
    if variable == "TMPDIR":
        monkeypatch.setattr("tempfile.tempdir", str(given))
    else:
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(given))
    found = works(place / "postgresql")
    assert found.parent in (Path("/tmp"), Path("/var/tmp"), *([given] if what == "closed" else []))
    assert found.parent.stat().st_mode & stat.S_ISVTX
    assert not found.exists()


IMPOSTOR = (
    "import os, socket, sys\nopened = socket.socket(socket.AF_UNIX)\nopened.bind(sys.argv[1])\nopened.listen()\n"
    "print('ready', flush=True)\nclient, _ = opened.accept()\n"
    "client.recv(1000)\nclient.sendall(b'R\\0\\0\\0\\x08\\0\\0\\0\\x03')\nprint(client.recv(1000), flush=True)\n"
)


def test_an_impostor_at_the_socket_is_told_no_password(place: Path) -> None:
    """Somebody else's server in the place of ours asks for the password in clear: libpq hangs up before."""
    open_place(place / "shared")
    with embedded_database(place / "postgresql") as conninfo:
        path = place / "shared" / ".s.PGSQL.5432"
        other = subprocess.Popen(
            [*NOBODY, "/usr/bin/python3", "-c", IMPOSTOR, path],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            with pytest.raises(psycopg.OperationalError, match="requirepeer"):
                psycopg.connect(make_conninfo(conninfo, host=str(place / "shared")))
            assert other.communicate(timeout=10)[0] in ("", "b''\n")
        finally:
            other.kill()
            other.wait()


def test_another_user_learns_nothing_of_a_running_broker(place: Path) -> None:
    """Neither the login's file, nor the journal, nor the environment and descriptors of its process."""
    from ingest.embedded.broker.starting import BrokerOptions, embedded_broker

    data = place / "data"
    data.mkdir(mode=0o755)
    login = producers_login(data)
    with embedded_broker(0, BrokerOptions(directory=data / "broker", producers_login_file=login)) as url:
        port = int(url.rpartition(":")[2])
        broker = next(
            child
            for child in psutil.Process().children(recursive=True)
            if "ingest.embedded.broker" in child.cmdline()
        )
        proc = Path(f"/proc/{broker.pid}")
        for path in (login, data / "broker", proc / "environ", proc / "fd", proc / "mem", proc / "maps"):
            assert subprocess.run([*NOBODY, "cat", path], capture_output=True, check=False).returncode != 0, (
                path
            )
            assert (
                subprocess.run([*NOBODY, "ls", f"{path}/"], capture_output=True, check=False).returncode != 0
            ), path
        for given in ("puppet:", "puppet:puppet", "ingest:ingest", "guest:guest", ""):
            user, _, password = given.partition(":")
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(
                    f"CONNECT\naccept-version:1.2\nhost:/\nlogin:{user}\npasscode:{password}\n\n\0".encode()
                )
                assert client.recv(4096).startswith(b"ERROR")
    shutil.rmtree(data)
