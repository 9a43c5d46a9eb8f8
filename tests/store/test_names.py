"""Names of environments, producers and nodes: collected when no catalog has them, and never from under a writer."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Unavailable
from ingest.store.connection import Connection, connect
from ingest.store.content_table import Ids
from ingest.store.housekeeping import collect_garbage, forget_nodes, purge_nodes
from ingest.store.names import Names
from ingest.store.session import Session
from lab.store_model import Pipeline, at, resource, wire_body
from tests.store.test_writing import deactivate

NODE = "n.example.com"
NAMES = {"environments": "production", "producers": "puppet.example.com"}


@pytest.fixture
def writer(database: str) -> Iterator[Pipeline]:
    opened = connect(database)
    yield Pipeline(opened)
    opened.close()


def body(minute: int, suffix: str = "", certname: str = NODE) -> bytes:
    found = wire_body(certname, minute, [resource("/x")])
    for name in NAMES.values():
        found = found.replace(name.encode(), f"{name}{suffix}".encode())
    return found


def names(connection: Connection) -> dict[str, list[str]]:
    return {
        table: sorted(name for (name,) in connection.execute(f"SELECT name FROM {table}"))  # type: ignore[call-overload,misc]
        for table in NAMES
    }


def with_suffixes(*suffixes: str) -> dict[str, list[str]]:
    return {table: sorted(name + suffix for suffix in suffixes) for table, name in NAMES.items()}


def seen(connection: Connection, certname: str = NODE) -> Any:
    return connection.execute(
        "SELECT environment, producer FROM node_catalogs WHERE certname = %s", [certname]
    ).fetchone()


def _count(connection: Connection, what: str) -> Any:
    row = connection.execute(f"SELECT count(*) FROM {what}").fetchone()  # type: ignore[call-overload]
    return row[0]


def no_pause(_: float) -> None:
    pass


def collect(connection: Connection, pause: Callable[[float], None] = no_pause) -> dict[str, int]:
    return collect_garbage(connection, step_rows=1, pause=pause).deleted


def test_names_that_no_node_has_are_collected(connection: Connection, writer: Pipeline) -> None:
    """What a node named before is gone; what one names now stays, and is found again by a writer that had it before."""
    for minute, suffix in enumerate(["-a", "-b", "-c"], 1):
        writer.take(body(minute, suffix))
    assert names(connection) == with_suffixes("-a", "-b", "-c")
    deleted = collect(connection)
    assert (deleted["environments"], deleted["producers"]) == (2, 2)
    assert names(connection) == with_suffixes("-c")
    assert collect(connection)["environments"] == 0
    assert writer.take(body(4, "-a")) == [Outcome.UNCHANGED]
    assert seen(connection) == ("production-a", "puppet.example.com-a")


def test_names_of_purged_nodes_are_collected(connection: Connection, writer: Pipeline) -> None:
    """And those of deactivated ones stay, because their catalogs can still be shown."""
    writer.take(body(1, "-gone", "gone.example.com"), body(1))
    writer.take(deactivate("gone.example.com", 2))
    collect(connection)
    assert names(connection) == with_suffixes("", "-gone")
    purge_nodes(connection, timedelta(0))
    collect(connection)
    assert names(connection) == with_suffixes("")


@pytest.mark.parametrize("content", ["unchanged", "changed"])
def test_a_name_that_is_taken_up_again_meanwhile_stays(
    connection: Connection, writer: Pipeline, content: str
) -> None:
    """By an id that the writer remembers, between the look and the deletion."""
    writer.take(body(1, "-a"))
    writer.take(body(2, "-b"))
    again = body(3, "-a")
    if content == "changed":
        again = again.replace(b'"/x"', b'"/y"')
    pending = [again]

    def pause(_: float) -> None:
        if pending:
            writer.take(pending.pop())

    writer.take(wire_body("other.example.com", 1, [resource("/garbage")]))
    writer.take(wire_body("other.example.com", 2, []))  # so that there is a step, and a pause, before names
    collect(connection, pause)
    assert not pending
    assert "production-a" in names(connection)["environments"]
    assert seen(connection) == ("production-a", "puppet.example.com-a")
    collect(connection)
    assert seen(connection) == ("production-a", "puppet.example.com-a")


def test_while_a_writer_refers_to_a_name_nothing_is_deleted(
    database: str, connection: Connection, writer: Pipeline
) -> None:
    """The look finds the name unused; the writer's transaction, not yet committed, has taken it up."""
    writer.take(body(1, "-a"))
    writer.take(body(2, "-b"))
    pauses: list[float] = []
    connection.execute(
        "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';"
        "CREATE TRIGGER held AFTER UPDATE ON catalogs FOR EACH ROW EXECUTE FUNCTION held()"
    )
    holder = connect(database)
    with ThreadPoolExecutor(1) as pool:
        with holder.transaction():
            holder.execute("SELECT pg_advisory_xact_lock(1)")
            taken = pool.submit(writer.take, body(3, "-a"))
            while not _count(connection, "pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                assert not taken.done()
            collected = collect_garbage(connection, patience_s=0.02, pause=pauses.append)
            assert collected.postponed == 2
        assert taken.result() == [Outcome.UNCHANGED]
    holder.close()
    assert collected.deleted["environments"] == 0
    assert len(pauses) > 2
    assert seen(connection) == ("production-a", "puppet.example.com-a")


@pytest.mark.parametrize("table", NAMES)
@pytest.mark.parametrize("change", ["UPDATE catalogs SET {column} = {id}", "INSERT"])
def test_an_id_of_a_name_that_is_gone_is_never_stored(
    connection: Connection, writer: Pipeline, table: str, change: str
) -> None:
    """An engine of the version before remembers ids until it connects again: it is told to, by an error that is none
    of the message's."""
    writer.take(body(1, "-a"))
    writer.take(body(2, "-b"))
    column = table[:-1] + "_id"
    row: Any = connection.execute(f"SELECT id FROM {table} WHERE name LIKE '%-a'").fetchone()  # type: ignore[call-overload]
    collect(connection)
    if change == "INSERT":
        change = (
            "WITH node AS (INSERT INTO nodes (certname) VALUES ('new') RETURNING id) INSERT INTO catalogs (node_id, edge_set_id,"
            " position_set_id, {column}, slots, raw_digest, content_digest, content_xid, version, producer_timestamp,"
            " received_at) SELECT node.id, 1, 1, {id}, 0, '', '', pg_current_xact_id(), '', now(), now() FROM node"
        )
    from ingest.store.connection import translate_errors

    with pytest.raises(Unavailable), translate_errors():
        connection.execute(change.format(column=column, id=row[0]))  # type: ignore[call-overload]
    assert seen(connection) == ("production-b", "puppet.example.com-b")


def test_nodes_that_are_known_by_name_only_are_forgotten(connection: Connection, writer: Pipeline) -> None:
    """Of a deactivation after its time, because an older catalog may still come; at once where nothing is known at all."""
    now = datetime.now(UTC)
    writer.take(body(1))
    ages = {"old.example.com": 20, "young.example.com": 10}
    for certname, days in ages.items():
        told = deactivate(certname, 1).replace(
            at(1).isoformat().encode(), (now - timedelta(days)).isoformat().encode()
        )
        assert writer.take(told, received_at=now) == [Outcome.STORED]
    connection.execute("INSERT INTO nodes (certname) SELECT 'refused' || n FROM generate_series(1, 250) AS n")
    assert forget_nodes(connection, timedelta(days=14)) == 251
    rows = connection.execute("SELECT certname FROM nodes ORDER BY 1").fetchall()
    assert rows == [(NODE,), ("young.example.com",)]
    assert writer.take(body(2, "", "refused7")) == [Outcome.STORED]


def test_a_node_that_gets_its_catalog_meanwhile_is_not_forgotten(
    database: str, connection: Connection, writer: Pipeline
) -> None:
    """Between the look and the deletion, under the node's lock."""
    from ingest.store.locks import NodeLocks
    from ingest.store.queries import query

    connection.execute("INSERT INTO nodes (certname) VALUES (%s)", [NODE])
    candidates: Any = connection.execute(query("nodes_without_catalog"), [timedelta(0)]).fetchall()
    assert [certname for _, certname in candidates] == [NODE]
    writer.take(body(1))
    locks = NodeLocks(connection)
    locks.prepare([NODE])
    with locks.transaction():
        locks.take([NODE])
        gone = connection.execute(
            query("forget_nodes"), {"ids": [id_ for id_, _ in candidates], "age": timedelta(0)}
        )
        assert gone.rowcount == 0


# What a writer remembers


def test_ever_new_names_leave_a_writer_as_it_was(connection: Connection, writer: Pipeline) -> None:
    """Names of a kilobyte with each message: beyond its bound a writer remembers no more, and the next one of a name that it
    forgot has the same id."""
    remembered = Names(bytes_max=50_000)
    first = None
    gc.collect()
    tracemalloc.start()
    before = 0
    for number in range(600):
        pair = (f"{number:1000}", f"p{number:1000}")
        with connection.transaction(), connection.cursor() as cursor:
            remembered.resolve(Session(cursor), [pair, (None, None), pair])
            first = first or (remembered.id("environments", pair[0]), remembered.id("producers", pair[1]))
            assert remembered.id("environments", None) is None
            remembered.committed()
        if number == 100:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 60_000
    with connection.transaction(), connection.cursor() as cursor:
        remembered.resolve(Session(cursor), [(f"{0:1000}", f"p{0:1000}")])
        assert (remembered.id("environments", f"{0:1000}"), remembered.id("producers", f"p{0:1000}")) == first
    row: Any = connection.execute("SELECT count(*), max(id) FROM environments").fetchone()
    assert row == (600, 600)  # what is there is not inserted again, which would take numbers


def test_a_batch_may_name_more_than_is_remembered(connection: Connection) -> None:
    """Each of its names has an id for as long as the batch lasts."""
    remembered = Names(bytes_max=1000)
    pairs = [(f"e{number}" * 50, f"p{number}" * 50) for number in range(100)]
    for _ in range(2):
        with connection.transaction(), connection.cursor() as cursor:
            remembered.resolve(Session(cursor), pairs)
            assert len({remembered.id("environments", environment) for environment, _ in pairs}) == 100
            assert len({remembered.id("producers", producer) for _, producer in pairs}) == 100
            remembered.committed()


def test_what_was_rolled_back_is_not_remembered(connection: Connection) -> None:
    """Its id belongs to nobody."""
    remembered = Names()
    for _ in range(2):
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            remembered.resolve(Session(cursor), [("e", "p")])
            cursor.execute("ROLLBACK")
        remembered.rolled_back()
    with connection.transaction(), connection.cursor() as cursor:
        remembered.resolve(Session(cursor), [("e", "p")])
        row: Any = cursor.execute("SELECT id FROM environments WHERE name = 'e'").fetchone()
        assert remembered.id("environments", "e") == row[0]


def test_an_id_that_a_writer_remembers_takes_less_than_200_bytes() -> None:
    """writer_cache_entries bounds a writer's caches in bytes, because digests are of one length."""
    entries = 20_000
    gc.collect()
    tracemalloc.start()
    cache = Ids(entries)
    for start in range(0, 3 * entries, 1000):
        cache.put({number.to_bytes(20, "big"): number for number in range(start, start + 1000)})
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert entries * 7 // 8 <= len(cache) <= entries
    assert taken / entries < 200
