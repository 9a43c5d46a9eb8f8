"""What a lane writes of when nodes are heard of: of a regular node, nothing beside its catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ingest.core.delivery.batching import Stored
from ingest.core.delivery.work import Claim, Full
from ingest.core.node.freshness import Rhythm, gap_s, learn
from ingest.store.session import Session

_SECOND = timedelta(seconds=1)


def learn_rhythms(session: Session, catalogs: Sequence[Claim | Full], stored: Mapping[str, Stored]) -> None:
    """From the gaps that end with these catalogs, which are newer than what is stored."""
    learnt: list[tuple[int | None, ...]] = []
    for catalog in catalogs:
        there = stored[catalog.certname]
        if there.received_at is None or there.producer_timestamp is None:
            continue  # its first one
        gap = gap_s(
            catalog.received_at,
            catalog.header.producer_timestamp,
            there.received_at,
            there.producer_timestamp,
        )
        if gap is None:
            continue
        rhythm = Rhythm(there.usual_s, there.odd_s, there.odd_for_s)
        found = learn(rhythm, gap)
        if found is not rhythm:
            learnt.append((there.node_id, *found))
    if learnt:
        session.execute("put_rhythms", [list(column) for column in zip(*learnt, strict=True)])


def hear_of(session: Session, stale: Sequence[Claim | Full], stored: Mapping[str, Stored]) -> None:
    """These are older than what is stored, and yet their nodes are alive. What comes again says nothing new."""
    heard = {
        stored[catalog.certname].node_id: catalog.received_at
        for catalog in stale
        if catalog.received_at > (stored[catalog.certname].received_at or catalog.received_at)
    }
    if heard:
        session.execute("hear_of_nodes", [list(heard), list(heard.values())])


def stored_after_s(received_at: datetime, now: datetime) -> int | None:
    """Below a second it is None: that takes no room."""
    return int((now - received_at) / _SECOND) or None if now > received_at else None
