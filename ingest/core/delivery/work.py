"""What a decoder hands to a writer: everything the store needs, nothing that it must parse again.

A work item names its delivery, so that whoever settles it can say so. ``Claim`` says "nothing but the header
changed" from digests alone; the writer verifies that against the stored row and asks for a ``Full`` one when
it is not so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import ClassVar, NamedTuple, Self

import msgspec
from msgspec.structs import replace

from ingest.core.catalog.model import Header

DIGEST_BYTES = 20
FINGERPRINT_BYTES = 16
KILLED = "killed_its_process"  # why one does that processes died of
UNPLACED = datetime(1, 1, 1, microsecond=1, tzinfo=UTC)  # no producer's time
NO_FINGERPRINT = bytes(FINGERPRINT_BYTES)  # of what this engine has not read itself


class SectionDigests(NamedTuple):
    """Of the very bytes of a catalog's sections. The same fingerprint means the same ``raw_digest`` within one run of an
    engine; only ``raw_digest`` is stored, and what the writer compares."""

    fingerprint: bytes  # FINGERPRINT_BYTES
    raw_digest: bytes  # DIGEST_BYTES


class Content(msgspec.Struct, array_like=True, frozen=True):
    """A resource's row in the making: encoded COPY fields around the tags, which the writer turns into ids."""

    head: bytes  # digest, exported, type, title, kind
    tags: str  # a line each
    tail: bytes  # parameters, exact


class EdgeSet(msgspec.Struct, array_like=True, frozen=True):
    """Encoded COPY fields sources, targets, relationships; slots, sorted by relationship, source, target."""

    fields: bytes


class PositionSet(msgspec.Struct, array_like=True, frozen=True):
    """The distinct positions of a catalog and, for each slot, the index of its own."""

    positions: tuple[tuple[bytes, bytes], ...]  # digest, encoded COPY fields (file, line, exact)
    indexes: tuple[int, ...]


class _OfCatalog:
    """What is asked of work of any kind, as the header has it."""

    __slots__ = ()
    is_early: ClassVar[bool] = False
    header: Header
    sections: SectionDigests  # work that has them says what is there once it is stored, and what comes next is compared

    @property
    def certname(self) -> str:
        return self.header.certname

    @property
    def producer_timestamp(self) -> datetime:
        return self.header.producer_timestamp

    def placed(self, at: datetime) -> Self:
        """The same with that for its time."""
        return replace(self, header=replace(self.header, producer_timestamp=at))  # type: ignore[type-var]


class Claim(_OfCatalog, msgspec.Struct, array_like=True, frozen=True, tag="claim"):
    """The catalog's sections are byte for byte those that were stored last."""

    goes_with_others: ClassVar[bool] = True

    delivery: int
    header: Header
    received_at: datetime
    sections: SectionDigests


class Full(_OfCatalog, msgspec.Struct, array_like=True, frozen=True, tag="full"):
    """A whole catalog as digests, with the contents that this decoder had not met before."""

    delivery: int
    header: Header
    received_at: datetime
    sections: SectionDigests
    content_digest: bytes
    digests: bytes  # DIGEST_BYTES a slot
    exported: tuple[int, ...]  # slots
    edge_set: bytes  # its digest
    position_set: bytes  # its digest
    contents: dict[int, Content]  # by slot
    edges: EdgeSet | None
    positions: PositionSet | None
    complete: bool  # every content is there: what is missing now is a fault

    @property
    def slots(self) -> int:
        return len(self.digests) // DIGEST_BYTES


class Deactivate(msgspec.Struct, array_like=True, frozen=True, tag="deactivate"):
    """``deactivate node``: the node counts no more unless something newer of it is stored."""

    is_early: ClassVar[bool] = False

    delivery: int
    certname: str
    producer_timestamp: datetime
    received_at: datetime


class Quarantine(msgspec.Struct, array_like=True, frozen=True, tag="quarantine"):
    """This message can never be stored. Its body still lies in shared memory at ``offset``."""

    is_early: ClassVar[bool] = False

    delivery: int
    reason: str
    detail: str
    certname: str | None
    headers: dict[str, str]
    received_at: datetime
    arena: int
    offset: int
    length: int
    body_bytes: int  # as it arrived; more than length when it was too large to keep
    # Of what lies there: when it differs, another attempt was settled and the place is another's.
    body_crc32: int = 0
    producer: str | None = None
    kind: str = ""  # the command, where one was told


class EarlyContents(msgspec.Struct, array_like=True, frozen=True, tag="early"):
    """New contents of a catalog of which the rest is still being decoded: what its ``Full`` will not bring any more. Nothing
    refers to them yet, and nobody waits for them: lost, they are found missing like any other."""

    is_early: ClassVar[bool] = True  # it settles nothing

    delivery: int
    certname: str
    contents: dict[bytes, Content]  # by digest


CATALOG_WORKS = (Claim, Full, EarlyContents)
DEACTIVATION_WORKS = (Deactivate,)
Work = Claim | Full | Deactivate | Quarantine | EarlyContents


class Outcome(StrEnum):
    """How a delivery was settled, or that it could not be yet."""

    STORED = "stored"
    UNCHANGED = "unchanged"
    STALE = "stale"
    SUPERSEDED = "superseded"
    QUARANTINED = "quarantined"
    REDO = "redo"  # not settled: decode it again, with every content, or quarantine it


class Settled(msgspec.Struct, array_like=True, frozen=True):
    """What a writer reports of one delivery, after its transaction committed."""

    delivery: int
    outcome: Outcome
    verdict: tuple[str, str] | None = None  # with REDO: (reason, detail), not to be decoded but quarantined


class Descriptor(msgspec.Struct, array_like=True, frozen=True):
    """What a decoder gets of a delivery; the body stays where it lies."""

    delivery: int
    arena: int
    offset: int
    length: int
    body_bytes: int  # as it arrived
    received_at: datetime
    headers: dict[str, str]
    complete: bool = False  # the writer found contents missing: send them all
    verdict: tuple[str, str] | None = None  # (reason, detail): do not decode, quarantine
    stamped_at: datetime | None = None  # when the broker took it; None: it does not say

    @property
    def arrived_at(self) -> datetime:
        """The time of a catalog that names none. Of one that comes again without a stamp the writer tells it."""
        if self.stamped_at is None and self.headers.get("redelivered") == "true":
            return UNPLACED
        return self.stamped_at or self.received_at


class Forwarded(msgspec.Struct, array_like=True, frozen=True):
    """A decoder has handed a delivery on. ``writer`` is None when that writer was gone."""

    delivery: int
    writer: str | None
    incarnation: int
