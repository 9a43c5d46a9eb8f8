"""What engines at one database know of each other: how many there are; and, where messages come without any time, how far each
has settled what it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from ingest.core.delivery.arrival import Places, W, placed
from ingest.core.delivery.work import UNPLACED
from ingest.store.asking import Asking
from ingest.store.connection import Connection, translate_errors
from ingest.store.queries import query
from ingest.store.session import Session


def tell(connection: Connection, engine: int, unsettled_since: datetime, *, takes_new: bool) -> None:
    """This engine holds nothing that it got before then. ``takes_new``: it has had messages that nobody had before it."""
    with translate_errors():
        connection.execute(query("tell_engine"), [engine, unsettled_since, takes_new])


def leave(connection: Connection, engine: int) -> None:
    """It holds nothing any more, or nothing that needs this."""
    with translate_errors():
        connection.execute(query("forget_engine"), [engine])


def came_first_after(session: Session, asking: int, *, own_counts: bool) -> datetime | None:
    """A message that comes again now came first no earlier than this. None: nobody can have stored what is newer.
    ``own_counts``: the engine that asks can have, too."""
    session.cursor.execute(query("oldest_unsettled"), {"asking": asking, "own_counts": own_counts})
    row = session.cursor.fetchone()
    return None if row is None else row[0]


def at_work(connection: Connection) -> dict[str | None, int]:
    """How many write to this database, by version; None is one that does not say it. None of them on a standby."""
    with translate_errors():
        rows: Any = connection.execute(query("engines_at_work")).fetchall()
    return dict(rows)


class Placing:
    """Gives works that come again without any time the places where they belong, for one writer."""

    def __init__(self, asking: Callable[[], Asking] = Asking) -> None:
        self._places = Places()
        self._asking = asking

    def place(self, session: Session, works: Sequence[W]) -> Sequence[W]:
        """The same works, each with a time."""
        if not any(work.producer_timestamp == UNPLACED for work in works):
            return works
        asking = self._asking()
        after = {
            counts: came_first_after(session, asking.engine, own_counts=counts)
            for counts in {
                asking.has_taken_new_before(work.received_at)
                for work in works
                if work.producer_timestamp == UNPLACED
            }
        }
        places = {
            work.delivery: self._places.place(
                work.received_at, after[asking.has_taken_new_before(work.received_at)]
            )
            for work in sorted(works, key=lambda work: work.received_at)
            if work.producer_timestamp == UNPLACED
        }
        return [placed(work, places[work.delivery]) if work.delivery in places else work for work in works]
