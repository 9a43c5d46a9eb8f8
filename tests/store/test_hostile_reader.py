"""What a role that may only read can do to those who write: nothing that matters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Misconfigured, Refused, Unavailable
from ingest.store import locks as store_locks
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import collect_garbage
from ingest.store.locks import (
    CONTENT_LOCK,
    MIGRATION_LOCK,
    NODE_LOCK,
    NodeLocks,
    lock_content_alone,
    node_key,
)
from ingest.store.migrate import grant, migrate
from lab.servers import Postgres
from lab.store_model import Pipeline, resource, stored, wire_body
from tests.store.test_roles import Roles, roles  # noqa: F401 - a fixture

NODE = "n.example.com"
LOCKS = [
    f"SELECT pg_advisory_lock({CONTENT_LOCK})",
    f"SELECT pg_advisory_lock_shared({CONTENT_LOCK})",
    f"BEGIN; SELECT pg_advisory_xact_lock({CONTENT_LOCK})",
    f"SELECT pg_advisory_lock({NODE_LOCK}, {node_key(NODE)})",
    f"SELECT pg_advisory_lock_shared({NODE_LOCK}, {node_key(NODE)})",
    f"SELECT pg_advisory_lock({NODE_LOCK}, {node_key('other.example.com')})",
    f"SELECT pg_advisory_lock({MIGRATION_LOCK})",
    "BEGIN; SELECT * FROM node_resources; SELECT * FROM exported_resources; SELECT * FROM edges",
    "BEGIN; LOCK TABLE node_resources IN ACCESS SHARE MODE",
]


def bodies(minute: int) -> list[bytes]:
    return [
        wire_body(name, minute, [resource(f"/{minute}"), resource("key", type_="Sshkey", exported=True)])
        for name in (NODE, "other.example.com")
    ]


@pytest.mark.parametrize("statement", [*LOCKS, ";".join(LOCKS[3:6])])
def test_a_reader_s_locks_stop_no_writer(roles: Roles, statement: str) -> None:  # noqa: F811
    """Neither one that is at work nor one that begins; nor housekeeping, nor the start of an engine."""
    with ExitStack() as stack:
        reader = stack.enter_context(psycopg.connect(roles.reader, autocommit=True))
        engine = stack.enter_context(connect(roles.engine, lock_timeout_s=0.5, statement_timeout_s=5))
        pipeline = Pipeline(engine)
        pipeline.take(*bodies(1))
        reader.execute(statement)  # type: ignore[call-overload]
        assert pipeline.take(*bodies(2)) == [Outcome.STORED] * 2
        assert migrate(engine) == 0
        late = Pipeline(stack.enter_context(connect(roles.engine, lock_timeout_s=0.5)))
        assert late.take(*bodies(3)) == [Outcome.STORED] * 2
        collected = collect_garbage(engine, patience_s=0.2)
        assert collected.postponed == 0
        assert collected.deleted["resources"] == 2


@pytest.mark.parametrize(
    "statement",
    [
        "LOCK TABLE content_state IN ACCESS SHARE MODE",
        "LOCK TABLE node_locks IN ROW SHARE MODE",
        "LOCK TABLE schema_migrations IN ACCESS SHARE MODE",
        "LOCK TABLE node_resources IN ROW SHARE MODE",
        "SELECT FROM node_locks FOR SHARE",
        "SELECT FROM node_catalogs FOR UPDATE",
        "INSERT INTO node_locks VALUES (1)",
    ],
)
def test_a_reader_cannot_take_the_locks_that_count(roles: Roles, statement: str) -> None:  # noqa: F811
    """They take rights that it does not have."""
    with (
        psycopg.connect(roles.reader) as reader,
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.FeatureNotSupported)),
    ):
        reader.execute(statement)  # type: ignore[call-overload]


def test_writers_keep_each_other_out_while_a_reader_holds_the_advisory_locks(roles: Roles) -> None:  # noqa: F811
    """Of the same node, not of another; and garbage collection, which finds no gap."""
    with (
        psycopg.connect(roles.reader, autocommit=True) as reader,
        connect(roles.engine) as one,
        connect(roles.engine, lock_timeout_s=0.2) as other,
    ):
        for statement in (LOCKS[0], LOCKS[3]):
            reader.execute(statement)  # type: ignore[call-overload]
        locks, others = NodeLocks(one), NodeLocks(other)
        for each in (locks, others):
            each.prepare([NODE, "other.example.com"])
        with locks.transaction():
            locks.take([NODE])
            with pytest.raises(psycopg.errors.LockNotAvailable), others.transaction():
                others.take([NODE])
            with others.transaction():
                others.take(["other.example.com"])
            with other.transaction():
                assert not lock_content_alone(other, 0.05, lambda _: None)
        with other.transaction():
            assert lock_content_alone(other, 0.05, lambda _: None)
            one.execute("SET statement_timeout = '200ms'")
            with pytest.raises(psycopg.errors.QueryCanceled), locks.transaction():
                locks.take([NODE])


class Old:
    """What an engine of the version before does about locks."""

    def __init__(self, conninfo: str) -> None:
        self.connection = psycopg.connect(conninfo)

    def write(self) -> None:
        self.connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [CONTENT_LOCK])
        self.connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [NODE_LOCK, node_key(NODE)])

    def finds_a_gap(self) -> bool:
        row = self.connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [CONTENT_LOCK]).fetchone()
        self.connection.rollback()
        return row == (True,)

    def gets_the_node(self) -> bool:
        sql = "SELECT pg_try_advisory_xact_lock(%s, %s)"
        row = self.connection.execute(sql, [NODE_LOCK, node_key(NODE)]).fetchone()
        self.connection.rollback()
        return row == (True,)


def test_an_engine_of_the_version_before_and_this_one_keep_each_other_out(roles: Roles) -> None:  # noqa: F811
    """A node's two writers, and one's writers and the other's garbage collection, either way."""
    old = Old(roles.engine)
    with connect(roles.engine) as one, connect(roles.engine) as other:
        clock = iter(range(1000))
        locks = NodeLocks(one, patience_s=3, pause=lambda _: None, now=lambda: float(next(clock)))
        locks.prepare([NODE, "other.example.com"])
        with locks.transaction():
            locks.take([NODE])
            assert not old.finds_a_gap()
            assert not old.gets_the_node()
        assert old.finds_a_gap()
        old.write()
        with pytest.raises(Unavailable, match="locked by process"), locks.transaction():
            locks.take([NODE])
        with locks.transaction():
            locks.take(["other.example.com"])
        with one.transaction():
            assert not lock_content_alone(one, 0.05, lambda _: None)
        old.connection.rollback()
        with one.transaction():
            assert lock_content_alone(one, 0.05, lambda _: None)
            assert not old.finds_a_gap()
        old.connection.execute("SELECT pg_advisory_xact_lock(%s)", [CONTENT_LOCK])  # its garbage collection
        waits = iter([lambda: None, old.connection.rollback])
        patient = NodeLocks(other, pause=lambda _: next(waits)())
        with patient.transaction():
            patient.take([NODE])
    old.connection.close()


