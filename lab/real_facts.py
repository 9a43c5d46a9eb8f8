"""Real facts, made by real Facter 4 and Puppet 7.23: four nodes, four rounds."""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path

ROUNDS = (1, 2, 3, 4)
ROLES = ("db-01", "minimal-01", "web-01", "web-02")
_ARCHIVE = Path(__file__).parent / "data" / "facts.tar.xz"


def body(role: str, round_: int) -> bytes:
    """A ``replace facts`` command of version 5."""
    return _all()[f"{role}/run-{round_}/facts-wire.json"]


@cache
def _all() -> dict[str, bytes]:
    with tarfile.open(_ARCHIVE) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
        return found
