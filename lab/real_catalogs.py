"""Real catalogs, made by real Puppet 7.23: four nodes, four rounds, each in native and in wire form."""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path

ROUNDS = (1, 2, 3, 4)
ROLES = ("db-01", "minimal-01", "minimal-03", "web-01")
_ARCHIVE = Path(__file__).parent / "data" / "catalogs.tar.xz"


def body(role: str, round_: int, form: str) -> bytes:
    """``form`` is "native" or "wire"."""
    return _all()[f"{role}/run-{round_}/catalog-{form}.json"]


@cache
def _all() -> dict[str, bytes]:
    with tarfile.open(_ARCHIVE) as archive:
        found = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
        return found
