"""A site's own triggers on our tables raise what they like: only what is on the list is taken for the fault of a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Misconfigured, Rejected, Unavailable
from ingest.store.connection import Connection, connect
from ingest.store.sqlstates import BECAUSE_OF_THE_ROW
from lab.engine import Engine, publish, wait_for
from lab.kinds import STORED, body_of, stored_nodes
from lab.servers import Postgres, embedded_broker
from lab.store_model import Pipeline, resource, wire_body

# One of each class of SQLSTATE that a trigger can raise, and each way to raise it.
STATES = ("22000", "23514", "P0001", "XX002", "40001", "ZZ999")
WAYS = {
    "statement": "CREATE TRIGGER broken BEFORE INSERT OR UPDATE ON {} FOR EACH STATEMENT EXECUTE FUNCTION broken()",
    "row": "CREATE TRIGGER broken AFTER INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION broken()",
    "at COMMIT": "CREATE CONSTRAINT TRIGGER broken AFTER INSERT OR UPDATE ON {} INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION broken()",
}
KINDS = tuple(STORED)


def raising(connection: psycopg.Connection[object] | Connection, says: str) -> None:
    connection.execute(
        "CREATE OR REPLACE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "  # type: ignore[call-overload]
        f"$$ BEGIN RAISE {says}; RETURN NULL; END $$"
    )


def tables(connection: Connection) -> list[str]:
    found = connection.execute(
        "SELECT relname::text FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
        "AND NOT relispartition AND relname <> 'schema_migrations' ORDER BY relname"
    )
    return [str(name) for (name,) in found.fetchall()]


@pytest.fixture(scope="module")
def site(postgres: Postgres) -> Iterator[Connection]:
    """One database for all of them: each leaves it as it found it."""
    postgres.execute("postgres", "CREATE DATABASE refusals TEMPLATE template_ingest")
    with connect(postgres.conninfo("refusals")) as opened:
        raising(opened, "EXCEPTION 'no'")
        yield opened
    postgres.execute("postgres", "DROP DATABASE refusals")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", STATES)
def test_a_trigger_on_any_table_is_the_row_s_fault_only_by_the_list(
    site: Connection, postgres: Postgres, state: str, way: str
) -> None:
    """Whatever it raises, at whatever table, in whichever kind of message: nothing of the batch is there, and when the
    trigger has gone the same lane stores all of it, with nothing remembered that was rolled back."""
    raising(site, f"EXCEPTION 'no' USING ERRCODE = '{state}'")
    plan = (Rejected,) if state in BECAUSE_OF_THE_ROW else (Unavailable, Misconfigured)
    names = [f"{state}.{way}.{kind}".replace(" ", "") for kind in KINDS]
    hit = set()
    with connect(postgres.conninfo("refusals")) as opened:
        pipeline = Pipeline(opened)
        for minute, table in enumerate(tables(site), 1):
            bodies = [
                body_of(kind, f"{minute}.{name}", minute) for kind, name in zip(KINDS, names, strict=True)
            ]
            site.execute(WAYS[way].format(table))  # type: ignore[call-overload]
            try:
                pipeline.take(*bodies)
            except plan:
                hit.add(table)
                for kind, name in zip(KINDS, names, strict=True):
                    assert f"{minute}.{name}" not in stored_nodes(site, kind), table
            finally:
                site.execute(f"DROP TRIGGER broken ON {table}")  # type: ignore[call-overload]
            assert set(pipeline.take(*bodies)) <= {Outcome.STORED, Outcome.UNCHANGED}
            for kind, name in zip(KINDS, names, strict=True):
                assert f"{minute}.{name}" in stored_nodes(site, kind), table
    assert {"nodes", "catalogs", "node_facts"} <= hit


@pytest.mark.parametrize("says", ["WARNING 'be warned'", "WARNING 'be warned' USING ERRCODE = '57P01'"])
@pytest.mark.parametrize("way", WAYS)
def test_a_trigger_that_only_warns_is_no_wait_that_was_cut_short(
    site: Connection, postgres: Postgres, way: str, says: str
) -> None:
    """PostgreSQL warns so when COMMIT did not wait for its standby; at the transaction's end a trigger may warn, too."""
    raising(site, says)
    site.execute(WAYS[way].format("nodes"))  # type: ignore[call-overload]
    try:
        with connect(postgres.conninfo("refusals")) as opened:
            body = wire_body(f"{way}.{len(says)}", 1, [resource("/warned")])
            assert Pipeline(opened).take(body) == [Outcome.STORED]
    finally:
        site.execute("DROP TRIGGER broken ON nodes")


QUARANTINE = [
    "CREATE TRIGGER broken BEFORE INSERT ON quarantine FOR EACH STATEMENT EXECUTE FUNCTION broken()",
    "ALTER TABLE quarantine ADD CONSTRAINT broken CHECK (reason = 'mine') NOT VALID",
    "ALTER TABLE quarantine ADD COLUMN broken integer CHECK (broken IS NOT NULL)",
]


@pytest.mark.parametrize("broken", QUARANTINE, ids=["a trigger", "a constraint", "a column"])
def test_a_quarantine_that_refuses_every_row_ends_no_writer(
    database: str, connection: Connection, tmp_path: Path, broken: str
) -> None:
    """That is no message's fault: they wait, one line says what for, nobody dies, and all are settled when it is mended."""
    raising(connection, "EXCEPTION 'no' USING ERRCODE = '22000'")
    connection.execute(broken)  # type: ignore[call-overload]
    good = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(5)]
    with embedded_broker() as broker:
        engine = Engine(
            broker, database, "--workers", "1", "--writers", "1", "--backoff-max-s", "0.1", log=tmp_path / "log"
        )  # fmt: skip
        try:
            engine.wait_ready()
            publish(broker, b"x", *good, b"y")

            def told() -> list[str]:
                return [line["reason"] for line in engine.lines() if line["event"] == "database_unavailable"]

            wait_for(
                lambda: told() and engine.written("ingest_database_connections_total") > 5, engine, "tried"
            )
            assert len(told()) == 1
            assert "quarantine refuses every row" in told()[0]
            assert engine.settled()["quarantined"] == 0
            connection.execute("DROP TRIGGER IF EXISTS broken ON quarantine")
            connection.execute("ALTER TABLE quarantine DROP CONSTRAINT IF EXISTS broken")
            connection.execute("ALTER TABLE quarantine DROP COLUMN IF EXISTS broken")
            settled = engine.wait_settled(7)
            assert (settled["stored"], settled["quarantined"]) == (5, 2)
            assert engine.stop() == 0
        finally:
            engine.kill()
    assert not [line for line in engine.lines() if line["event"] in ("child_died", "message_condemned")]
