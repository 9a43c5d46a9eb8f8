"""Contents that come before the catalog that refers to them: in time, together with it, too late or never."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ingest.core.delivery.work import Claim, Deactivate, EarlyContents, Full, Outcome
from ingest.errors import Rejected
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import collect_garbage
from lab.store_model import Pipeline, expected, resource, stored, wire_body

NODE = "n.example.com"
BODY = wire_body(NODE, 1, [resource(f"/{n}", tags=[f"tag-{n}"], parameters={"n": n}) for n in range(9)])


class Split(Pipeline):
    """Gives out what goes early instead of applying it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, early_bytes=0)

    def _take_early(self, early: EarlyContents) -> None:
        self.early.append(early)

    def split(self, body: bytes) -> tuple[list[EarlyContents], Claim | Full | Deactivate]:
        work, early = self.decode(body), self.early[:]
        self.early.clear()
        return early, work


@pytest.fixture
def writer(database: str) -> Iterator[Split]:
    with connect(database) as opened:
        yield Split(opened)


def resources(connection: Connection) -> int:
    row: Any = connection.execute("SELECT count(*) FROM resources").fetchone()
    return int(row[0])


@pytest.mark.parametrize("together", [1, 4, 9])
def test_contents_that_came_before(writer: Split, connection: Connection, together: int) -> None:
    """However many come in one transaction, they are there at its end and their catalog finds them."""
    early, work = writer.split(BODY)
    assert len(early) == 9
    for at in range(0, len(early), together):
        assert writer.lane.apply(early[at : at + together]) == []
        assert resources(connection) == min(at + together, 9)
    assert writer.settle([work], [BODY]) == [Outcome.STORED]
    assert writer.lane.counts.resources_new == 0
    assert stored(connection, NODE) == expected(BODY)


def test_contents_that_come_with_it_and_with_another(writer: Split, connection: Connection) -> None:
    """One transaction for a catalog, for what came before it and for what comes before another that is not here yet;
    the same content twice is one row."""
    other = wire_body("other.example.com", 1, [resource("/0", tags=["tag-0"], parameters={"n": 0})])
    early, work = writer.split(BODY)
    writer.early += [*early, EarlyContents(99, "other.example.com", early[0].contents)]
    assert writer.settle([work], [BODY]) == [Outcome.STORED]
    assert resources(connection) == 9
    assert writer.take(other) == [Outcome.STORED]
    assert stored(connection, NODE) == expected(BODY)
    assert stored(connection, "other.example.com") == expected(other)


def test_contents_that_never_came(writer: Split, connection: Connection) -> None:
    """Their writer died, say: the catalog finds them missing and is decoded again, with everything."""
    _, work = writer.split(BODY)
    assert [s.outcome for s in writer.lane.apply([work])] == [Outcome.REDO]
    assert writer.settle([work], [BODY]) == [Outcome.STORED]
    assert stored(connection, NODE) == expected(BODY)


def test_contents_that_were_collected_as_garbage_meanwhile(writer: Split, connection: Connection) -> None:
    """Nobody refers to them yet. The writer forgets their ids, and the catalog is decoded again."""
    early, work = writer.split(BODY)
    writer.lane.apply(early)
    assert collect_garbage(connection, pause=lambda s: None).deleted["resources"] == 9
    assert [s.outcome for s in writer.lane.apply([work])] == [Outcome.REDO]
    assert writer.settle([work], [BODY]) == [Outcome.STORED]
    assert stored(connection, NODE) == expected(BODY)


def test_contents_that_postgresql_refuses(writer: Split, connection: Connection) -> None:
    """They take nothing else with them, and their catalog is refused when it comes with all it has."""
    connection.execute("ALTER TABLE resources ADD CONSTRAINT no_five CHECK (title <> '/5')")
    early, work = writer.split(BODY)
    with pytest.raises(Rejected):
        writer.lane.apply(early)
    assert resources(connection) == 0
    for piece in early:
        if "/5" not in repr(piece.contents):
            writer.lane.apply([piece])
    assert [s.outcome for s in writer.lane.apply([work])] == [Outcome.REDO]
    with pytest.raises(Rejected):
        writer.lane.apply([writer.decode(BODY, complete=True)])
