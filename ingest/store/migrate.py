"""Brings a database to this program's schema: numbered files, each in one transaction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files

from psycopg.sql import SQL, Identifier

from ingest.core.printable import escape_unprintable
from ingest.errors import Misconfigured, Refused
from ingest.store.connection import Connection, translate_errors
from ingest.store.queries import query
from ingest.store.session_settings import look_at, search_path

# Any number will do, as long as nobody else on the database uses it: "ingest" on a phone's keys.
MIGRATION_LOCK = 464378


def migrations() -> list[tuple[int, str, str]]:
    """(number, name, SQL) of every migration this program has, in order."""
    found = []
    for file in files(__package__).joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append((int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found)


def migrate(connection: Connection, announce: Callable[[str], None] = lambda line: None) -> int:
    """Runs what is missing; returns how many ran. Raises Refused when the schema is newer than the program.

    Several programs may call it at once: an advisory lock lets one work and the others find nothing to do.
    """
    done = 0
    known = migrations()
    with translate_errors(), _creating(connection):
        connection.execute(query("lock_migrations"), [MIGRATION_LOCK])
        try:
            connection.execute(query("create_migrations_table"))
            version = schema_version(connection)
            check(version)
            for number, name, text in known:
                if number <= version:
                    continue
                with connection.transaction():
                    connection.execute(SQL(text))
                    connection.execute(query("record_migration"), [number, name])
                announce(f"migrated to {number:04d} {name}")
                done += 1
        finally:
            if not connection.closed:
                connection.execute(query("unlock_migrations"), [MIGRATION_LOCK])
    return done


def schema_version(connection: Connection) -> int:
    """The number of the newest migration in the database; 0 for an empty one."""
    with translate_errors():
        row = connection.execute(query("has_migrations_table")).fetchone()
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


@contextmanager
def _creating(connection: Connection) -> Iterator[None]:
    """New objects go to our schema, and PostgreSQL's own come first again at the end."""
    schema = look_at(connection).schema
    connection.execute(query("set_search_path"), [search_path(schema, creating=True)])
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(query("set_search_path"), [search_path(schema)])


def grant(connection: Connection, engine_role: str | None, reader_role: str | None) -> None:
    """Lets ``engine_role`` do what ``ingest run`` needs and ``reader_role`` read the views, no more. Raises Misconfigured
    for a name that is no role's."""
    for setting, name, role in (
        ("--grant-to", "grant_engine", engine_role),
        ("--grant-read-to", "grant_reader", reader_role),
    ):
        if role is not None:
            _grant(connection, setting, name, role)


def _grant(connection: Connection, setting: str, name: str, role: str) -> None:
    with translate_errors(), connection.transaction():
        row = connection.execute(query("is_role"), [role]).fetchone()
        if row is None or not row[0]:
            raise Misconfigured(setting, f"there is no role {escape_unprintable(role)!r}")
        schema, database = look_at(connection).schema, connection.info.dbname
        connection.execute(
            query(name).format(
                role=Identifier(role), schema=Identifier(schema), database=Identifier(database)
            )
        )
