"""Rules of a batch: which of several catalogs of one node counts, and what is newer than what."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from ingest.core.delivery.work import Claim, Full

FUTURE_TOLERANCE = timedelta(days=1)  # the default of future_tolerance_s


class Stored(NamedTuple):
    """What the database has of one node, as far as a decision needs it."""

    node_id: int
    deactivated: datetime | None
    expired: datetime | None
    producer_timestamp: datetime | None  # None: no catalog yet
    transaction_uuid: str | None
    raw_digest: bytes | None
    content_digest: bytes | None
    slots: int
    edge_set_id: int | None
    position_set_id: int | None
    received_at: datetime | None = None
    usual_s: int | None = None  # its rhythm (core/node/freshness.py)
    odd_s: int | None = None
    odd_for_s: int | None = None


def supersede(catalogs: Iterable[Claim | Full]) -> tuple[list[Claim | Full], list[Claim | Full]]:
    """(the newest of each node, sorted by certname; the others).

    A claim stands behind a whole catalog of the same time: it has nothing to write.
    """
    newest: dict[str, Claim | Full] = {}
    others: list[Claim | Full] = []
    for catalog in catalogs:
        rival = newest.get(catalog.certname)
        if rival is None:
            newest[catalog.certname] = catalog
        elif _rank(catalog) > _rank(rival):
            newest[catalog.certname] = catalog
            others.append(rival)
        else:
            others.append(catalog)
    return [newest[certname] for certname in sorted(newest)], others


def is_stale(incoming: Claim | Full, stored: Stored, future_tolerance: timedelta = FUTURE_TOLERANCE) -> bool:
    """Whether something newer is stored. Equal times are decided by the content digest, so that the order of
    arrival never matters. What was stored from too far in the future is newer than nothing."""
    if stored.producer_timestamp is None:
        return False
    if incoming.header.producer_timestamp != stored.producer_timestamp:
        return (
            incoming.header.producer_timestamp < stored.producer_timestamp
            and stored.producer_timestamp <= incoming.received_at + future_tolerance
        )
    return isinstance(incoming, Full) and incoming.content_digest < (stored.content_digest or b"")


def _rank(catalog: Claim | Full) -> tuple[datetime, bytes]:
    content = catalog.content_digest if isinstance(catalog, Full) else b""
    return catalog.header.producer_timestamp, content