@pytest.mark.parametrize("which", ["content", "a node", "a node beside one that a reader has"])
def test_a_lock_that_was_given_back_before_the_look_is_taken(
    roles: Roles,  # noqa: F811
    which: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That nobody is seen to hold what could not be taken is no reason to go without it."""
    holder, look = psycopg.connect(roles.engine), store_locks.advisory_holders

    def too_late(*given: Any) -> list[store_locks.Holder]:
        holder.rollback()
        return look(*given)

    monkeypatch.setattr(store_locks, "advisory_holders", too_late)
    lock = (CONTENT_LOCK,) if which == "content" else (NODE_LOCK, node_key(NODE))
    holder.execute(f"SELECT pg_advisory_xact_lock({', '.join(map(str, lock))})")  # type: ignore[call-overload]
    old = Old(roles.engine)
    with connect(roles.engine) as one, psycopg.connect(roles.reader) as reader:
        if which.endswith("has"):
            reader.execute("SELECT pg_advisory_lock(%s, %s)", [NODE_LOCK, node_key("other.example.com")])
        locks = NodeLocks(one, pause=lambda _: None)
        locks.prepare([NODE, "other.example.com"])
        with locks.transaction():
            locks.take([NODE, "other.example.com"])
            assert not old.finds_a_gap()
            assert not old.gets_the_node()
    holder.close()
    old.connection.close()


def test_garbage_collection_does_not_go_without_a_lock_that_was_given_back(
    roles: Roles,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It finds the gap the next time."""
    holder, look = psycopg.connect(roles.engine), store_locks.advisory_holders
    turns = itertools.count()

    def at_the_wrong_time(*given: Any) -> list[store_locks.Holder]:
        turn = next(turns)
        if turn == 1:
            holder.rollback()
        found = look(*given)
        if turn == 0:
            holder.execute("SELECT pg_advisory_xact_lock_shared(%s)", [CONTENT_LOCK])
        return found

    monkeypatch.setattr(store_locks, "advisory_holders", at_the_wrong_time)
    old = Old(roles.engine)
    with connect(roles.engine) as one, one.transaction():
        assert lock_content_alone(one, 0.05, lambda _: None)
        assert not old.finds_a_gap()
    holder.close()
    old.connection.close()


def test_rows_that_a_crash_took_are_put_back(connection: Connection) -> None:
    """The transaction that misses one is given up, and the next one has it."""
    pipeline = Pipeline(connection)
    pipeline.take(*bodies(1))
    connection.execute("TRUNCATE node_locks")
    with pytest.raises(Unavailable, match="node_locks"):
        pipeline.take(*bodies(2))
    assert pipeline.take(*bodies(2)) == [Outcome.STORED] * 2


# Each is a better match for what our statements call than PostgreSQL's own, which takes anything.
TRAPS = [
    "CREATE FUNCTION {schema}.unnest(integer[]) RETURNS SETOF integer LANGUAGE plpgsql AS $$ BEGIN {trap}; END $$",
    "CREATE FUNCTION {schema}.unnest(bytea[]) RETURNS SETOF bytea LANGUAGE plpgsql AS $$ BEGIN {trap}; END $$",
    "CREATE FUNCTION {schema}.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN {trap}; END $$",
    "CREATE FUNCTION {schema}.cardinality(integer[]) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN {trap}; END $$",
    "CREATE FUNCTION {schema}.array_position(integer[], integer) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN {trap}; END $$",
    "CREATE FUNCTION {schema}.trapped(name, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN {trap}; END $$",
    "CREATE OPERATOR {schema}.= (LEFTARG = name, RIGHTARG = text, FUNCTION = {schema}.trapped)",
    "CREATE FUNCTION {schema}.pg_backend_pid() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN {trap}; END $$",
    "CREATE FUNCTION {schema}.count(integer) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN {trap}; END $$",
]  # fmt: skip
TRAP = "RAISE EXCEPTION 'trapped %', current_user"


@pytest.fixture
def open_schema(roles: Roles, connection: Connection) -> Iterator[Roles]:  # noqa: F811
    """Our tables in a schema in which everybody may create, as public was up to PostgreSQL 14."""
    connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    yield roles
    connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


def set_traps(conninfo: str, schema: str = "public") -> None:
    with psycopg.connect(conninfo, autocommit=True) as hostile:
        for trap in TRAPS:
            hostile.execute(trap.format(schema=schema, trap=TRAP))  # type: ignore[call-overload]


def test_a_function_that_a_reader_makes_in_our_schema_is_never_called(open_schema: Roles) -> None:
    """Nor an operator: writing, reading, collecting and migrating go on as if it were not there."""
    set_traps(open_schema.reader)
    with psycopg.connect(open_schema.engine) as plain, pytest.raises(psycopg.Error, match="trapped"):
        plain.execute("SELECT unnest('{1}'::integer[])")  # the traps work
    with connect(open_schema.engine) as engine:
        assert engine.pinned.home.is_open
        assert "public" not in str(engine.execute("SHOW search_path").fetchone())
        pipeline = Pipeline(engine)
        for minute in (1, 2):
            assert pipeline.take(*bodies(minute)) == [Outcome.STORED] * 2
        assert collect_garbage(engine).postponed == 0
        assert stored(engine, NODE)["certname"] == NODE
        assert migrate(engine) == 0


def test_a_table_that_a_reader_makes_in_our_schema_is_no_staging_table(open_schema: Roles) -> None:
    """What is written goes through tables of the session's own."""
    with psycopg.connect(open_schema.reader, autocommit=True) as hostile:
        for table in ("stage_tags", "stage_resources", "stage_catalog_resources", "pg_class", "unnest"):
            hostile.execute(f"CREATE TABLE public.{table} (x text)")  # type: ignore[call-overload]
    with connect(open_schema.engine) as engine:
        assert Pipeline(engine).take(*bodies(1)) == [Outcome.STORED] * 2


@pytest.mark.parametrize(
    "statements", [TRAPS[:1], TRAPS[4:5], TRAPS[5:7]], ids=["unnest", "position", "operator"]
)
def test_views_are_not_made_over_what_others_left_in_the_schema(
    postgres: Postgres, statements: list[str]
) -> None:
    """A fresh database whose schema public everybody may use: migrate names what is there and makes nothing."""
    with fresh(postgres) as (owner, hostile):
        for statement in statements:
            hostile.execute(statement.format(schema="public", trap=TRAP))  # type: ignore[call-overload]
        with connect(owner) as opened, pytest.raises(Refused, match="other roles have made"):
            migrate(opened)
        row: Any = hostile.execute("SELECT to_regclass('public.catalogs')").fetchone()
        assert row == (None,)
        hostile.execute("DROP OWNED BY CURRENT_USER")
        with connect(owner) as opened:
            assert migrate(opened) > 0
            assert "public" not in str(opened.execute("SHOW search_path").fetchone())
            assert Pipeline(opened).take(*bodies(1)) == [Outcome.STORED] * 2


def test_a_table_of_migrations_that_somebody_else_made_first_is_not_believed(postgres: Postgres) -> None:
    """It could say that all is there already."""
    with fresh(postgres) as (owner, hostile):
        hostile.execute(
            "CREATE TABLE public.schema_migrations "
            "(number integer PRIMARY KEY, name text, applied_at timestamptz DEFAULT now())"
        )
        hostile.execute("GRANT ALL ON public.schema_migrations TO PUBLIC")
        with connect(owner) as opened, pytest.raises(Refused, match="belongs to the role"):
            migrate(opened)


def test_a_reader_who_holds_the_lock_of_migrations_delays_them_only(postgres: Postgres) -> None:
    """A lock on our own table keeps two programs apart."""
    with fresh(postgres) as (owner, hostile):
        hostile.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        pauses: list[float] = []
        with connect(owner) as opened:
            assert migrate(opened, pause=pauses.append) > 0
            assert migrate(opened, pause=pauses.append) == 0
        assert sum(pauses) == pytest.approx(5.0)


class fresh:  # noqa: N801 - a context manager
    """A database without tables, and a connection of a role that owns nothing in it."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres = postgres

    def __enter__(self) -> tuple[str, psycopg.Connection[Any]]:
        self.postgres.execute("postgres", "CREATE DATABASE fresh")
        self.postgres.execute("postgres", "CREATE ROLE hostile LOGIN")
        self.postgres.execute("fresh", "GRANT CREATE ON SCHEMA public TO PUBLIC")
        self.hostile = psycopg.connect(self.postgres.conninfo("fresh", "hostile"), autocommit=True)
        return self.postgres.conninfo("fresh"), self.hostile

    def __exit__(self, *_: object) -> None:
        self.hostile.close()
        self.postgres.execute("postgres", "DROP DATABASE fresh WITH (FORCE)")
        self.postgres.execute("postgres", "DROP ROLE hostile")


ROLES = [
    "o'brien", 'say "hi"', "100%", "%s", "%(x)s", "{0}", "$grant$", "a; DROP TABLE nodes", "Über-Rolle", "日本語",
    "ROLE_NAME", "SCHEMA_NAME", "with space ", "x" * 63, "ü" * 31, "back\\slash", "a\nb", "--", "Public role", "select",
    "a%s','d',chr(34));END$grant$;COMMIT;ALTER ROLE r SUPERUSER;--",
]  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_any_role_can_be_granted_to_and_nobody_else_is(connection: Connection, role: str) -> None:
    """Whatever its name holds: it gets what the engine needs, and no role becomes more than it was."""
    quoted = psycopg.sql.Identifier(role)
    others = ["a", "r"]
    connection.execute(psycopg.sql.SQL("CREATE ROLE {}").format(quoted))
    for other in others:
        connection.execute(f"CREATE ROLE {other}")  # type: ignore[call-overload]
    connection.execute("CREATE SCHEMA d")
    try:
        grant(connection, role, None)
        grant(connection, None, role)
        rows = connection.execute(
            "SELECT rolname, has_table_privilege(oid, 'public.catalogs', 'UPDATE'), "
            "has_table_privilege(oid, 'public.node_locks', 'UPDATE'), rolsuper FROM pg_roles WHERE rolname = ANY (%s)",
            [[role, *others]],
        ).fetchall()
        assert sorted(rows) == sorted(
            [(role, True, True, False)] + [(o, False, False, False) for o in others]
        )
        row = connection.execute("SELECT count(*) FROM nodes").fetchone()
        assert row == (0,)
    finally:
        connection.execute(psycopg.sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(quoted))
        connection.execute("DROP ROLE a; DROP ROLE r; DROP SCHEMA d")


@pytest.mark.parametrize(
    ("role", "says"),
    [
        ("public", "everybody"), ("PUBLIC", "everybody"), ("PuBlIc", "everybody"), ("nobody_has_it", "nobody_has_it"),
        ("", "no role"), ("x" * 64, "no role"), ("\udcff", "no role"), ("a\0b", "no role"), ("current_user", "no role"),
        ("CURRENT_ROLE", "no role"), ("none", "no role"), ("Postgres", "no role"), ('"postgres"', "no role"),
    ],
)  # fmt: skip
def test_who_is_no_role_is_granted_nothing(connection: Connection, role: str, says: str) -> None:
    """Everybody is not one, nor a keyword, nor a name that PostgreSQL would cut to another role's."""
    connection.execute(f"CREATE ROLE {'x' * 63}")  # type: ignore[call-overload]
    before = connection.execute("SELECT relname, relacl FROM pg_class ORDER BY oid").fetchall()
    try:
        for engine, reader in ((role, None), (None, role), ("postgres", role)):
            with pytest.raises(Misconfigured, match=says):
                grant(connection, engine, reader)
        assert connection.execute("SELECT relname, relacl FROM pg_class ORDER BY oid").fetchall() == before
    finally:
        connection.execute(f"DROP ROLE {'x' * 63}")  # type: ignore[call-overload]
