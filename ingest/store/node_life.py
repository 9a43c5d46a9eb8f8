"""Nodes that are taken out of collectors' sight by command, and come back with a catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from ingest.core.delivery.batching import Stored
from ingest.core.delivery.work import Claim, Deactivate, Full, Outcome, Settled
from ingest.store.queries import query
from ingest.store.session import Session


def reactivate(
    session: Session,
    catalogs: Sequence[Claim | Full],
    stored: Mapping[str, Stored],
    future_tolerance: timedelta,
) -> None:
    """These catalogs were written: their nodes were heard of."""
    asleep = [
        c for c in catalogs if stored[c.header.certname].deactivated or stored[c.header.certname].expired
    ]
    if asleep:
        session.execute(
            "reactivate_nodes",
            {
                "node_ids": [stored[c.header.certname].node_id for c in asleep],
                "producer_timestamps": [c.header.producer_timestamp for c in asleep],
                "received_at": [c.received_at for c in asleep],
                "future_tolerance": future_tolerance,
            },
        )


def deactivate(
    session: Session, commands: Sequence[Deactivate], future_tolerance: timedelta
) -> list[Settled]:
    """Takes out the nodes of which nothing newer is stored; of several commands the newest counts."""
    newest: dict[str, Deactivate] = {}
    for command in sorted(commands, key=lambda c: c.producer_timestamp):
        newest[command.certname] = command
    if not newest:
        return []
    session.cursor.execute(
        query("deactivate_nodes"),
        {
            "certnames": list(newest),
            "producer_timestamps": [c.producer_timestamp for c in newest.values()],
            "received_at": [c.received_at for c in newest.values()],
            "future_tolerance": future_tolerance,
        },
    )
    done = {row[0] for row in session.cursor}
    session.counts.rows_written += len(done)
    return [Settled(c.delivery, _outcome(c, newest[c.certname], done)) for c in commands]


def _outcome(command: Deactivate, newest: Deactivate, done: set[str]) -> Outcome:
    if newest is not command:
        return Outcome.SUPERSEDED
    return Outcome.STORED if command.certname in done else Outcome.STALE
