"""Staging tables: made when many rows first go through one, empty after each transaction, made again after a rollback."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Misconfigured, Unavailable
from ingest.store.connection import Connection, connect
from ingest.store.content_table import FEW_ROWS
from lab.store_model import Pipeline, expected, resource, stored, wire_body

NODE = "n.example.com"


@pytest.fixture
def writer(database: str) -> Iterator[Connection]:
    with connect(database) as opened:
        yield opened


def staged(connection: Connection) -> dict[str, int]:
    """The rows of every staging table that there is."""
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'"
    ).fetchall()
    return {
        str(name): len(connection.execute(f"SELECT FROM {name}").fetchall())  # type: ignore[call-overload]
        for (name,) in found
    }


def body(minute: int, resources: int) -> bytes:
    made = [resource(f"/{minute}/{number}", parameters={"n": number}) for number in range(resources)]
    return wire_body(NODE, minute, made)


def test_a_role_that_may_make_none_is_told_before_anything_is_written(
    database: str, connection: Connection
) -> None:
    """And not by the first catalog that has much to write."""
    connection.execute("CREATE ROLE stages_nothing")
    try:
        connection.execute(
            "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$"
        )
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO stages_nothing")
        with connect(database) as opened:
            opened.execute("SET ROLE stages_nothing")
            with pytest.raises(Misconfigured, match="temporary tables: grant it again"):
                Pipeline(opened)
    finally:
        connection.execute("DROP OWNED BY stages_nothing")
        connection.execute("DROP ROLE stages_nothing")


def test_a_writer_of_little_has_none(writer: Connection) -> None:
    """Each would be emptied by the commit of whatever touches another."""
    pipeline = Pipeline(writer)
    for minute in (1, 2, 3):
        assert pipeline.take(body(minute, FEW_ROWS)) == [Outcome.STORED]
    assert staged(writer) == {}


def test_many_rows_make_the_one_that_they_go_through(writer: Connection) -> None:
    pipeline = Pipeline(writer)
    for minute in (1, 2):
        assert pipeline.take(body(minute, FEW_ROWS + 1)) == [Outcome.STORED]
        assert staged(writer) == {"stage_resources": 0}


def test_one_that_went_with_its_transaction_is_made_again(writer: Connection, database: str) -> None:
    """The first batch is cancelled behind its COPY, where it waits for somebody who has the node's row."""
    pipeline = Pipeline(writer)
    assert pipeline.take(body(1, 1)) == [Outcome.STORED]
    with connect(database) as other, other.transaction():
        other.execute("SELECT FROM catalogs FOR UPDATE")
        writer.execute("SET lock_timeout = '50ms'")
        with pytest.raises(Unavailable):
            pipeline.take(body(2, FEW_ROWS + 1))
    assert staged(writer) == {}
    assert pipeline.take(body(3, FEW_ROWS + 1)) == [Outcome.STORED]
    assert staged(writer) == {"stage_resources": 0}
    assert stored(writer, NODE) == expected(body(3, FEW_ROWS + 1))
