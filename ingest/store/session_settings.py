"""What every session of ours relies on, whatever the server, the database, the role or the environment has set.

Set after connecting, not in the startup packet: PgBouncer refuses ``options``, or drops them without a word. Then read
back. docs/decisions/0009-session.md says why each is what it is.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import Identifier

from ingest.errors import Misconfigured
from ingest.store.queries import query

SERVER_VERSION_MIN = 140_000  # our migrations have functions with a RETURN for a body, and SET COMPRESSION

# What decides how values are written and read, and what a transaction sees.
RELIED_ON = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "standard_conforming_strings": "on",
    # Garbage collection and writers look again after they have waited for a lock: that takes a new snapshot a statement.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # Rows that a policy hides would be missing without a word; this way there is an error.
    "row_security": "off",
    "exit_on_error": "off",
    "log_parameter_max_length_on_error": "0",  # a parameter may be a secret
    "client_min_messages": "warning",
}
# No limit of the site's ends what has limits of ours, since that version.
SITE_LIMITS = {"idle_session_timeout": 140_000, "transaction_timeout": 170_000}
LIMITS = {
    # A writer that fell off the network in a transaction keeps its nodes locked for that long; ours are never idle in
    # one for longer than it takes to make the next rows.
    "idle_in_transaction_session_timeout": "15s",
    # In the middle of a COPY a session is not idle, and PostgreSQL does not look at statement_timeout while it
    # waits for more rows: only its TCP notices then that a client's machine has gone, by itself after two hours.
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
NO_SCHEMA = "pg_catalog, pg_temp"
# libpq sends these in the startup packet: before we can say a word a wrong one ends the connection.
_SENT_BY_LIBPQ = ("PGTZ", "PGDATESTYLE", "PGGEQO", "PGCLIENTENCODING", "PGOPTIONS")


class Home(NamedTuple):
    """The schema of our tables, as it is at the start of a session."""

    schema: str | None = None  # None: the site's search_path names none that is there
    is_installed: bool = False
    is_shared: bool = False  # others may create objects in it
    strangers: tuple[str, ...] = ()  # functions and operators that others have created in it
    table_owner: str | None = None  # of schema_migrations, where that is not the schema's or the database's

    @property
    def is_open(self) -> bool:
        """Whether what others made could be found there by a name that we mean otherwise."""
        return self.is_shared or bool(self.strangers)

    @property
    def path(self) -> str:
        """The search_path of a session, pg_catalog first. Nobody can put a function into pg_temp that is found there."""
        return NO_SCHEMA if self.schema is None or self.is_open else self.own_path

    @property
    def own_path(self) -> str:
        """The one for creating our tables."""
        assert self.schema is not None
        return f"{Identifier(self.schema).as_string()}, pg_temp"


def forget_environment() -> None:
    """Takes out of this process's environment what libpq would send for us."""
    for name in _SENT_BY_LIBPQ:
        os.environ.pop(name, None)


def at_least_on(synchronous_commit: str) -> str:
    """Never less than the site asks for, and never less than on: what is acknowledged is on disk, here and, where the
    site has synchronous standbys, there."""
    return synchronous_commit if synchronous_commit == "remote_apply" else "on"


class Pinned(NamedTuple):
    """A session whose settings are ours."""

    home: Home
    is_pooled: bool  # the backend is not the one that the connection was told of: something stands between
    backend_pid: int  # PostgreSQL's own: a pooler gives its clients others


def pin(connection: psycopg.Connection[Any], more: dict[str, str]) -> Pinned:
    """Makes the session ours; ``more`` is what differs between ours.

    Raises Misconfigured for a database that we cannot work on.
    """
    version = connection.info.server_version
    if version < SERVER_VERSION_MIN:
        raise Misconfigured(
            "--database", f"PostgreSQL {version // 10000} is too old: this program needs 14 or newer"
        )
    table, schemas, backend, commit = _row(connection, "survey_session")
    is_pooled = backend != connection.info.backend_pid
    if is_pooled:
        # A pooler that was told to run no server_reset_query hands over what the last client left.
        connection.execute(query("discard_session"))
        table, schemas, backend, commit = _row(connection, "survey_session")
    limits = LIMITS | {name: "0" for name, since in SITE_LIMITS.items() if version >= since}
    settings = (
        RELIED_ON | limits | more | {"synchronous_commit": at_least_on(commit), "search_path": NO_SCHEMA}
    )
    connection.execute(query("pin_session"), [list(settings), list(settings.values())])
    _check(connection, backend, is_pooled)
    return Pinned(find_home(connection, table, _for_tables(schemas)), is_pooled, backend)


def _for_tables(schemas: list[str]) -> str | None:
    """The first schema of a search_path that is there for users' tables."""
    return next(
        (name for name in schemas if not name.startswith("pg_") and name != "information_schema"), None
    )


def find_home(
    connection: psycopg.Connection[Any], table: int | None = None, schema: str | None = None
) -> Home:
    """Where our tables are: ``table`` is the oid of the one on the site's search_path, ``schema`` the first that is
    there of that path. Makes it the session's search_path where nobody else may create in it."""
    row = connection.execute(query("find_home"), {"on_path": table, "created_in": schema}).fetchone()
    if row is None:
        return Home()
    name, installed, is_shared, strangers, owner = row
    if installed > 1:
        raise Misconfigured(
            "--database",
            "several schemas of this database hold tables of this program, and the role's search_path leads to none "
            "of them: ALTER ROLE ... IN DATABASE ... SET search_path says which one is meant",
        )
    home = Home(name, bool(installed), is_shared, tuple(strangers), owner)
    connection.execute(query("set_path"), [home.path, False])
    return home


def look_again(connection: psycopg.Connection[Any], home: Home) -> Home:
    """The same schema as it is now."""
    (table,) = _row(connection, "find_our_table", [home.schema])
    return find_home(connection, table, home.schema)


def _check(connection: psycopg.Connection[Any], backend: int, is_pooled: bool) -> None:
    values, encoding, database, replication, backend_now = _row(connection, "read_session", [list(RELIED_ON)])
    lost = [
        f"{name} stays {value} although the session set it to {wanted}"
        for (name, wanted), value in zip(RELIED_ON.items(), values, strict=True)
        if value.casefold() != wanted.casefold()
    ]
    if backend != backend_now or (lost and is_pooled):
        raise Misconfigured("--database", MIXED)
    if lost:
        raise Misconfigured("--database", lost[0])
    if encoding != "UTF8":
        raise Misconfigured(
            "--database",
            f"the database {database} has the encoding {encoding}, which cannot hold every text that Puppet sends: "
            "make another with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        )
    if replication == "replica":
        raise Misconfigured(
            "--database",
            "session_replication_role is replica: foreign keys would not be kept; set it to origin for this role",
        )


def _row(connection: psycopg.Connection[Any], name: str, parameters: Any = None) -> Any:
    return connection.execute(query(name), parameters).fetchone()


MIXED = (
    "a pooler between gives each transaction another server connection (PgBouncer's pool_mode = transaction or "
    "statement), so locks, settings and staging tables of one client would meet another's: set pool_mode = session for "
    "this database, or connect to PostgreSQL itself"
)
