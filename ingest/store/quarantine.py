"""The quarantine: writers put into it what can never be stored, operators look and decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """A message that cannot be stored, its secrets already taken out, and what it stands for."""

    deliveries: tuple[int, ...]  # all that this row settles
    digest: bytes  # of the row
    reason: str
    detail: str
    certname: str | None
    producer: str | None
    headers: dict[str, str]
    body: bytes | None
    body_note: str | None
    body_bytes: int
    body_digest: bytes | None
    received_at: datetime
    thinned: int = 0  # of the deliveries: different messages that are not kept


class QuarantineLimits(msgspec.Struct, frozen=True):
    """How much of it is kept; the settings of these names say why."""

    bytes_max: int = 1 << 30
    rows_max: int = 20_000
    unnamed_max: int = 100


class Quarantined(msgspec.Struct, frozen=True):
    """A message that could not be stored. ``body`` has its secrets redacted, and may be missing."""

    id: int
    reason: str
    detail: str
    certname: str | None
    producer: str | None
    headers: dict[str, str]
    body: bytes | None
    body_note: str | None  # what was done to the body before it was kept
    body_bytes: int  # as it arrived
    kept_bytes: int | None
    body_digest: bytes | None
    attempts: int  # all messages that the row counts
    thinned: int
    first_seen: datetime
    last_seen: datetime
    kind: str = ""  # of message; only a list has it


class Quarantine:
    """As one writer uses it: bounded, whatever comes."""

    # How much may be added before the whole is looked at again: with several writers that much more is there at times.
    _PART = 32

    def __init__(self, limits: QuarantineLimits) -> None:
        self.thinned = 0  # messages of the last batch, and of the last look, that are counted and not kept
        self._limits = limits
        self._rows = self._bytes = 0  # added since the last look

    def put(self, session: Session, rows: Iterable[QuarantineRow]) -> list[Settled]:
        """Adds messages to the rows of what is the same; sorted, because another instance may have the same ones in
        another order."""
        self.thinned = 0
        unnamed: dict[tuple[str, str | None], QuarantineRow] = {}
        settled = []
        for row in sorted(rows, key=lambda row: row.digest):
            self._put(session, row)
            if row.certname is None:
                unnamed[row.reason, row.producer] = row
            settled += [Settled(delivery, Outcome.QUARANTINED) for delivery in row.deliveries]
        for (reason, producer), row in unnamed.items():
            others = self._limits.unnamed_max - 1
            wanted = {"reason": reason, "producer": producer, "digest": row.digest, "others": others}
            session.cursor.execute(query("thin_unnamed"), wanted)
            found: Any = session.cursor.fetchone()
            self.thinned += found[0] if found else 0
        return settled

    def _put(self, session: Session, row: QuarantineRow) -> None:
        values = msgspec.structs.asdict(row) | {
            "headers": Jsonb(row.headers),
            "attempts": len(row.deliveries),
        }
        session.cursor.execute(query("quarantine"), values)
        found: Any = session.cursor.fetchone()
        self.thinned += found[0]
        session.counts.rows_written += 1
        self._rows += 1
        self._bytes += len(row.body or b"")

    @property
    def may_be_full(self) -> bool:
        return (
            self._rows > self._limits.rows_max // self._PART
            or self._bytes > self._limits.bytes_max // self._PART
        )

    def trim(self, connection: Connection) -> int:
        """Drops what is beyond the limits, in a transaction of its own; returns how many rows and bodies."""
        with translate_errors(), connection.transaction():
            size: Any = connection.execute(query("quarantine_size")).fetchone()
            rows, bytes_ = size
            limits = msgspec.structs.asdict(self._limits)
            dropped = 0
            if rows > self._limits.rows_max:
                dropped += connection.execute(query("drop_rows"), limits).rowcount
            if bytes_ > self._limits.bytes_max:
                dropped += connection.execute(query("drop_bodies"), limits).rowcount
        self._rows = self._bytes = 0
        return dropped


def entries(
    connection: Connection,
    *,
    reason: str | None = None,
    kind: str | None = None,
    limit: int = 100,
    kinds: Mapping[str, str] | None = None,
) -> list[Quarantined]:
    """The newest first, without their bodies. ``kinds`` are the names of kinds by command; a command without one is its own."""
    wanted = {"reason": reason, "kind": kind, "limit": limit, "kinds": Jsonb(dict(kinds or {}))}
    with translate_errors():
        rows: Any = connection.execute(query("list_quarantine"), wanted).fetchall()
    return [Quarantined(*row) for row in rows]


def entry(connection: Connection, id_: int, *, with_body: bool = True) -> Quarantined:
    """One message. Raises Refused when there is none of that number."""
    wanted = {"id": id_, "with_body": with_body}
    with translate_errors():
        row: Any = connection.execute(query("show_quarantine"), wanted).fetchone()
    if row is None:
        raise Refused(f"nothing in quarantine has the number {id_}: 'ingest quarantine list' shows what has")
    return Quarantined(*row)


def drop(connection: Connection, ids: list[int]) -> int:
    """Throws messages away; returns how many there were."""
    with translate_errors():
        return connection.execute(query("drop_quarantine"), [ids]).rowcount


def drop_given_back(connection: Connection, given: Iterable[Quarantined]) -> int:
    """Forgets messages that the broker has again; returns how many. Where another one has come meanwhile, it stays."""
    with translate_errors():
        return sum(
            connection.execute(
                query("drop_given_back"), {"id": found.id, "last_seen": found.last_seen}
            ).rowcount
            for found in given
        )
