"""The rows of nodes: every kind of message is about one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from ingest.store.queries import query
from ingest.store.session import Session


def read_nodes(session: Session, statement: str, certnames: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of that statement, certname first, for nodes of which some may be new: those are inserted."""
    if not certnames:
        return []
    rows = _read(session, statement, certnames)
    known = {row[0] for row in rows}
    unknown = sorted(certname for certname in set(certnames) if certname not in known)
    if unknown:
        session.cursor.execute(query("insert_nodes"), [unknown])
        session.counts.rows_written += len(unknown)
        rows += _read(session, statement, unknown)
    return rows


def reactivate(
    session: Session, asleep: Sequence[tuple[int, datetime, datetime]], future_tolerance: timedelta
) -> None:
    """Nodes that were deactivated or expired, each as (id, producer_timestamp, received_at) of what it sent: they are active
    again, unless that is older than what put them to sleep."""
    if asleep:
        node_ids, timestamps, received_at = map(list, zip(*asleep, strict=True))
        session.execute(
            "reactivate_nodes",
            {
                "node_ids": node_ids,
                "producer_timestamps": timestamps,
                "received_at": received_at,
                "future_tolerance": future_tolerance,
            },
        )


def _read(session: Session, statement: str, certnames: Sequence[str]) -> list[tuple[Any, ...]]:
    session.cursor.execute(query(statement), [list(certnames)], binary=True)
    return session.cursor.fetchall()
