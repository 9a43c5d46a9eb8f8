"""The quarantine from an operator's side: look, give back to the queue, throw away."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from ingest.errors import Refused
from ingest.store.connection import Connection, meaning
from ingest.store.queries import query


class Quarantined(msgspec.Struct, frozen=True):
    """A message that could not be stored. ``body`` has its secrets redacted, and may be missing."""

    id: int
    reason: str
    detail: str
    certname: str | None
    headers: dict[str, str]
    body: bytes | None
    body_note: str | None
    body_bytes: int
    attempts: int
    first_seen: datetime
    last_seen: datetime


def entries(connection: Connection, *, reason: str | None = None, limit: int = 100) -> list[Quarantined]:
    """The newest first, without their bodies."""
    with meaning():
        rows: Any = connection.execute(
            query("list_quarantine"), {"reason": reason, "limit": limit}
        ).fetchall()
    return [Quarantined(*row) for row in rows]


def entry(connection: Connection, id_: int) -> Quarantined:
    """One message with its body. Raises Refused when there is none of that number."""
    with meaning():
        row: Any = connection.execute(query("show_quarantine"), [id_]).fetchone()
    if row is None:
        raise Refused(f"nothing in quarantine has the number {id_}: 'ingest quarantine list' shows what has")
    return Quarantined(*row)


def drop(connection: Connection, ids: list[int]) -> int:
    """Throws messages away; returns how many there were."""
    with meaning():
        return connection.execute(query("drop_quarantine"), [ids]).rowcount
