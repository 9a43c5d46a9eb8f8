"""Which of several factsets of one node counts, and what is newer than what: as for catalogs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from ingest.core.delivery.batching import newest_of_each
from ingest.core.facts.work import Factset


def supersede(factsets: Iterable[Factset]) -> tuple[list[Factset], list[Factset]]:
    """(the newest of each node, sorted by certname; the others)."""
    return newest_of_each(factsets, _rank)


def is_stale(
    incoming: Factset, timestamp: datetime | None, content_digest: bytes | None, future_tolerance: timedelta
) -> bool:
    """Whether something newer is stored. Equal times are decided by the content, so that the order of arrival never
    matters. What was stored from too far in the future is newer than nothing."""
    if timestamp is None:
        return False
    if incoming.producer_timestamp != timestamp:
        return incoming.producer_timestamp < timestamp <= incoming.received_at + future_tolerance
    return incoming.content_digest < (content_digest or b"")


def _rank(factset: Factset) -> tuple[datetime, bytes]:
    return factset.producer_timestamp, factset.content_digest
