"""What was stored last, by certname, in shared memory: how a decoder knows an unchanged catalog."""

from __future__ import annotations

import mmap
import secrets
import struct

from xxhash import xxh3_64_intdigest

from ingest.core.delivery.work import DIGEST_BYTES, FINGERPRINT_BYTES, SectionDigests


class StoredDigests:
    """Digests of stored catalogs by certname: a lossy table in shared memory, written by the writers after
    a commit, read by the decoders.

    It only saves work. A lost entry makes a decoder do more work; one that is no longer true makes it claim what the
    writer refutes from the database. A torn one is noticed: a fingerprint must not stand for another's digest.

    Keys and checks are made with the seed, which nobody outside knows: with a plain checksum anybody could call a node so
    that it has another's place, or make a torn entry look whole.
    """

    ENTRIES = 1 << 17  # 8 MiB; two nodes in one place only cost each other the short cut
    _ENTRY = struct.Struct(f"=QQ{FINGERPRINT_BYTES}s{DIGEST_BYTES}s")  # key, check, both digests
    _SEED = struct.Struct("=Q")

    def __init__(self, memory_: mmap.mmap) -> None:
        self._memory = memory_
        self.seed: int = self._SEED.unpack_from(memory_)[0]  # of the fingerprints in here, too

    @classmethod
    def size_bytes(cls) -> int:
        return cls._SEED.size + cls.ENTRIES * cls._ENTRY.size

    def sow(self) -> None:
        """Chooses a seed, while the table is still empty and nobody else has it."""
        self.seed = secrets.randbits(64)
        self._SEED.pack_into(self._memory, 0, self.seed)

    def put(self, certname: str, sections: SectionDigests) -> None:
        key, at = self._place(certname)
        self._ENTRY.pack_into(self._memory, at, key, self._check(key, sections), *sections)

    def get(self, certname: str) -> SectionDigests | None:
        key, at = self._place(certname)
        found, check, *digests = self._ENTRY.unpack_from(self._memory, at)
        sections = SectionDigests(*digests)
        return sections if found == key and self._check(key, sections) == check else None

    def _place(self, certname: str) -> tuple[int, int]:
        key = xxh3_64_intdigest(certname.encode(), seed=self.seed)
        return key, self._SEED.size + key % self.ENTRIES * self._ENTRY.size

    def _check(self, key: int, sections: SectionDigests) -> int:
        return xxh3_64_intdigest(b"".join(sections), seed=self.seed ^ key)
