"""What capacity planning asks PostgreSQL: a database of its own to measure in, WAL, sizes, the stored fleet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from psycopg.conninfo import make_conninfo
from psycopg.sql import Identifier

from ingest.store.connection import Connection, connect, translate_errors
from ingest.store.queries import query


class Server(NamedTuple):
    """The PostgreSQL that is measured."""

    backend_pid: int
    version: str
    checkpoint_s: int


class Table(NamedTuple):
    total_bytes: int
    pages: int


class StoredFleet(NamedTuple):
    """The fleet as the database has it."""

    nodes: int
    mean_resources: float
    median_age_s: float
    database_bytes: int


@contextmanager
def own_database(conninfo: str, name: str) -> Iterator[str]:
    """The conninfo of a new database in the same cluster, dropped at the end."""
    with translate_errors(opening=conninfo):
        connection = connect(conninfo)
        connection.execute(query("capacity_create_database").format(name=Identifier(name)))
    try:
        yield make_conninfo(conninfo, dbname=name)
    finally:
        with translate_errors():
            connection.execute(query("capacity_drop_database").format(name=Identifier(name)))
        connection.close()


def server(connection: Connection) -> Server:
    return Server(*_row(connection, "capacity_own_backend"))


def backends(connection: Connection) -> dict[str, int]:
    """Writer's name -> pid of its server process."""
    with translate_errors():
        rows: Any = connection.execute(query("capacity_backends")).fetchall()
    return dict(rows)


def wal_bytes(connection: Connection) -> int:
    """Bytes of WAL so far; differences count what lies between."""
    (found,) = _row(connection, "capacity_wal_bytes")
    return int(found)


def checkpoint(connection: Connection) -> None:
    with translate_errors():
        connection.execute(query("capacity_checkpoint"))


def commit_seconds(connection: Connection, times: int) -> list[float]:
    """How long the smallest commits take on this disk."""
    found = []
    with translate_errors():
        for _ in range(times):
            started_s = time.perf_counter()
            connection.execute(query("capacity_commit"))
            found.append(time.perf_counter() - started_s)
    return found


def tables(connection: Connection) -> dict[str, Table]:
    with translate_errors():
        rows: Any = connection.execute(query("capacity_table_bytes"), [connection.home]).fetchall()
    return {name: Table(total_bytes, pages) for name, total_bytes, pages in rows}


def stored_fleet(connection: Connection) -> StoredFleet:
    """What the fleet is, by what is stored of it; an empty database has no nodes."""
    nodes, resources, age_s, database_bytes = _row(connection, "capacity_fleet")
    return StoredFleet(nodes, float(resources or 0), float(age_s or 0), database_bytes)


def _row(connection: Connection, name: str) -> Any:
    with translate_errors():
        return connection.execute(query(name)).fetchone()
