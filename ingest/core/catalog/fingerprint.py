"""Whether a catalog is the one that was stored last, told by the very bytes of its sections."""

from __future__ import annotations

from typing import Protocol

from blake3 import blake3
from xxhash import xxh3_128

from ingest.core.catalog.formats import Skim
from ingest.core.delivery.work import DIGEST_BYTES, SectionDigests

# Part of every digest: a new normaliser must not trust what an old one stored.
NORMALISER_VERSION = b"4"


class Digest(Protocol):
    """One of a hash library's."""

    def update(self, data: bytes | memoryview, /) -> object: ...
    def digest(self) -> bytes: ...


class Fingerprints:
    """``seed`` is 64 bits that the authors of catalogs do not know, or they could make two that look alike."""

    def __init__(self, seed: int, *, thin: bool) -> None:
        self._seed = seed
        self._salt = NORMALISER_VERSION + (b"thin" if thin else b"")

    def compare(self, skimmed: Skim, stored: SectionDigests | None) -> tuple[SectionDigests, bool]:
        """The digests of a catalog's sections, and whether they are those that are stored. The fingerprint takes a fifth of
        the time of the digest, which is only made where the other does not tell."""
        fingerprint = self._digested(skimmed, xxh3_128(seed=self._seed))
        if stored is not None and stored.fingerprint == fingerprint:
            return stored, True
        sections = SectionDigests(fingerprint, self._digested(skimmed, blake3())[:DIGEST_BYTES])
        return sections, stored is not None and stored.raw_digest == sections.raw_digest

    def _digested(self, skimmed: Skim, digest: Digest) -> bytes:
        digest.update(self._salt + skimmed.family.encode())
        digest.update(skimmed.resources)
        digest.update(b"\0")  # no JSON holds that byte
        digest.update(skimmed.edges)
        return digest.digest()
