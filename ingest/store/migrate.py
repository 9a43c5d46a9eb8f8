"""Brings a database to this program's schema: numbered files, each in one transaction."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from psycopg.sql import SQL, Identifier, Literal

from ingest.core.printable import escape_unprintable
from ingest.errors import Misconfigured, Refused
from ingest.store.connection import Connection, translate_errors
from ingest.store.locks import MIGRATION_LOCK, lock_migrations
from ingest.store.queries import query
from ingest.store.session_settings import Home, look_again

# A program of the version before migrates in less, or is waited for by the lock on the table.
COURTESY_S = 5.0
IDENTIFIER_BYTES_MAX = 63  # PostgreSQL cuts what is longer, and would mean another role: NAMEDATALEN


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, SQL) of every migration this program has, in order."""
    found = []
    for file in files(__package__).joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append((int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found)


def migrate(
    connection: Connection,
    announce: Callable[[str], None] = lambda line: None,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Runs what is missing; returns how many ran. Raises Refused when the schema is newer than the program, and
    Misconfigured where there is no schema that it may lie in.

    Several programs may call it at once: a lock lets one work and the others find nothing to do.
    """
    version = schema_version(connection)
    check(version)
    if version == migrations()[-1][0]:
        return 0
    _require_own_schema(connection)
    with translate_errors():
        is_locked = lock_migrations(connection, COURTESY_S, pause)
        try:
            with _creating(connection):
                connection.execute(query("create_migrations_table"))
            done = sum(_run(connection, number, name, text, announce) for number, name, text in migrations())
        finally:
            if is_locked and not connection.closed:
                connection.execute(query("unlock_migrations"), [MIGRATION_LOCK])
        connection.pinned = connection.pinned._replace(home=look_again(connection, connection.pinned.home))
    return done


def _run(connection: Connection, number: int, name: str, text: str, announce: Callable[[str], None]) -> bool:
    """One migration, unless another program was quicker."""
    with _creating(connection):
        connection.execute(query("lock_schema"))
        version = schema_version(connection)
        check(version)
        if number <= version:
            return False
        connection.execute(SQL(text))
        connection.execute(query("record_migration"), [number, name])
        if connection.pinned.home.is_shared:
            # A view keeps the functions that its text was understood to mean.
            _refuse_strangers(look_again(connection, connection.pinned.home))
    announce(f"migrated to {number:04d} {name}")
    return True


@contextmanager
def _creating(connection: Connection) -> Iterator[None]:
    """A transaction in which what is created lies in our schema."""
    with connection.transaction():
        connection.execute(query("set_path"), [connection.pinned.home.own_path, True])
        yield


def _require_own_schema(connection: Connection) -> None:
    home = connection.pinned.home
    if home.schema is None:
        raise Misconfigured(
            "--database",
            "the role's search_path names no schema that is there, so there is none to create the tables in: "
            "CREATE SCHEMA, or ALTER ROLE ... SET search_path",
        )
    _refuse_strangers(home)
    if home.is_shared and home.table_owner is not None:
        raise Refused(
            f"schema_migrations in schema {home.schema} belongs to the role {home.table_owner}, and others may create "
            f"tables there: migrate as that role, or REVOKE CREATE ON SCHEMA {home.schema} FROM PUBLIC first"
        )


def note_on_open(home: Home) -> str:
    """What a person should do about a schema that others may create in; we look nothing up there meanwhile."""
    return (
        f"others may create objects in schema {home.schema}, or have: REVOKE CREATE ON SCHEMA {home.schema} FROM PUBLIC "
        "keeps theirs apart from this program's"
    )


def _refuse_strangers(home: Home) -> None:
    if home.strangers:
        raise Refused(
            f"other roles have made functions or operators in schema {home.schema}, which our views could take for "
            f"PostgreSQL's own ({', '.join(home.strangers)}): drop them, then "
            f"REVOKE CREATE ON SCHEMA {home.schema} FROM PUBLIC"
        )


def schema_version(connection: Connection) -> int:
    """The number of the newest migration in the database; 0 for an empty one."""
    with translate_errors():
        row = connection.execute(query("has_migrations_table"), [connection.home]).fetchone()
        if row is None or not row[0]:
            return 0
        row = connection.execute(query("schema_version")).fetchone()
        assert row is not None
        return int(str(row[0]))


def check(version: int) -> None:
    """Raises Refused when a schema of that version is not one this program can work on."""
    newest = migrations()[-1][0]
    if version > newest:
        raise Refused(
            f"the database has schema {version}, this program knows {newest}: "
            "install the newer program that migrated it, or name another --database"
        )


def require_current(connection: Connection) -> None:
    """Raises Refused unless the schema is exactly this program's."""
    version = schema_version(connection)
    check(version)
    newest = migrations()[-1][0]
    if version < newest:
        raise Refused(f"the database has schema {version}, this program needs {newest}: run 'ingest migrate'")


def grant(
    connection: Connection, engine_role: str | None, reader_role: str | None, front_role: str | None = None
) -> None:
    """Lets ``engine_role`` do what ``ingest run`` needs, ``reader_role`` read the views and ``front_role`` what queries of
    ``ingest serve`` read, no more. Raises Misconfigured for a name that is no role's, and for everybody's."""
    wanted = [
        (setting, name, role)
        for setting, name, role in (
            ("--grant-to", "grant_engine", engine_role),
            ("--grant-read-to", "grant_reader", reader_role),
            ("--grant-serve-to", "grant_front", front_role),
        )
        if role is not None
    ]
    with translate_errors():
        for setting, _, role in wanted:
            _require_role(connection, setting, role)
        row: Any = connection.execute(query("database_name")).fetchone()
        named = {"database": Identifier(row[0]), "schema": Identifier(str(connection.home))}
        with _creating(connection):
            for _, name, role in wanted:
                connection.execute(query(name).format(role=Identifier(role), **named))


def let_in(connection: Connection, role: str, password: str) -> None:
    """Lets a role that reads the views in with this password; makes it where there is none."""
    with translate_errors():
        if connection.execute(query("find_role"), [role]).fetchone() is None:
            connection.execute(query("create_role").format(role=Identifier(role)))
        verifier = connection.pgconn.encrypt_password(
            password.encode(), role.encode(), b"scram-sha-256"
        ).decode()
        connection.execute(query("set_login").format(role=Identifier(role), verifier=Literal(verifier)))
    grant(connection, None, role)


def _require_role(connection: Connection, setting: str, role: str) -> None:
    if role.casefold() == "public":
        raise Misconfigured(setting, "PUBLIC is everybody, and not a role: name one")
    try:
        known = "\0" not in role and len(role.encode()) <= IDENTIFIER_BYTES_MAX
    except UnicodeEncodeError:
        known = False
    if not known or connection.execute(query("find_role"), [role]).fetchone() is None:
        raise Misconfigured(setting, f"there is no role {escape_unprintable(role)!r}: CREATE ROLE makes one")
