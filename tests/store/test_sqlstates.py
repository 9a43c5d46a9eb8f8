"""Whose fault an error of PostgreSQL is: a list of what is refused because of the row, and everything else waits."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from ingest.errors import Misconfigured, Rejected, Unavailable
from ingest.store.connection import Connection, connect, require_writable
from ingest.store.sqlstates import BECAUSE_OF_THE_ROW, translate
from lab.engine import Engine, publish, wait_for
from lab.servers import Postgres, embedded_broker
from lab.store_model import expected, resource, stored, wire_body

# Every SQLSTATE that psycopg knows, that is: of PostgreSQL's own list; and some that nobody knows.
ALL = sorted(
    {kind.sqlstate for kind in vars(pg).values() if isinstance(getattr(kind, "sqlstate", None), str)}
)
UNKNOWN = ["XX009", "ZZ001", "P0099", "53999", "57999", "22ZZZ", "23ZZZ", "54ZZZ", "ABCDE"]


@pytest.fixture(scope="module")
def any_session(postgres: Postgres) -> Iterator[Connection]:
    """One for many errors: they change nothing."""
    postgres.execute("postgres", "CREATE DATABASE sqlstates TEMPLATE template_ingest")
    with connect(postgres.conninfo("sqlstates")) as opened:
        yield opened
    postgres.execute("postgres", "DROP DATABASE sqlstates")


def raised(connection: Connection, state: str) -> psycopg.Error:
    """An error with that SQLSTATE, as PostgreSQL reports it."""
    with pytest.raises(psycopg.Error) as found:
        connection.execute(
            f"DO $$ BEGIN RAISE EXCEPTION 'said by the server' USING ERRCODE = '{state}', DETAIL = 'a secret', "  # type: ignore[call-overload]
            "HINT = 'a secret'; END $$"
        )
    assert found.value.sqlstate == state
    return found.value


@pytest.mark.parametrize("state", BECAUSE_OF_THE_ROW)
def test_what_is_the_row_s_fault_is_refused(any_session: Connection, state: str) -> None:
    """Each on the list, and it is the SQLSTATE that the name beside it has; the reason tells no value."""
    assert pg.lookup(state).__name__.lower() == BECAUSE_OF_THE_ROW[state].replace("_", "")
    plan = translate(raised(any_session, state))
    assert isinstance(plan, Rejected)
    assert str(plan) == "said by the server"


@pytest.mark.parametrize(
    "state", [s for s in ALL if s not in BECAUSE_OF_THE_ROW and s[:2] not in ("00", "01", "02")] + UNKNOWN
)
def test_everything_else_waits(any_session: Connection, state: str) -> None:
    """Damage, disk, memory, permission, an end of the server, races, what nobody has heard of: no message is refused,
    and no value of a row is told."""
    plan = translate(raised(any_session, state))
    assert isinstance(plan, Unavailable | Misconfigured)
    assert "said by the server" in str(plan)
    assert "secret" not in str(plan)


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("XX001", "damaged"), ("XX002", "REINDEX"), ("XX000", "own log"), ("53100", "make room"), ("53200", "memory"),
        ("53300", "max_connections"), ("58030", "disk"), ("42501", "--grant-to"), ("42P01", "ingest migrate"),
        ("25006", "read-only"), ("23505", "amcheck"), ("23503", "amcheck"), ("P0001", "until it is mended"),
        ("ABCDE", "until it is mended"),
    ],
)  # fmt: skip
def test_the_remedy_is_named(any_session: Connection, state: str, remedy: str) -> None:
    """With the SQLSTATE, for whoever looks it up."""
    error = pg.lookup(state)("said by the server") if state in ALL else raised(any_session, state)
    plan = str(translate(error))
    assert remedy in plan
    assert state in plan


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'x'::integer", "SELECT 1e400::double precision", "SELECT '{'::jsonb", r"SELECT '\u0000'::json ->> 0",
        "SELECT '2026-13-45'::timestamptz", "SELECT '900000-01-01'::timestamptz", "SELECT repeat('[', 100000)::jsonb",
        "INSERT INTO nodes (certname) SELECT string_agg(chr(65536 + n), '') FROM generate_series(1, 2000) n",
        "INSERT INTO nodes (certname) VALUES (NULL)", "SELECT 'x'::varchar(1), 70000::smallint",
    ],
)  # fmt: skip
def test_what_postgresql_really_says_of_a_bad_value_is_on_the_list(
    any_session: Connection, statement: str
) -> None:
    """Numbers, JSON, times, depth, the size of an index entry."""
    with pytest.raises(psycopg.Error) as found:
        any_session.execute(statement)  # type: ignore[call-overload]
    assert isinstance(translate(found.value), Rejected), found.value.sqlstate


def test_what_psycopg_cannot_encode_is_the_row_s_fault(any_session: Connection) -> None:
    """There is no SQLSTATE then: it never came to the server."""
    with pytest.raises(psycopg.DataError) as found:
        any_session.execute("SELECT %s", ["a\0b"])
    assert isinstance(translate(found.value), Rejected)


DAMAGE = [
    ("XX002", "index \"resources_digest_key\" contains unexpected zero page at block 3"),
    ("XX001", "invalid page in block 7 of relation base/5/16384"),
    ("XX000", "could not find left sibling of block 3"),
    ("53100", "could not extend file: No space left on device"),
    ("42501", "permission denied for table resources"),
    ("23505", "duplicate key value violates unique constraint"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "says"), DAMAGE, ids=[state for state, _ in DAMAGE])
def test_an_engine_waits_for_a_damaged_database(
    database: str, connection: Connection, tmp_path: Path, state: str, says: str
) -> None:
    """No message is quarantined or acknowledged, nobody dies, the log says it now and then, with the remedy, and the
    engine is not ready; when it is mended, all is stored."""
    connection.execute(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "  # type: ignore[call-overload]
        f"$$ BEGIN RAISE EXCEPTION '{says}' USING ERRCODE = '{state}'; END $$;"
        "CREATE TRIGGER broken BEFORE INSERT ON resources FOR EACH STATEMENT EXECUTE FUNCTION broken()"
    )
    bodies = [wire_body(f"n{n}.example.com", 1, [resource(f"/{n}")]) for n in range(5)]
    with embedded_broker() as broker:
        engine = Engine(
            broker,
            database,
            "--workers",
            "1",
            "--writers",
            "1",
            "--backoff-max-s",
            "0.1",
            log=tmp_path / "log",
        )
        try:
            engine.wait_ready()
            publish(broker, *bodies)

            def tries() -> float:
                return engine.written("ingest_database_connections_total")

            wait_for(lambda: tries() > 10, engine, "tried ten times")
            assert not engine.status()["health"]["ready"]
            assert sum(engine.settled().values()) == 0
            told = [line["reason"] for line in engine.lines() if line["event"] == "database_unavailable"]
            assert len(told) == 1
            assert says in told[0]
            assert state in told[0]
            connection.execute("DROP TRIGGER broken ON resources")
            assert engine.wait_settled(5)["stored"] == 5
            wait_for(lambda: engine.status()["health"]["ready"], engine, "ready again")
            assert engine.stop() == 0
            assert not {"child_died", "message_quarantined"} & {line["event"] for line in engine.lines()}
        finally:
            engine.kill()
    for body in bodies:
        assert stored(connection, expected(body)["certname"]) == expected(body)
    row: Any = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    assert row == (0,)


def test_an_index_whose_pages_are_zeroed_is_no_message_s_fault(tmp_path: Path) -> None:
    """Damage in a file, not an error made up: catalogs wait, and are stored after REINDEX."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-damage-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    server.start()
    try:
        from ingest.store.migrate import migrate

        with connect(server.conninfo("postgres")) as opened:
            migrate(opened)
            opened.execute(
                "INSERT INTO resources (digest, exported, type, title, tag_ids, parameters) "
                "SELECT sha256(n::text::bytea), false, 'T', n::text, '{}', '{}' FROM generate_series(1, 20000) n"
            )
            opened.execute("CHECKPOINT")
            row: Any = opened.execute("SELECT pg_relation_filepath('resources_digest_key')").fetchone()
        server.stop()
        file = server.data / row[0]
        with file.open("r+b") as index:
            pages = file.stat().st_size // 8192
            for page in range(1, pages):
                index.seek(page * 8192)
                index.write(b"\0" * 8192)
        server.start()
        body = wire_body("n.example.com", 1, [resource(f"/{n}") for n in range(50)])
        with embedded_broker() as broker, connect(server.conninfo("postgres")) as opened:
            engine = Engine(
                broker, server.conninfo("postgres"), "--workers", "1", "--writers", "1", log=tmp_path / "log"
            )
            try:
                engine.wait_ready()
                publish(broker, body)
                wait_for(lambda: "database_unavailable" in engine.log.read_text(), engine, "waiting")
                told = [line["reason"] for line in engine.lines() if line["event"] == "database_unavailable"]
                assert "XX002" in told[0], told
                assert sum(engine.settled().values()) == 0
                opened.execute("REINDEX INDEX resources_digest_key")
                assert engine.wait_settled(1)["stored"] == 1
                assert engine.stop() == 0
            finally:
                engine.kill()
            assert stored(opened, "n.example.com") == expected(body)
    finally:
        server.stop()
        shutil.rmtree(directory)


def test_a_standby_is_refused_by_what_writes_and_answers_what_reads(tmp_path: Path) -> None:
    """By name, with the remedy."""
    from ingest.store.catalog.reading import read_catalog
    from ingest.store.migrate import migrate
    from lab.store_model import Pipeline
    from tests.faults.world import Standby

    directory = Path(tempfile.mkdtemp(prefix="ingest-standby-"))
    directory.chmod(0o755)
    for name in ("primary", "standby"):
        (directory / name).mkdir(mode=0o755)
    primary = Postgres(directory / "primary")
    primary.start(wal_level="replica")
    standby = None
    try:
        with connect(primary.conninfo("postgres")) as opened:
            migrate(opened)
            Pipeline(opened).take(wire_body("n", 1, [resource("/a")]))
        standby = Standby(directory / "standby", primary)
        with connect(standby.conninfo("postgres")) as opened:
            assert read_catalog(opened, "n").header.certname == "n"
            with pytest.raises(Misconfigured, match=r"is a standby.*target_session_attrs"):
                require_writable(opened)
    finally:
        if standby is not None:
            standby.stop()
        primary.stop()
        shutil.rmtree(directory)
