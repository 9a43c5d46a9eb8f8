"""Looks at a database for whoever wants to know whether an engine could work on it; changes nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ingest.errors import IngestError
from ingest.store.connection import Connection, translate_errors
from ingest.store.hosts import Host, Standing, hosts_of, only, with_environment
from ingest.store.migrate import migrations, schema_version
from ingest.store.queries import query

# One of each kind: whoever lacks one of these was granted nothing, or by a program of the version before.
WRITTEN = (
    "nodes", "catalogs", "catalog_resources", "resources", "positions", "edge_sets", "environments", "producers", "fact_shapes",
    "node_facts", "node_packages", "node_reports", "report_headers", "event_contents", "node_latest_reports", "node_expirations",
    "node_inputs", "node_locks", "engines", "quarantine",
)  # fmt: skip

_NUMBER = re.compile(r"\s*(?:FIRST|ANY)?\s*(\d+)\s*\(", re.IGNORECASE)  # of a list; a list alone is FIRST 1


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


class Member(NamedTuple):
    """What a server of a cluster says of itself and those beside it."""

    is_standby: bool
    synchronous_names: str  # synchronous_standby_names
    standbys: int  # attached to it
    synchronous: int  # of them
    hidden: int  # of them, of which this role may not see whether they are
    wal_bytes: int  # how far it is: written, or replayed
    behind_s: float  # since the last transaction that was replayed; much where nothing is written
    receives: bool  # from another server
    can_rewind: bool  # by pg_rewind, when another was promoted

    @property
    def synchronous_wanted(self) -> int:
        """How many standbys a commit waits for."""
        if not self.synchronous_names.strip():
            return 0
        number = _NUMBER.match(self.synchronous_names)
        return int(number[1]) if number else 1


def examine(connection: Connection) -> Server:
    """Raises Unavailable, or Misconfigured."""
    version = schema_version(connection)
    with translate_errors():
        row: Any = connection.execute(query("examine_server")).fetchone()
        created: Any = connection.execute(query("may_create_schema"), [connection.home]).fetchone()
        lacking = _lacking(connection, WRITTEN) if version else ()
    return Server._make((*row, version, migrations()[-1][0], bool(created and created[0]), lacking))


def examine_member(connection: Connection) -> Member:
    with translate_errors():
        row: Any = connection.execute(query("examine_cluster")).fetchone()
    return Member(*row)


class Asked(NamedTuple):
    """One host of a conninfo that names several."""

    host: Host
    standing: Standing | None
    why: str = ""  # it has none


def named(conninfo: str) -> tuple[tuple[Host, ...], str]:
    """The hosts of a conninfo, and its target_session_attrs, empty where it has none."""
    with translate_errors(opening=conninfo):
        given = with_environment(conninfo_to_dict(conninfo), os.environ)
    return hosts_of(given), str(given.get("target_session_attrs") or "")


def ask_hosts(conninfo: str, connect: Callable[[str], Connection]) -> list[Asked]:
    """What each of them says of itself, asked one by one."""
    found = []
    for host in named(conninfo)[0]:
        given: dict[str, Any] = only(conninfo_to_dict(conninfo), host) | {"target_session_attrs": "any"}
        try:
            connection = connect(make_conninfo(**given))
        except IngestError as error:
            found.append(Asked(host, None, str(error)))
            continue
        try:
            with translate_errors():
                row: Any = connection.execute(query("standing")).fetchone()
            found.append(Asked(host, Standing(*row)))
        except IngestError as error:
            found.append(Asked(host, None, str(error)))
        finally:
            connection.close()
    return found


def _lacking(connection: Connection, tables: Sequence[str]) -> tuple[str, ...]:
    found = connection.execute(query("lacking_privileges"), [connection.home, list(tables)]).fetchall()
    return tuple(str(row[0]) for row in found)
