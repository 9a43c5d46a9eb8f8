"""Garbage collection beside writers: it spares what they take up, waits without being in the way, and ends in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingest.core.delivery.work import Outcome
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import collect_garbage
from ingest.store.locks import POLL_S, NodeLocks
from lab.store_model import Pipeline, expected, resource, stored, wire_body

NODE = "n.example.com"


@pytest.fixture
def writer(database: str) -> Iterator[Pipeline]:
    opened = connect(database)
    yield Pipeline(opened)
    opened.close()


def with_titles(minute: int, *titles: str) -> bytes:
    return wire_body(NODE, minute, [resource(title, tags=[title.strip("/")]) for title in titles])


def no_pause(_: float) -> None:
    pass


def once(action: Callable[[], Any]) -> Callable[[float], None]:
    """A pause in which something happens, the first time."""
    pending = [action]

    def pause(_: float) -> None:
        if pending:
            pending.pop()()

    return pause


def titles(connection: Connection) -> set[str]:
    rows: Any = connection.execute("SELECT title FROM resources").fetchall()
    return {title for (title,) in rows}


def test_what_a_writer_takes_up_again_meanwhile_is_spared(connection: Connection, writer: Pipeline) -> None:
    """Between the look and the deletion a writer refers to garbage by the id in its cache: it stays."""
    writer.take(with_titles(1, "/a", "/b", "/c"))
    writer.take(with_titles(2, "/a"))
    again = with_titles(3, "/a", "/b", "/c")
    collected = collect_garbage(connection, step_rows=1, pause=once(lambda: writer.take(again)))
    assert collected.deleted["resources"] == 1  # the first step came before the writer
    assert titles(connection) == {"/a", "/b", "/c"}
    assert stored(connection, NODE) == expected(again)


def test_a_writer_at_work_is_waited_for_without_being_in_the_way(
    database: str, connection: Connection, writer: Pipeline
) -> None:
    """While one writer's transaction is open nothing is deleted, and another writer works on as if nobody waited."""
    writer.take(with_titles(1, "/a", "/b"))
    writer.take(with_titles(2, "/a"))
    at_work = connect(database)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        if not pauses:
            assert writer.take(with_titles(3, "/a", "/c")) == [Outcome.STORED]
        pauses.append(seconds)

    with NodeLocks(at_work).transaction():
        collected = collect_garbage(connection, patience_s=10 * POLL_S, pause=pause)
    at_work.close()
    assert collected.postponed > 0
    assert sum(collected.deleted.values()) == 0
    assert pauses[:10] == [POLL_S] * 10
    assert collect_garbage(connection, pause=no_pause).deleted["resources"] == 1
    assert titles(connection) == {"/a", "/c"}


def test_a_step_that_takes_too_long_is_left_for_later(connection: Connection, writer: Pipeline) -> None:
    """Nobody waits for a deletion longer than hold_timeout_s; what it had done is undone."""
    writer.take(with_titles(1, "/a", "/b"))
    writer.take(with_titles(2, "/a"))
    connection.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN OLD; END';"
        "CREATE TRIGGER slow BEFORE DELETE ON resources FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    collected = collect_garbage(connection, hold_timeout_s=0.05, pause=no_pause)
    assert collected.postponed == 1
    assert titles(connection) == {"/a", "/b"}
    assert connection.execute("SHOW statement_timeout").fetchone() == (
        "1min",
    )  # the limit was the step's own
    connection.execute("DROP TRIGGER slow ON resources")
    assert collect_garbage(connection, pause=no_pause).postponed == 0
    assert titles(connection) == {"/a"}


def test_it_goes_in_steps_with_pauses(connection: Connection, writer: Pipeline) -> None:
    """Never more than step_rows at once, and a pause after each step."""
    writer.take(with_titles(1, *(f"/{n:02}" for n in range(25))))
    writer.take(with_titles(2))
    left: list[int] = []
    collect_garbage(connection, step_rows=10, pause_s=7, pause=lambda s: left.append(len(titles(connection))))
    assert left[:3] == [15, 5, 0]


def test_chains_of_garbage_are_gone_after_two_runs(connection: Connection, writer: Pipeline) -> None:
    """What only garbage referred to is garbage of the next run at the latest, and nothing else is."""
    writer.take(with_titles(1, "/a", "/b"))
    writer.take(wire_body(NODE, 2, [resource("/a", line=7)]))
    for _ in range(2):
        collect_garbage(connection, pause=no_pause)
    for table in ("resources", "edge_sets", "position_sets", "positions"):
        row: Any = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[call-overload]
        assert row == (1,), table
    rows: Any = connection.execute("SELECT name FROM tags").fetchall()
    assert sorted(rows) == [("a",), ("b",)]  # resource()'s own
