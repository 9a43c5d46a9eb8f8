"""A node's package inventory: which packages, in which version, from which provider."""

from __future__ import annotations

import hashlib

import msgspec

from ingest.core.bounded_cache import BoundedCache
from ingest.core.catalog.storable import nearest_text
from ingest.core.delivery.work import DIGEST_BYTES
from ingest.core.facts.work import Inventory, Package
from ingest.core.json_text import parse_json
from ingest.errors import Rejected

INVENTORIES_BYTES_MAX = 1024 * 1024  # what is remembered of inventories is two digests each
_ENTRY_BYTES = 250


class InventoryReader:
    """Knows again what it has read before."""

    def __init__(self) -> None:
        self._read: BoundedCache[bytes, bytes] = BoundedCache(
            INVENTORIES_BYTES_MAX, lambda raw, digest: _ENTRY_BYTES, entry_bytes_max=_ENTRY_BYTES
        )

    def read(self, raw: msgspec.Raw | None, *, is_complete: bool) -> Inventory | None:
        """None when there is none, or none in it. Raises Rejected."""
        if raw is None:
            return None
        data = bytes(raw)
        if data in (b"null", b"[]"):
            return None
        key = hashlib.sha256(data).digest()
        known = self._read.get(key)
        if known is not None and not is_complete:
            return Inventory(known, None)
        packages = _packages(data)
        if not packages:
            return None
        digest = hashlib.sha256(b"".join(map(package_digest, packages))).digest()[:DIGEST_BYTES]
        self._read.put(key, digest)
        return Inventory(digest, packages)


def package_digest(package: Package) -> bytes:
    # No name has U+0000: PostgreSQL could not hold it.
    text = "\0".join((package.name, package.version, package.provider))
    return hashlib.sha256(text.encode()).digest()[:DIGEST_BYTES]


def _packages(data: bytes) -> list[Package]:
    """Each once, sorted."""
    found = parse_json(data)
    if not isinstance(found, list):
        raise Rejected("invalid", "`package_inventory` is not a list")
    packages = set()
    for item in found:
        if not (isinstance(item, list) and len(item) == 3 and all(isinstance(part, str) for part in item)):
            raise Rejected(
                "invalid", "`package_inventory` has an element that is not [name, version, provider]"
            )
        packages.add(Package(*map(nearest_text, item)))
    return sorted(packages)
