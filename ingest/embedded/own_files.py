"""Files of the embedded PostgreSQL that this process reads and writes itself, in a directory that is another user's where
root starts it: by the open directory, never through a link, and nothing that could be waited for."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ingest.errors import Misconfigured

READ_BYTES_MAX = 64 * 1024
SOCKET_PATH_BYTES_MAX = 107  # unix(7): sun_path has 108 with its end
SOCKET_NAME = ".s.PGSQL.65535"  # the longest
# Neither a link nor a pipe: opened for reading or writing, that one would wait for its other end.
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Owner = tuple[int, int]  # uid, gid


class OwnFiles:
    """Of the directory that is open as ``fd``. Each of them raises Misconfigured where it cannot."""

    def __init__(self, directory: Path, fd: int, owner: Owner) -> None:
        self.directory = directory
        self.fd = fd
        self._owner = owner

    def write(self, name: str, text: str, owner: Owner) -> None:
        """Made anew, for that owner alone."""
        with self._saying("write", name):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.fd)
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600, dir_fd=self.fd)
            with os.fdopen(fd, "w", encoding="ascii") as opened:
                os.fchown(fd, *owner)
                opened.write(text)

    def append(self, name: str) -> BinaryIO:
        """Nor to a second name of somebody's file."""
        with self._saying("write", name):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _PLAIN
            fd = os.open(name, flags, 0o600, dir_fd=self.fd)
            if not self._is_own(os.fstat(fd)):
                os.close(fd)
                raise OSError(errno.EPERM, "it is no file of its own")
        return os.fdopen(fd, "ab")

    def read(self, name: str) -> str:
        """Its end; nothing where there is no such file, or none of its own."""
        try:
            fd = os.open(name, os.O_RDONLY | _PLAIN, dir_fd=self.fd)
        except OSError:
            return ""
        with os.fdopen(fd, "rb") as opened:
            found = os.fstat(fd)
            if not self._is_own(found):
                return ""
            opened.seek(max(0, found.st_size - READ_BYTES_MAX))
            return opened.read(READ_BYTES_MAX).decode(errors="replace")

    def require(self, name: str) -> None:
        """What is there of that name is a file of its own."""
        with self._saying("read", name), suppress(FileNotFoundError):
            if not self._is_own(os.lstat(name, dir_fd=self.fd)):
                raise OSError(errno.EPERM, "it is no file of its own")

    def _is_own(self, found: os.stat_result) -> bool:
        owners = {0, os.geteuid(), self._owner[0]}
        return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid in owners

    @contextmanager
    def _saying(self, what: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Misconfigured(
                "--data-dir", f"cannot {what} {self.directory / name}: {error.strerror}"
            ) from error


@contextmanager
def socket_directory(owner: Owner) -> Iterator[str]:
    """A directory that nobody else may enter or move, with a path short enough for a socket in it."""
    # A service's /tmp may be its own (PrivateTmp=), and commands look for the socket from outside.
    service = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    for place in dict.fromkeys(filter(None, (service, tempfile.gettempdir(), "/tmp", "/var/tmp"))):
        name = os.path.join(os.path.abspath(place), "ingest-postgresql-00000000", SOCKET_NAME)
        if len(os.fsencode(name)) <= SOCKET_PATH_BYTES_MAX and _may_enter(place, owner) and _is_safe(place):
            break
    else:
        raise Misconfigured(
            "TMPDIR",
            "its path is too long for a socket, PostgreSQL's user may not enter it, or others may move what is in it",
        )
    made = tempfile.mkdtemp(prefix="ingest-postgresql-", dir=os.path.abspath(place))  # mode 0700
    try:
        os.chown(made, *owner, follow_symlinks=False)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def peer_of(owner: Owner) -> str:
    """For a conninfo: whoever else listens at the socket is not talked to. Nothing for a user without a name."""
    try:
        return f"requirepeer={pwd.getpwuid(owner[0]).pw_name} "
    except KeyError:
        return ""


def _is_safe(place: str) -> bool:
    """Not where others may rename what is ours."""
    found = os.stat(place)
    is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    return not is_open and found.st_uid in (0, os.geteuid())


def _may_enter(place: str, owner: Owner) -> bool:
    uid, gid = owner
    if uid == os.geteuid():
        return os.access(place, os.W_OK | os.X_OK) and os.path.isdir(place)
    if not os.path.isdir(place):
        return False
    for path in (Path(place).resolve(), *Path(place).resolve().parents):
        found = path.stat()
        bit = stat.S_IXUSR if found.st_uid == uid else stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH
        if not found.st_mode & bit:
            return False
    return True
