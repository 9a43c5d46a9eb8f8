"""The embedded PostgreSQL stands in where no database is named, and answers its user (and root) alone.

Theory of operation. The programs are those of the extra ``embedded`` or of the system; everything else is the same
for both. There is no TCP. The socket lies in a private directory, and a password is demanded all the same: it
stands in a file of the data directory that only we can read, and reaches libpq by that file's name.
PostgreSQL refuses to run as root, so root becomes the user to whom the files belong. That user needs no way
to them: its programs inherit the open directory, and call it ``/proc/self/fd/N``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ingest.config.directories import make_private
from ingest.core.passwords import HIDDEN
from ingest.embedded.keeping import kept_running
from ingest.embedded.postmaster import Postmaster
from ingest.embedded.programs import runnable_programs, user_for
from ingest.errors import Misconfigured, Unavailable

SUPERUSER = "postgres"
PASSWORD_FILE = "ingest.pgpass"
HBA_FILE = "ingest_hba.conf"
HBA = "local all all scram-sha-256\n"  # no other way in, whatever the cluster's own pg_hba.conf says
COLLECTOR = "collector"  # the role that may come over TCP, where there is a port
HBA_TCP = f"host postgres {COLLECTOR} 127.0.0.1/32 scram-sha-256\n"
SOCKET_PATH_BYTES_MAX = 107  # unix(7): sun_path has 108 with its end
SOCKET_NAME = ".s.PGSQL.65535"  # the longest
LOCK_PATIENCE_S = 5.0  # for a server whose ingest was killed to end, before it counts as in use
# Should this process be killed: an immediate shutdown, postgres(1). PostgreSQL 18 that is told to stop fast while it recovers
# may wait for ever, and would keep its successor from these files.
ENDS_WITH_US = ("setpriv", "--pdeathsig", "QUIT")
# What the operator has in the environment (passwords among it) is none of the server's business.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


class Cluster(NamedTuple):
    """The files, whose they are, and how to run a program on them."""

    directory: Path
    fd: int  # the same, open and locked
    data: str  # the same, as its programs call it
    privileges: Sequence[str]  # before each command line: what makes it another user's
    owner: tuple[int, int]
    programs: Path
    port: int = 0  # on 127.0.0.1; 0: no TCP

    def command(self, program: str, *arguments: str) -> list[str]:
        return [*self.privileges, str(self.programs / program), *arguments]


@contextmanager
def embedded_database(directory: Path, programs: Path | None = None, port: int = 0) -> Iterator[str]:
    """Runs a PostgreSQL with its files in the directory until the end of the block, or of this process; gives its
    conninfo. Without ``programs``, those that made the files, else the extra's, else the system's. With a ``port`` the role
    COLLECTOR may come over TCP.

    Raises Misconfigured and Unavailable.
    """
    directory = _make(directory)
    with ExitStack() as stack:
        cluster = _cluster(directory, stack.enter_context(_only_one(directory)), programs)
        cluster = cluster._replace(port=port)
        if not (directory / "PG_VERSION").exists():
            _initialise(cluster)
        password_file = _password_file(cluster)
        _write_private(directory / HBA_FILE, HBA + HBA_TCP if port else HBA, cluster.owner)
        sockets = stack.enter_context(_socket_directory(cluster.owner))
        stack.enter_context(kept_running(Postmaster(cluster.directory, partial(_start, cluster, sockets))))
        yield (
            f"host={_quoted(sockets)} {f'port={port} ' if port else ''}user={SUPERUSER} dbname=postgres "
            f"passfile={_quoted(str(password_file))}"
        )


def _cluster(directory: Path, fd: int, programs: Path | None) -> Cluster:
    """Raises Misconfigured where nobody can run these files."""
    found = directory.stat()
    if os.geteuid() != 0:
        if found.st_uid != os.geteuid():
            raise Misconfigured(
                "--data-dir",
                f"{directory} belongs to another user (uid {found.st_uid}): name one of your own",
            )
        return Cluster(
            directory,
            fd,
            str(directory),
            ENDS_WITH_US,
            (os.geteuid(), os.getegid()),
            runnable_programs(directory, (), programs),
        )
    if not (directory / "PG_VERSION").exists() and any(directory.iterdir()):
        raise Misconfigured("--data-dir", f"{directory} is not empty, and is no PostgreSQL's")
    user = user_for(directory)
    owner = (user.pw_uid, user.pw_gid)
    become = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups")
    programs = runnable_programs(directory, ("setpriv", *become), programs)
    if found.st_uid != user.pw_uid:
        os.chown(directory, *owner)  # its mode stays
    privileges = (*ENDS_WITH_US, *become)
    return Cluster(directory, fd, f"/proc/self/fd/{fd}", privileges, owner, programs)


def _make(directory: Path) -> Path:
    try:
        directory = Path(os.path.abspath(directory))
        make_private(directory)
        os.listdir(directory)
    except OSError as error:
        raise Misconfigured("--data-dir", f"cannot use {directory}: {error.strerror}") from error
    return directory


@contextmanager
def _only_one(directory: Path) -> Iterator[int]:
    """A lock on the directory itself, which ends with the last process that has it open, ours or PostgreSQL's. Nothing
    lies in a place that users share."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while not _lock(fd):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the PostgreSQL in {directory} is in use by another ingest: end that, or name another --data-dir"
                )
            time.sleep(0.05)
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Any other error: a file system without locks, where PostgreSQL's own postmaster.pid must do.
        return error.errno != errno.EWOULDBLOCK
    return True


