"""What a session at PostgreSQL relies on, whatever the role, the database, the environment or a service file have set.

docs/decisions/0009-session.md says what each of them broke when it was otherwise.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import psycopg

from ingest.errors import Misconfigured
from ingest.store.queries import query

VERSION_MIN = 130000  # of server_version_num: what the tests have run on, and what is still maintained
# Each in the unit of pg_settings.setting.
RELIED_ON = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "standard_conforming_strings": "on",
    "escape_string_warning": "off",
    "array_nulls": "on",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "row_security": "off",  # a policy that would hide rows is an error, not fewer rows
    "client_min_messages": "warning",
    "transform_null_equals": "off",
    "exit_on_error": "off",
    "log_parameter_max_length_on_error": "0",  # a parameter may be a secret
    # A writer that fell off the network in a transaction keeps its nodes locked for that long; ours are never idle in one
    # for longer than it takes to make the next rows.
    "idle_in_transaction_session_timeout": "15000",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # In the middle of a COPY a session is not idle, and PostgreSQL does not look at statement_timeout while it waits for
    # more rows: only its TCP notices then that a client's machine has gone, by itself after two hours.
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
# libpq sends these in the startup packet: a wrong one ends the connection before we can say a word.
_SENT_BY_LIBPQ = ("PGTZ", "PGDATESTYLE", "PGGEQO", "PGCLIENTENCODING", "PGOPTIONS")
_TCP = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")


class Server(NamedTuple):
    """What a session found before anything was set."""

    encoding: str
    version: int  # as server_version_num
    is_standby: bool
    read_only: str  # default_transaction_read_only
    synchronous_commit: str
    replication_role: str
    backend_pid: int  # PostgreSQL's own: a pooler gives its clients others
    ours: list[str] | None  # schemas that hold our tables, those in the search_path first
    path: list[str]  # the schemas of the search_path that exist

    @property
    def schema(self) -> str:
        """Where our tables are, or will be. Raises Misconfigured."""
        visible = [name for name in self.ours or () if name in self.path]
        # Where nothing is of ours yet: the schema in which new tables would be made.
        found = visible or self.ours or [name for name in self.path if not name.startswith("pg_")][:1]
        if not found:
            raise Misconfigured(
                "--database", "its search_path names no schema that exists: ALTER ROLE ... SET search_path"
            )
        if len(found) > 1 and not visible:
            raise Misconfigured(
                "--database",
                f"several schemas hold tables of ingest ({', '.join(found)}): name one by ALTER ROLE ... SET search_path",
            )
        return found[0]


def look_at(connection: psycopg.Connection[Any]) -> Server:
    """Raises psycopg's errors, and Misconfigured for a server that cannot hold what is stored."""
    (row,) = connection.execute(query("session_facts")).fetchall()
    server = Server(*row)
    if server.version < VERSION_MIN:
        raise Misconfigured(
            "--database",
            f"PostgreSQL {server.version // 10000} is too old: {VERSION_MIN // 10000} or newer is needed",
        )
    if server.encoding != "UTF8":
        raise Misconfigured(
            "--database",
            f"the database has the encoding {server.encoding}, which cannot hold every catalog: "
            "make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        )
    if server.replication_role == "replica":
        raise Misconfigured(
            "--database",
            "session_replication_role is replica: foreign keys would not be kept; set it to origin for this role",
        )
    return server


def pin(
    connection: psycopg.Connection[Any], server: Server, statement_timeout_s: float, lock_timeout_s: float
) -> None:
    """Sets what the session relies on, in one round trip."""
    wanted = RELIED_ON | {
        "statement_timeout": str(int(statement_timeout_s * 1000)),
        "lock_timeout": str(int(lock_timeout_s * 1000)),
        "search_path": search_path(server.schema),
        # Less than "on" acknowledges what a crash takes back; more is the site's own wish.
        "synchronous_commit": at_least_on(server.synchronous_commit),
    }
    if connection.info.host.startswith("/"):
        for name in _TCP:
            del wanted[name]  # a Unix socket has none of them
    connection.execute(query("pin_session"), [list(wanted), list(wanted.values())])


def at_least_on(synchronous_commit: str) -> str:
    """What is acknowledged is on disk, here and, where the site has synchronous standbys, there."""
    return synchronous_commit if synchronous_commit == "remote_apply" else "on"


def forget_environment() -> None:
    """Takes out of this process's environment what libpq would send for us."""
    for name in _SENT_BY_LIBPQ:
        os.environ.pop(name, None)


def search_path(schema: str, *, creating: bool = False) -> str:
    """PostgreSQL's own names first; temporary tables last, which anybody makes. ``creating``: where new objects belong."""
    quoted = '"{}"'.format(schema.replace('"', '""'))
    return ", ".join((quoted, "pg_catalog", "pg_temp") if creating else ("pg_catalog", quoted, "pg_temp"))


def require_writable(server: Server) -> None:
    """Raises Misconfigured for a server on which nothing can be stored."""
    if server.is_standby:
        raise Misconfigured(
            "--database",
            "the server is a standby and takes no writes: name the primary, or all hosts with "
            "target_session_attrs=read-write",
        )
    if server.read_only == "on":
        raise Misconfigured(
            "--database",
            "the database is read-only (default_transaction_read_only is on): ALTER DATABASE or ALTER ROLE ... "
            "RESET default_transaction_read_only",
        )


def require_own_schema(connection: psycopg.Connection[Any], schema: str) -> None:
    """Raises Misconfigured where others may create objects that our statements could meet."""
    rows = connection.execute(query("strangers_in_schema"), {"schema": schema}).fetchall()
    if rows:
        who = ", ".join(str(name) for (name,) in rows)
        revoke = "PUBLIC" if "everybody" in who else who
        raise Misconfigured(
            "--database",
            f"{who} may create objects in the schema {schema}, which the engine would run: "
            f"REVOKE CREATE ON SCHEMA {schema} FROM {revoke}",
        )
