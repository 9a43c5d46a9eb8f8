"""Brings a database to this program's schema: numbered files, each in one transaction."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files

from psycopg.sql import SQL, Identifier

from ingest.errors import Refused
from ingest.store.connection import Connection, translate_errors
from ingest.store.queries import query

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
    with translate_errors():
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


def grant(connection: Connection, engine_role: str | None, reader_role: str | None) -> None:
    """Lets ``engine_role`` do what ``ingest run`` needs and ``reader_role`` read the views, no more."""
    with translate_errors(), connection.transaction():
        for name, role in (("grant_engine", engine_role), ("grant_reader", reader_role)):
            if role is not None:
                statement = query(name).as_string(connection).replace("ROLE_NAME", "{role}")
                connection.execute(SQL(statement).format(role=Identifier(role)))
