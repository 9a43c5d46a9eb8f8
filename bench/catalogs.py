"""Real catalogs for the benchmarks, and clones of them: four rounds of a fleet, in wire form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from fnmatch import fnmatch
from pathlib import Path

from lab import real_catalogs as corpus

ROUNDS = (1, 2, 3, 4)
ROUND_NAMES = {1: "first load", 2: "unchanged", 3: "few parameters", 4: "module upgrade"}
_CERTNAME = re.compile(rb'"certname":"([^"]+)"')
_TIMESTAMP = re.compile(rb'(?<="producer_timestamp":")[^"]+')


def fleet(directory: Path | None, clones: int, *, roles: str = "*") -> dict[int, list[bytes]]:
    """Round -> bodies. ``directory`` holds ROLE-NN/run-K/catalog-wire.json; without one the tests' corpus is
    taken. A clone is the body with its certname replaced throughout: web-01-c2.example.com. ``roles`` is a
    pattern: ``minimal-*`` are the small ones, about 170 KB."""
    return {round_: list(one_round(directory, round_, clones, roles)) for round_ in ROUNDS}


def again(bodies: list[bytes], times: int) -> list[bytes]:
    """The fleet's catalogs that often, compiled a millisecond later each time: nothing else differs."""
    return [body for more in range(times) for body in later(bodies, more)]


def later(bodies: list[bytes], milliseconds: int) -> list[bytes]:
    """The same, compiled so much later."""

    return [one_later(body, milliseconds) for body in bodies]


def one_later(body: bytes, milliseconds: int) -> bytes:
    def stamp(match: re.Match[bytes]) -> bytes:
        then = datetime.fromisoformat(match[0].decode()) + timedelta(milliseconds=milliseconds)
        return then.isoformat(timespec="milliseconds").encode()

    return _TIMESTAMP.sub(stamp, body)


def one_round(directory: Path | None, round_: int, clones: int, roles: str = "*") -> Iterator[bytes]:
    """One of them, without holding it: 2000 nodes have a gigabyte and more."""
    if directory is None:
        bodies = [corpus.body(role, round_, "wire") for role in corpus.ROLES if fnmatch(role, roles)]
    else:
        files = sorted(directory.glob(f"{roles}/run-{round_}/catalog-wire.json"))
        bodies = [file.read_bytes() for file in files]
    for body in bodies:
        match = _CERTNAME.search(body)
        assert match is not None
        host, _, domain = match[1].partition(b".")
        for clone in range(clones):
            yield body if not clone else body.replace(match[1], host + b"-c%d." % clone + domain)
