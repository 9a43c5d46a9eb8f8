"""Looks at a database for whoever wants to know whether an engine could work on it; changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ingest.store.connection import Connection, translate_errors
from ingest.store.migrate import migrations, schema_version
from ingest.store.queries import query

# One of each kind: whoever lacks one of these was granted nothing, or by a program of the version before.
WRITTEN = (
    "nodes", "catalogs", "catalog_resources", "resources", "positions", "edge_sets", "environments", "producers", "fact_shapes",
    "node_facts", "node_packages", "node_reports", "report_headers", "event_contents", "node_latest_reports", "node_expirations",
    "node_inputs", "node_locks", "engines", "quarantine",
)  # fmt: skip


class Server(NamedTuple):
    """A server as this role sees it. ``*_limit`` is -1 where there is none."""

    now_s: float  # its clock
    version: str
    connections_free: int
    role_limit: int
    role_has: int
    database_limit: int
    database_has: int
    is_crash_safe: bool
    role: str
    database: str
    may_stage: bool  # temporary tables
    engines: int  # sessions of engines, this one not counted
    schema: int  # the number of its newest migration; 0: none
    schema_wanted: int
    may_create: bool
    lacking: tuple[str, ...]  # tables that an engine could not write to

    @property
    def connections_left(self) -> int:
        limits = [self.connections_free]
        if self.role_limit >= 0:
            limits.append(self.role_limit - self.role_has)
        if self.database_limit >= 0:
            limits.append(self.database_limit - self.database_has)
        return max(0, min(limits))


def examine(connection: Connection) -> Server:
    """Raises Unavailable, or Misconfigured."""
    version = schema_version(connection)
    with translate_errors():
        row: Any = connection.execute(query("examine_server")).fetchone()
        created: Any = connection.execute(query("may_create_schema"), [connection.home]).fetchone()
        lacking = _lacking(connection, WRITTEN) if version else ()
    return Server._make((*row, version, migrations()[-1][0], bool(created and created[0]), lacking))


def _lacking(connection: Connection, tables: Sequence[str]) -> tuple[str, ...]:
    found = connection.execute(query("lacking_privileges"), [connection.home, list(tables)]).fetchall()
    return tuple(str(row[0]) for row in found)
