"""Tells a pooler that gives a client another session for each transaction: nothing that the engine does would hold there."""

from __future__ import annotations

from typing import Any

import psycopg

from ingest.errors import Misconfigured
from ingest.store.queries import query

TURNS = 4  # a pooler hands out the session that was given back last, or the one that was given back first


def require_one_session(connection: psycopg.Connection[Any]) -> None:
    """Raises Misconfigured where two connections by turns, or one from turn to turn, are served by other processes than a
    client of PostgreSQL itself would be: each by one of its own, for its whole life."""
    with psycopg.connect(connection.info.dsn, password=connection.info.password, autocommit=True) as other:
        pids = [(_pid(connection), _pid(other)) for _ in range(TURNS)]
    mine, its = {pid for pid, _ in pids}, {pid for _, pid in pids}
    if len(mine) > 1 or len(its) > 1 or mine & its:
        raise Misconfigured(
            "--database",
            "a pooler in transaction mode stands between, in which sessions are mixed up: set pool_mode=session for it "
            "(PgBouncer), or name PostgreSQL itself",
        )


def _pid(connection: psycopg.Connection[Any]) -> int:
    ((pid,),) = connection.execute(query("backend_pid")).fetchall()
    return int(pid)