def _initialise(cluster: Cluster) -> None:
    arguments = ("-D", cluster.data, "-U", SUPERUSER, "--auth=peer", "--encoding=UTF8", "--no-locale")
    done = _run(cluster, cluster.command("initdb", *arguments))
    if done.returncode:
        raise Unavailable(
            f"no PostgreSQL can be made in {cluster.directory}: {' '.join(done.stderr.split())}"
        )


def _password_file(cluster: Cluster) -> Path:
    """libpq's passfile for this cluster; where there is none, the superuser gets a new password."""
    file = cluster.directory / PASSWORD_FILE
    with contextlib.suppress(FileNotFoundError):
        found = file.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
            return file
    password = secrets.token_urlsafe(24)
    # Single-user mode reads a statement a line from its standard input: the password is in no command line.
    done = _run(
        cluster,
        cluster.command("postgres", "--single", "-D", cluster.data, "postgres"),
        f"SET password_encryption = 'scram-sha-256'\nALTER ROLE {SUPERUSER} PASSWORD '{password}'\n",
    )
    if done.returncode or "ERROR:" in done.stderr:
        said = " ".join(done.stderr.replace(password, HIDDEN).split())
        raise Unavailable(f"the PostgreSQL in {cluster.directory} does not start: {said}")
    _write_private(file, f"*:*:*:{SUPERUSER}:{password}\n", (os.geteuid(), os.getegid()))
    return file


def _run(cluster: Cluster, command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=text, capture_output=True, text=True, errors="replace", check=False,
        cwd="/", env=ENVIRONMENT, pass_fds=(cluster.fd,),
    )  # fmt: skip


def _write_private(file: Path, text: str, owner: tuple[int, int]) -> None:
    """Made anew, never through a link: the directory may be another user's."""
    file.unlink(missing_ok=True)
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as opened:
        os.fchown(fd, *owner)
        opened.write(text)


@contextmanager
def _socket_directory(owner: tuple[int, int]) -> Iterator[str]:
    """A directory that nobody else may enter, with a path short enough for a socket in it."""
    # A service's /tmp may be its own (PrivateTmp=), and commands look for the socket from outside.
    service = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    for place in dict.fromkeys(filter(None, (service, tempfile.gettempdir(), "/tmp", "/var/tmp"))):
        name = os.path.join(place, "ingest-postgresql-00000000", SOCKET_NAME)
        if len(os.fsencode(name)) <= SOCKET_PATH_BYTES_MAX and _may_enter(place, owner):
            break
    else:
        raise Misconfigured(
            "TMPDIR", "its path is too long for a socket, or PostgreSQL's user may not enter it"
        )
    with tempfile.TemporaryDirectory(prefix="ingest-postgresql-", dir=place) as made:  # mode 0700
        os.chown(made, *owner)
        yield made


def _may_enter(place: str, owner: tuple[int, int]) -> bool:
    uid, gid = owner
    if uid == os.geteuid():
        return os.access(place, os.W_OK | os.X_OK)
    if not os.path.isdir(place):
        return False
    for path in (Path(place).resolve(), *Path(place).resolve().parents):
        found = path.stat()
        bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH
        if not found.st_mode & bit:
            return False
    return True


def _start(cluster: Cluster, sockets: str) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": "127.0.0.1" if cluster.port else "",
        "unix_socket_directories": sockets,
        "unix_socket_permissions": "0700",
        "port": str(cluster.port or 5432),
        "jit": "off",  # a unit may forbid memory that is both written and executed; and our statements are short
        "hba_file": f"{cluster.data}/{HBA_FILE}",
    }
    arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with _log(cluster) as log:
        return subprocess.Popen(
            cluster.command("postgres", "-D", cluster.data, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=ENVIRONMENT,
            pass_fds=(cluster.fd,),
            start_new_session=True,
        )


def _log(cluster: Cluster) -> BinaryIO:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        fd = os.open(cluster.directory / "log", flags, 0o600)
    except OSError as error:
        raise Misconfigured(
            "--data-dir", f"cannot write {cluster.directory / 'log'}: {error.strerror}"
        ) from error
    return os.fdopen(fd, "ab")


def _quoted(value: str) -> str:
    """For a conninfo."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
