"""Directories of this program's own: whoever else is on the machine writes into none of them, whatever the umask allows."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from ingest.errors import Misconfigured


def make_private(directory: Path) -> None:
    """Makes it for its user alone, and what is missing above it so that others may pass, at most. What is there keeps its mode.
    Raises OSError."""
    for parent in reversed(directory.parents):
        _make(parent, 0o755)
    _make(directory, 0o700)


def require_private(directory: Path, owners: Collection[int] = ()) -> None:
    """Raises PermissionError for a directory that somebody else (than us, or ``owners``) made, or may write into."""
    found = os.stat(directory)
    if found.st_uid not in (owners or (os.geteuid(),)):
        raise PermissionError(1, f"it belongs to the user {found.st_uid}, and not to {os.geteuid()}")
    if found.st_mode & stat.S_IWOTH:
        raise PermissionError(1, f"others may write into it (chmod o-w {directory}, or name one in it)")


def make_data_dir(directory: Path) -> None:
    """One in which nobody else, but root, could put or move anything: logins stand there. Raises Misconfigured."""
    try:
        make_private(directory)
        require_private(directory, owners=(0, os.geteuid()))
    except OSError as error:
        raise Misconfigured("--data-dir", f"cannot use {directory}: {error.strerror}") from error


def _make(directory: Path, mode: int) -> None:
    try:
        os.mkdir(directory, mode)
    except FileExistsError:
        if not directory.is_dir():
            raise
    except OSError:
        if not directory.is_dir():  # one above it may be on a file system that is read-only
            raise
