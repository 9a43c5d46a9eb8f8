"""What a decoder hands to a writer of one report."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

import msgspec
from msgspec.structs import replace

from ingest.core.delivery.work import UNPLACED

TOGETHER_EVENTS_BYTES = 4096  # of digests: with more it is large by itself


class ReportHeader(msgspec.Struct, array_like=True, frozen=True):
    """What is of this report alone, and small. Texts have no U+0000 and no lone surrogates."""

    certname: str
    producer_timestamp: datetime  # by which it is ordered, and kept for its day
    said_at: datetime | None  # what it said itself, where that is not believed; part of its hash
    hash: bytes
    start_time: datetime
    end_time: datetime
    environment: str | None
    producer: str | None
    puppet_version: str | None
    report_format: int | None
    configuration_version: str | None
    transaction_uuid: str | None
    catalog_uuid: str | None
    code_id: str | None
    job_id: str | None
    cached_catalog_status: str | None
    status: str | None
    noop: bool | None
    noop_pending: bool | None
    corrective_change: bool | None
    type: str


class Parts(msgspec.Struct, array_like=True, frozen=True):
    """Of the events, or the logs: which contents, and when, in microseconds from the report's start."""

    digests: bytes  # DIGEST_BYTES each
    offsets: tuple[int, ...]


class Metrics(msgspec.Struct, array_like=True, frozen=True):
    """The names are a shape that reports share; the values are this one's."""

    shape: bytes  # its digest
    names: bytes | None  # encoded COPY fields of the shape; None: this lane was given them
    values: bytes  # an encoded COPY field, float8[]; NULL is zero
    exact: str | None  # the values as JSON, where doubles cannot hold them


class StoreReport(msgspec.Struct, array_like=True, frozen=True, tag="report"):
    """A whole report. Contents are encoded COPY fields behind the digest; those are there that this lane was not given yet."""

    is_early: ClassVar[bool] = False

    delivery: int
    received_at: datetime
    header: ReportHeader
    metrics: Metrics | None
    events: Parts
    logs: Parts | None
    event_contents: dict[bytes, bytes]
    log_contents: dict[
        bytes, tuple[bytes, bytes]
    ]  # what stands before and behind the id of the event that is repeated
    log_events: dict[bytes, bytes]  # which event's message a log repeats, by their digests
    counts: tuple[int, int, int, int, int]  # of events: success, failure, noop, skipped; and corrective ones
    is_complete: bool  # every content is there: what is missing now is a fault

    @property
    def goes_with_others(self) -> bool:
        return not self.event_contents and len(self.events.digests) <= TOGETHER_EVENTS_BYTES

    @property
    def certname(self) -> str:
        return self.header.certname

    @property
    def producer_timestamp(self) -> datetime:
        return self.header.producer_timestamp

    def placed(self, at: datetime) -> Self:
        """The same with that for its time; its hash stays what it was."""
        said_at = self.header.said_at
        if said_at is None and self.header.producer_timestamp != UNPLACED:
            said_at = self.header.producer_timestamp
        return replace(self, header=replace(self.header, producer_timestamp=at, said_at=said_at))

    def without_events(self) -> Self:
        """The same without its events; logs that repeat an event's message still do."""
        repeated = {
            digest: self.event_contents[digest]
            for digest in self.log_events.values()
            if digest in self.event_contents
        }
        return replace(self, events=Parts(b"", ()), event_contents=repeated)


REPORT_WORKS = (StoreReport,)
