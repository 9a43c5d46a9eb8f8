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
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ingest.config.directories import make_private
from ingest.core.passwords import HIDDEN
from ingest.embedded.keeping import kept_running
from ingest.embedded.own_files import Owner, OwnFiles, peer_of, socket_directory
from ingest.embedded.postmaster import Postmaster, forget_stranger
from ingest.embedded.programs import runnable_programs, user_for
from ingest.errors import Misconfigured, Unavailable

SUPERUSER = "postgres"
PASSWORD_FILE = "ingest.pgpass"
HBA_FILE = "ingest_hba.conf"
HBA = "local all all scram-sha-256\n"  # no other way in, whatever the cluster's own pg_hba.conf says
COLLECTOR = "collector"  # the role that may come over TCP, where there is a port
HBA_TCP = f"host postgres {COLLECTOR} 127.0.0.1/32 scram-sha-256\n"
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
    owner: Owner
    programs: Path
    port: int = 0  # on 127.0.0.1; 0: no TCP

    def command(self, program: str, *arguments: str) -> list[str]:
        return [*self.privileges, str(self.programs / program), *arguments]

    @property
    def files(self) -> OwnFiles:
        return OwnFiles(self.directory, self.fd, self.owner)


@contextmanager
def embedded_database(directory: Path, programs: Path | None = None, port: int = 0) -> Iterator[str]:
    """Runs a PostgreSQL with its files in the directory until the end of the block, or of this process; gives its
    conninfo. Without ``programs``, those that made the files, else the extra's, else the system's. With a ``port`` the role
    COLLECTOR may come over TCP.

    Raises Misconfigured and Unavailable.
    """
    directory = _make(directory)
    with ExitStack() as stack:
        fd = stack.enter_context(_only_one(directory))
        _clear_half_made(directory, fd)
        cluster = _cluster(directory, fd, programs)._replace(port=port)
        if not _has(fd, "PG_VERSION"):
            _initialise(cluster)
        forget_stranger(cluster.files)
        password_file = _password_file(cluster)
        cluster.files.write(HBA_FILE, HBA + HBA_TCP if port else HBA, cluster.owner)
        sockets = stack.enter_context(socket_directory(cluster.owner))
        stack.enter_context(kept_running(Postmaster(cluster.files, partial(_start, cluster, sockets))))
        yield (
            f"host={_quoted(sockets)} {f'port={port} ' if port else ''}user={SUPERUSER} dbname=postgres "
            f"{peer_of(cluster.owner)}passfile={_quoted(str(password_file))}"
        )


def _cluster(directory: Path, fd: int, programs: Path | None) -> Cluster:
    """Raises Misconfigured where nobody can run these files."""
    found = os.fstat(fd)
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
    if not _has(fd, "PG_VERSION") and os.listdir(fd):
        raise Misconfigured("--data-dir", f"{directory} is not empty, and is no PostgreSQL's")
    user = user_for(directory, found.st_uid)
    owner = (user.pw_uid, user.pw_gid)
    become = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups")
    programs = runnable_programs(directory, ("setpriv", *become), programs)
    if found.st_uid != user.pw_uid:
        os.fchown(fd, *owner)  # its mode stays
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


def _has(fd: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=fd)
    except OSError:
        return False
    return True


def _making(directory: Path) -> Path:
    """Stands beside it as long as its files are being made."""
    return directory.with_name(f"{directory.name}.making")


def _clear_half_made(directory: Path, fd: int) -> None:
    """What initdb had made when it was killed would be taken for a PostgreSQL, and never starts."""
    if not _making(directory).is_file() or _has(fd, PASSWORD_FILE):
        return
    try:
        for name in os.listdir(fd):
            if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                shutil.rmtree(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
    except OSError as error:
        raise Misconfigured("--data-dir", f"cannot clear {directory}: {error.strerror}") from error


def _initialise(cluster: Cluster) -> None:
    arguments = ("-D", cluster.data, "-U", SUPERUSER, "--auth=peer", "--encoding=UTF8", "--no-locale")
    making = _making(cluster.directory)
    with contextlib.suppress(OSError):  # a mount of its own, in a directory that is not ours
        if not os.listdir(cluster.fd):  # else it is somebody's, and initdb refuses it
            os.close(os.open(making, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600))
    done = _run(cluster, cluster.command("initdb", *arguments))
    if done.returncode >= 0:  # killed, it has cleared nothing away
        with contextlib.suppress(OSError):
            making.unlink()
    if done.returncode:
        raise Unavailable(
            f"no PostgreSQL can be made in {cluster.directory}: {' '.join(done.stderr.split())}"
        )


def _password_file(cluster: Cluster) -> Path:
    """libpq's passfile for this cluster; where there is none, the superuser gets a new password."""
    file = cluster.directory / PASSWORD_FILE
    with contextlib.suppress(FileNotFoundError):
        found = file.lstat()
        is_ours = found.st_uid == os.geteuid() and found.st_nlink == 1 and not found.st_mode & 0o077
        if stat.S_ISREG(found.st_mode) and is_ours:
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
    cluster.files.write(PASSWORD_FILE, f"*:*:*:{SUPERUSER}:{password}\n", (os.geteuid(), os.getegid()))
    return file


def _run(cluster: Cluster, command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=text, capture_output=True, text=True, errors="replace", check=False,
        cwd="/", env=ENVIRONMENT, pass_fds=(cluster.fd,),
    )  # fmt: skip


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
    with cluster.files.append("log") as log:
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


def _quoted(value: str) -> str:
    """For a conninfo."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
