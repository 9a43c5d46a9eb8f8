"""The quarantine: writers put into it what can never be stored, operators look and decide."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from ingest.core.delivery.work import Outcome, Settled
from ingest.errors import Refused
from ingest.store.connection import Connection, translate_errors
from ingest.store.queries import query
from ingest.store.session import Session


class QuarantineRow(msgspec.Struct, frozen=True):
    """A message that cannot be stored, its secrets already taken out."""

    delivery: int
    digest: bytes
    reason: str
    detail: str
    certname: str | None
    headers: dict[str, str]
    body: bytes | None
    body_note: str | None
    body_bytes: int


class QuarantineLimits(msgspec.Struct, frozen=True):
    """How full the quarantine may get before the engine stops; 0: no limit."""

    messages_max: int = 0
    per_minute_max: int = 0


NO_LIMITS = QuarantineLimits()


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


def put(session: Session, row: QuarantineRow) -> Settled:
    """Adds a message, or an attempt to one that is there."""
    session.execute(
        "quarantine",
        [row.digest, row.reason, row.detail, row.certname, Jsonb(row.headers), row.body, row.body_note,
         row.body_bytes],
    )  # fmt: skip
    return Settled(row.delivery, Outcome.QUARANTINED)


def require_room(session: Session, limits: QuarantineLimits) -> None:
    """Raises Refused when more is there now than the limits allow; the transaction shall not commit then."""
    session.cursor.execute(query("quarantine_fill"))
    total, within_a_minute = session.cursor.fetchone() or (0, 0)
    if limits.messages_max and int(str(total)) > limits.messages_max:
        raise Refused(
            f"quarantine_messages_max={limits.messages_max} messages are in quarantine, and one more would "
            "have to go there: look with 'ingest quarantine list', then retry or drop them"
        )
    if limits.per_minute_max and int(str(within_a_minute)) > limits.per_minute_max:
        raise Refused(
            f"more than quarantine_per_minute_max={limits.per_minute_max} messages would go into quarantine "
            "within a minute: look with 'ingest quarantine list' at what has become of the producers"
        )


def entries(connection: Connection, *, reason: str | None = None, limit: int = 100) -> list[Quarantined]:
    """The newest first, without their bodies."""
    with translate_errors():
        rows: Any = connection.execute(
            query("list_quarantine"), {"reason": reason, "limit": limit}
        ).fetchall()
    return [Quarantined(*row) for row in rows]


def entry(connection: Connection, id_: int) -> Quarantined:
    """One message with its body. Raises Refused when there is none of that number."""
    with translate_errors():
        row: Any = connection.execute(query("show_quarantine"), [id_]).fetchone()
    if row is None:
        raise Refused(f"nothing in quarantine has the number {id_}: 'ingest quarantine list' shows what has")
    return Quarantined(*row)


def drop(connection: Connection, ids: list[int]) -> int:
    """Throws messages away; returns how many there were."""
    with translate_errors():
        return connection.execute(query("drop_quarantine"), [ids]).rowcount
