"""Rules of a batch: which of several catalogs of one node counts, and what is newer than what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, TypeVar

from ingest.core.delivery.work import Claim, Full

FUTURE_TOLERANCE = timedelta(days=1)  # the default of future_tolerance_s


class OfNode(Protocol):
    @property
    def certname(self) -> str: ...


W = TypeVar("W", bound=OfNode)


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
    return newest_of_each(catalogs, _rank)


def newest_of_each(
    works: Iterable[W], rank: Callable[[W], tuple[datetime, bytes]]
) -> tuple[list[W], list[W]]:
    """(the newest of each node by that rank, sorted by certname; the others)."""
    newest: dict[str, W] = {}
    others: list[W] = []
    for work in works:
        rival = newest.get(work.certname)
        if rival is None:
            newest[work.certname] = work
        elif rank(work) > rank(rival):
            newest[work.certname] = work
            others.append(rival)
        else:
            others.append(work)
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


class Verdicts(NamedTuple):
    """What becomes of the newest catalog of each node."""

    stale: list[Claim | Full]
    refuted: list[Claim]  # something else is stored than it says
    unchanged: list[Claim | Full]
    changed: list[Full]


def judge(
    newest: Iterable[Claim | Full], stored: Mapping[str, Stored], future_tolerance: timedelta
) -> Verdicts:
    """By what is stored of their nodes."""
    found = Verdicts([], [], [], [])
    for catalog in newest:
        there = stored[catalog.certname]
        if is_stale(catalog, there, future_tolerance):
            found.stale.append(catalog)
        elif isinstance(catalog, Full) and catalog.content_digest != there.content_digest:
            found.changed.append(catalog)
        elif isinstance(catalog, Claim) and catalog.sections.raw_digest != there.raw_digest:
            found.refuted.append(catalog)
        else:
            found.unchanged.append(catalog)
    return found


def _rank(catalog: Claim | Full) -> tuple[datetime, bytes]:
    content = catalog.content_digest if isinstance(catalog, Full) else b""
    return catalog.header.producer_timestamp, content
