"""The advisory locks of writers and housekeeping, the same in every instance on one database."""

from __future__ import annotations

import zlib

# The first key of our advisory locks; the second tells what is locked. Private to this schema's users.
CONTENT_LOCK = 464379
NODE_LOCK = 464380


def node_key(certname: str) -> int:
    """The second key of a node's advisory lock, a signed 32-bit number: the same in every instance."""
    unsigned = zlib.crc32(certname.encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned
