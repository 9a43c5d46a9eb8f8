"""Which decoder gets a message: the one that knows the node, unless it has too much to do. And which writer its work.

A decoder that met a node's resources before has a fraction of the work, so a node should come back to the same
one. The receiver parses nothing: it looks for the certname where producers put it. A wrong guess only costs time.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

# Where PuppetDB's terminus and Puppet write the name: after the command, behind the edges, or behind the tags.
START_BYTES = 8192
END_BYTES = 512
_MARKS = (b'"certname":"', b'"name":"')
# So many more messages may wait at the node's own decoder than at the idlest one.
PATIENCE = 6


def routing_key(headers: Mapping[str, str], start: bytes, end: bytes) -> int:
    """A number that is the same for every message of a node, most of the time."""
    name = headers.get("certname", "").encode(errors="replace")
    for mark in _MARKS:
        for part in (start, end):
            if not name and (at := part.find(mark)) >= 0:
                at += len(mark)
                name = part[at : part.find(b'"', at)]
    return zlib.crc32(name)


def choose(key: int, decoders: Sequence[str], load: Callable[[str], int]) -> str:
    """The decoder for a message with that key, by how many messages each has."""
    own = decoders[key % len(decoders)]
    idlest = min(decoders, key=load)
    return idlest if load(own) > load(idlest) + PATIENCE else own


def lane_of(certname: str, lanes: int) -> int:
    """Which writer has that node."""
    # crc32, not hash(): hash() is salted per process, and all decoders must agree.
    return zlib.crc32(certname.encode("utf-8", "replace")) % lanes


def decoders_at_work(cores: int) -> int:
    """How many decoders get messages: more would only share the cores, and know less each."""
    return max(1, cores - 1)
