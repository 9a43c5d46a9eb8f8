"""What ``ingest migrate --grant-to ROLE --grant-read-to ROLE`` gives is enough, and no more."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from ingest.errors import Misconfigured
from ingest.store.connection import Connection
from ingest.store.migrate import grant
from lab.engine import Engine, publish, wait_for
from lab.facts import facts_body
from lab.servers import Postgres, embedded_broker
from lab.store_model import resource, wire_body
from tests.store.test_writing import deactivate

VIEWS = (
    "node_catalogs", "node_resources", "exported_resources", "edges", "factsets", "facts", "fact_contents", "fact_names",
    "fact_paths", "inventory", "package_inventory", "packages",
)  # fmt: skip
_numbers = itertools.count()


class Roles(NamedTuple):
    engine: str  # conninfo
    reader: str


@pytest.fixture
def roles(postgres: Postgres, database: str, connection: Connection) -> Iterator[Roles]:
    """Two roles that may log in, granted by the command of the schema's owner."""
    number = next(_numbers)
    engine, reader = f"Engine {number}", f"reader_{number}"
    for role in (engine, reader):
        connection.execute(f'CREATE ROLE "{role}" LOGIN')  # type: ignore[call-overload]
    arguments = ["migrate", "--database", database, "--grant-to", engine, "--grant-read-to", reader]
    for _ in range(2):  # and a second time, as after an upgrade
        done = subprocess.run(
            [sys.executable, "-m", "ingest", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"granted to {engine}, {reader}" in done.stdout
    yield Roles(make_conninfo(database, user=engine), make_conninfo(database, user=reader))
    for role in (engine, reader):
        connection.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')  # type: ignore[call-overload]


def tables(connection: Connection) -> list[str]:
    rows: Any = connection.execute(
        "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'public'"
    ).fetchall()
    return sorted(name for (name,) in rows)


def test_the_engine_runs_with_its_role(roles: Roles, connection: Connection, tmp_path: Path) -> None:
    """Catalogs, commands, quarantine, expiry, purging and garbage collection need nothing else."""
    with embedded_broker() as broker:
        engine = Engine(
            broker, roles.engine, "--no-migrate", "--workers", "1", "--gc-interval-s", "0.5", "--node-ttl-s", "1",
            "--node-purge-ttl-s", "0.1", log=tmp_path / "log",
        )  # fmt: skip
        try:
            engine.wait_ready()
            key = resource("key", type_="Sshkey", exported=True)
            for minute in (1, 2):
                publish(broker, wire_body("n.example.com", minute, [resource(f"/{minute}"), key]))
                publish(broker, facts_body("n.example.com", minute, {"a": minute}, [["p", "1", "apt"]]))
            publish(broker, deactivate("n.example.com", 3), b"no catalog")
            settled = engine.wait_settled(6)
            assert settled["quarantined"] == 1
            assert settled["stored"] + settled["superseded"] == 5

            def nothing_left() -> bool:
                row: Any = connection.execute(
                    "SELECT (SELECT count(*) FROM nodes) + (SELECT count(*) FROM resources)"
                    " + (SELECT count(*) FROM fact_shapes) + (SELECT count(*) FROM package_versions)"
                )
                return bool(row.fetchone()[0] == 0)

            wait_for(nothing_left, engine, "purged and collected")
            assert engine.stop() == 0
            assert not [line for line in engine.lines() if line["level"] == "error"]
            assert not [line for line in engine.lines() if line["event"] == "housekeeping_postponed"]
        finally:
            engine.kill()
    for command in (["gc"], ["quarantine", "list"], ["query", "exported", "--type", "Sshkey"]):
        done = subprocess.run(
            [sys.executable, "-m", "ingest", *command, "--database", roles.engine], capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


FORBIDDEN = [
    "CREATE TABLE own ()",
    "DROP TABLE resources",
    "TRUNCATE catalogs",
    "ALTER TABLE nodes ADD COLUMN x integer",
    "INSERT INTO schema_migrations VALUES (9999, 'x')",
    "UPDATE resources SET parameters = '{}'",
    "UPDATE tags SET name = 'x'",
    "UPDATE environments SET name = 'x'",
    "UPDATE producers SET name = 'x'",
    "UPDATE fact_bases SET leaves = '{}'",
    "UPDATE package_versions SET version = '2'",
    "DELETE FROM content_state",
    "DELETE FROM catalogs",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_engine_cannot_do_more(roles: Roles, statement: str) -> None:
    """It changes no content, no schema, and no other table than it must."""
    with psycopg.connect(roles.engine) as opened, pytest.raises(psycopg.errors.InsufficientPrivilege):
        opened.execute(statement)  # type: ignore[call-overload]


def test_a_reader_sees_the_views_and_nothing_else(roles: Roles, connection: Connection) -> None:
    """Every view can be read, no table can, and nothing can be written."""
    rows: Any = connection.execute(
        "SELECT schemaname || '.' || viewname FROM pg_views WHERE schemaname IN ('public', 'storeconfigs')"
    ).fetchall()
    views = [name for (name,) in rows]
    assert {f"public.{name}" for name in VIEWS} <= set(views)
    with psycopg.connect(roles.reader, autocommit=True) as opened:
        for view in views:
            opened.execute(f"SELECT * FROM {view}")  # type: ignore[call-overload]
        for table in tables(connection):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                opened.execute(f"SELECT FROM {table}")  # type: ignore[call-overload]
        for statement in ("CREATE TABLE own ()", "DELETE FROM nodes"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                opened.execute(statement)


def test_a_role_that_does_not_exist_is_named(database: str) -> None:
    """One line with its name; no stack trace."""
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "migrate", "--database", database, "--grant-to", "nobody_has_it"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "nobody_has_it" in done.stderr
    assert "Traceback" not in done.stderr


ODD_ROLES = [
    "a b", 'a"b', "a'b", "a%b", "%s", "%(x)s", "a\\b", "$1", "$$", "a--b", "a;b", "a/*b", "E'x'", "e\u0301", "日本", "😀",
    "PUBLIC ", "current_user", "SESSION_USER", "user", "all", "group", "role", "a\tb", "a\nb", "\u202eabc", "a\u009bb",
    "x" * 63, "é" * 31,
    "{}", "{0}", "a.b", "a,b", "1", '""',
]  # fmt: skip


def test_rights_go_to_a_role_of_any_name_and_to_nobody_else(database: str, connection: Connection) -> None:
    """By each of the three ways; what is a word of SQL is a name here."""
    holders = "SELECT count(*) FROM pg_class, aclexplode(relacl) AS acl WHERE acl.grantee = %s::regrole"
    everybody = (
        "SELECT count(*) FROM pg_class, aclexplode(relacl) AS acl "
        "WHERE acl.grantee = 0 AND relnamespace = 'public'::regnamespace"
    )
    for role in ODD_ROLES:
        name = Identifier(role)
        connection.execute(SQL("CREATE ROLE {}").format(name))
        for roles in ((role, None), (None, role), (None, None, role)):
            grant(connection, *roles)
            found: Any = connection.execute(holders, [name.as_string(connection)]).fetchone()
            assert found[0] > 0, role
            connection.execute(SQL("DROP OWNED BY {}").format(name))
        connection.execute(SQL("DROP ROLE {}").format(name))
    assert connection.execute(everybody).fetchone() == (0,)


@pytest.mark.parametrize("role", ["public", "PUBLIC", "", "nobody_has_it", "x" * 64, "a\0b"])
def test_who_is_no_role_gets_nothing(database: str, connection: Connection, role: str) -> None:
    """Everybody, nobody, a name that PostgreSQL would cut."""
    for roles in ((role, None), (None, role), (None, None, role)):
        with pytest.raises(Misconfigured):
            grant(connection, *roles)
