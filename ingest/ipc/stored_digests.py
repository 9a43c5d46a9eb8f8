"""What was stored last, by certname, in shared memory: how a decoder knows an unchanged catalog."""

from __future__ import annotations

import mmap
import secrets
import struct
import zlib

from ingest.core.delivery.work import DIGEST_BYTES, FINGERPRINT_BYTES, SectionDigests


class StoredDigests:
    """Digests of stored catalogs by certname: a lossy table in shared memory, written by the writers after
    a commit, read by the decoders.

    It is only a hint. A lost entry makes a decoder do more work; one that is no longer true makes it claim what the
    writer refutes from the database. A torn one is noticed: a fingerprint must not stand for another's digest.
    """

    ENTRIES = 1 << 17  # 7 MiB; two nodes in one place only cost each other the short cut
    _ENTRY = struct.Struct(f"=QI{FINGERPRINT_BYTES}s{DIGEST_BYTES}s")  # key, check, both digests
    _SEED = struct.Struct("=Q")

    def __init__(self, memory_: mmap.mmap) -> None:
        self._memory = memory_

    @classmethod
    def size_bytes(cls) -> int:
        return cls._SEED.size + cls.ENTRIES * cls._ENTRY.size

    @property
    def seed(self) -> int:
        """Of the fingerprints in here: as random as the memory's first bytes."""
        return int(self._SEED.unpack_from(self._memory)[0])

    def sow(self) -> None:
        """Chooses a seed, while the table is still empty."""
        self._SEED.pack_into(self._memory, 0, secrets.randbits(64))

    def put(self, certname: str, sections: SectionDigests) -> None:
        key, at = self._place(certname)
        self._ENTRY.pack_into(self._memory, at, key, zlib.crc32(b"".join(sections)), *sections)

    def get(self, certname: str) -> SectionDigests | None:
        key, at = self._place(certname)
        found, check, *digests = self._ENTRY.unpack_from(self._memory, at)
        if found != key or zlib.crc32(b"".join(digests)) != check:
            return None
        return SectionDigests(*digests)

    def _place(self, certname: str) -> tuple[int, int]:
        name = certname.encode()
        key = zlib.crc32(name) << 32 | zlib.adler32(name)
        return key, self._SEED.size + (key >> 32) % self.ENTRIES * self._ENTRY.size
