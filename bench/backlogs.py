"""What engines are given to empty: each round of a fleet, then its life. A backlog is made when it is sent, each time the same:
what 2000 nodes send is gigabytes."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from bench.catalogs import ROUND_NAMES, one_later, one_round

IN_LIFE = "as in life"
NAMES = (*ROUND_NAMES.values(), IN_LIFE)
LIVES, CHANGED = 5, 0.1  # catalogs of each node; the share of them in which something is new
_CONTENT = re.compile(rb'"content":"')
_CERTNAME = re.compile(rb'"certname":"([^"]+)"')
Backlog = Callable[[], Iterable[bytes]]


def phases(directory: Path | None, clones: int) -> dict[str, Backlog]:
    """By name, in the order in which they are sent."""
    found: dict[str, Backlog] = {
        name: partial(one_round, directory, number, clones) for number, name in ROUND_NAMES.items()
    }
    return found | {IN_LIFE: partial(_in_life, directory, clones)}


def _in_life(directory: Path | None, clones: int) -> Iterator[bytes]:
    """Each node's catalog of the last round again and again; what became new stays."""
    for life in range(1, LIVES + 1):
        for node, body in enumerate(one_round(directory, 4, clones)):
            for number in range(life):
                chance = random.Random(f"{node}/{number}")
                if chance.random() < CHANGED:
                    body = _changed(body, chance)
            yield one_later(body, life)


def eighth(backlog: Backlog) -> Backlog:
    """Of each eighth node."""
    return lambda: islice(backlog(), 0, None, 8)


def _changed(body: bytes, chance: random.Random) -> bytes:
    """With another content of one of its resources."""
    found = list(_CONTENT.finditer(body))
    at = chance.choice(found).end()
    return body[:at] + b"%08x" % chance.getrandbits(32) + body[at:]


def part_of(body: bytes, parts: int) -> int:
    found = _CERTNAME.search(body)
    assert found is not None
    return zlib.crc32(found[1]) % parts
