"""The rows of nodes: every kind of message is about one."""

from __future__ import annotations

from collections.abc import Sequence
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


def _read(session: Session, statement: str, certnames: Sequence[str]) -> list[tuple[Any, ...]]:
    session.cursor.execute(query(statement), [list(certnames)], binary=True)
    return session.cursor.fetchall()
