"""What nobody has any more: content without a node, nodes that fell silent, old quarantine.

Garbage collection looks for unused content under a snapshot, without any lock. It deletes in small steps: each
takes the content lock alone (writers hold it shared while they refer to content), spares what was taken up
since the snapshot, and raises the generation, so that every writer forgets the ids it remembers. It asks for the
lock again and again instead of queueing for it, because writers would queue behind it. So readers never wait for
it, a writer for one step at most, and that for ``hold_timeout_s`` at most; a step that takes longer, or finds no
gap within ``patience_s``, is left for the next run. Nobody's query is ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import msgspec
from psycopg import errors as pg

from ingest.core.delivery.batching import FUTURE_TOLERANCE
from ingest.store.connection import Connection, translate_errors
from ingest.store.locks import NodeLocks, lock_content_alone
from ingest.store.queries import query

# The order in which content refers to content: what a collected row used is free in the next run.
CONTENT_TABLES = (
    "resources", "edge_sets", "position_sets", "positions", "tags", "fact_bases", "fact_shapes", "package_sets",
    "package_versions", "environments", "producers",
)  # fmt: skip

FORGOTTEN_AFTER = timedelta(days=14)  # a node without a catalog, where nodes are never purged


class Collected(msgspec.Struct):
    """What one run of garbage collection did."""

    deleted: dict[str, int]
    postponed: int = 0  # steps that found no gap between writers, or did not get done in time


class HousekeepingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the kinds need to know of what is too old; None: nothing is."""

    node_ttl: timedelta | None = None
    node_purge_ttl: timedelta | None = None
    report_ttl: timedelta | None = None
    resource_events_ttl: timedelta | None = None
    future_tolerance: timedelta = FUTURE_TOLERANCE


def take(connection: Connection, interval: timedelta) -> bool:
    """Whether nobody has begun to keep house for that long, in any instance on this database. Who is told so does it now."""
    with translate_errors():
        return connection.execute(query("take_housekeeping"), [interval]).fetchone() is not None


def end_silent_nodes(connection: Connection, settings: HousekeepingSettings) -> dict[str, int]:
    """Expires and deletes nodes; how many, by what was done."""
    done: dict[str, int] = {}
    if settings.node_ttl:
        done["nodes_expired"] = len(expire_nodes(connection, settings.node_ttl))
    mend_deactivations(connection, settings.future_tolerance)
    if settings.node_purge_ttl:
        done["nodes_purged"] = purge_nodes(connection, settings.node_purge_ttl)
    done["nodes_forgotten"] = forget_nodes(connection, settings.node_purge_ttl or FORGOTTEN_AFTER)
    return done


def delete_unused_content(connection: Connection, settings: HousekeepingSettings) -> dict[str, int]:
    """Content that no node has; how many rows, by table."""
    collected = collect_garbage(connection)
    return collected.deleted | {"postponed": collected.postponed}


def collect_garbage(
    connection: Connection,
    *,
    step_rows: int = 2000,
    pause_s: float = 0.05,
    patience_s: float = 10.0,
    hold_timeout_s: float = 1.0,
    pause: Callable[[float], None] = time.sleep,
) -> Collected:
    """Deletes content that no node has. Safe beside any number of writers."""
    collected = Collected(dict.fromkeys(CONTENT_TABLES, 0))
    for table in CONTENT_TABLES:
        xmin, ids = _unused(connection, table)
        for start in range(0, len(ids), step_rows):
            step = ids[start : start + step_rows]
            with translate_errors(), connection.transaction():
                if lock_content_alone(connection, patience_s, pause):
                    deleted = _delete(connection, table, step, xmin, hold_timeout_s)
                else:
                    deleted = None
            if deleted is None:
                collected.postponed += 1
            else:
                collected.deleted[table] += deleted
            pause(pause_s)
    return collected


def expire_nodes(connection: Connection, node_ttl: timedelta, *, step_nodes: int = 100) -> list[str]:
    """Marks nodes whose newest catalog came longer ago than that; returns their certnames."""
    expired: list[str] = []
    with translate_errors():
        nodes = connection.execute(query("silent_nodes"), {"ttl": node_ttl}).fetchall()
        for start in range(0, len(nodes), step_nodes):
            with locked_nodes(connection, nodes[start : start + step_nodes]) as ids:
                rows = connection.execute(query("expire_nodes"), {"ids": ids, "ttl": node_ttl})
                expired += [str(certname) for (certname,) in rows]
    return sorted(expired)


def mend_deactivations(connection: Connection, future_tolerance: timedelta, *, step_nodes: int = 100) -> int:
    """Brings deactivations from too far in the future to now; returns how many."""
    mended = 0
    with translate_errors():
        nodes = connection.execute(query("nodes_deactivated_in_future"), [future_tolerance]).fetchall()
        for start in range(0, len(nodes), step_nodes):
            with locked_nodes(connection, nodes[start : start + step_nodes]) as ids:
                found = connection.execute(
                    query("deactivate_now"), {"ids": ids, "tolerance": future_tolerance}
                )
                mended += found.rowcount
    return mended


def purge_nodes(connection: Connection, node_purge_ttl: timedelta, *, step_nodes: int = 100) -> int:
    """Deletes nodes that have been deactivated or expired for that long; returns how many."""
    purged = 0
    with translate_errors():
        nodes = connection.execute(query("purgeable_nodes"), [node_purge_ttl]).fetchall()
        for start in range(0, len(nodes), step_nodes):
            with locked_nodes(connection, nodes[start : start + step_nodes]) as ids:
                row = connection.execute(query("purge_nodes"), {"ids": ids, "ttl": node_purge_ttl}).fetchone()
                purged += int(str(row[0])) if row else 0
    return purged


def forget_nodes(connection: Connection, age: timedelta, *, step_nodes: int = 100) -> int:
    """Deletes nodes that have no catalog and were not deactivated within that time; returns how many. A deactivation stays
    that long because an older catalog may still be on its way."""
    forgotten = 0
    with translate_errors():
        nodes = connection.execute(query("nodes_without_catalog"), [age]).fetchall()
        for start in range(0, len(nodes), step_nodes):
            with locked_nodes(connection, nodes[start : start + step_nodes]) as ids:
                forgotten += connection.execute(query("forget_nodes"), {"ids": ids, "age": age}).rowcount
    return forgotten


def forget_engines(connection: Connection) -> int:
    """Deletes what engines told that ended without a word; returns how many."""
    with translate_errors():
        return connection.execute(query("forget_engines")).rowcount


def forget_quarantined(connection: Connection, retention: timedelta) -> int:
    """Deletes quarantined messages not seen again for that long; returns how many."""
    with translate_errors():
        return connection.execute(query("forget_quarantined"), [retention]).rowcount


@contextmanager
def locked_nodes(connection: Connection, nodes: Sequence[tuple[object, ...]]) -> Iterator[list[object]]:
    """A transaction that holds the locks of these (id, certname), as a writer takes them; gives the ids."""
    certnames = [str(certname) for _, certname in nodes]
    locks = NodeLocks(connection, known=())
    locks.prepare(certnames)
    with locks.transaction():
        locks.take(certnames)
        yield [id_ for id_, _ in nodes]


def _unused(connection: Connection, table: str) -> tuple[str, list[int]]:
    with translate_errors(), connection.transaction():
        connection.execute(query("one_snapshot"))
        row = connection.execute(query("snapshot_xmin")).fetchone()
        assert row is not None
        found = connection.execute(query(f"unused_{table}")).fetchall()
        return str(row[0]), sorted(int(str(id_)) for (id_,) in found)


def _delete(
    connection: Connection, table: str, ids: list[int], xmin: str, hold_timeout_s: float
) -> int | None:
    """How many went; None when it took too long and nothing happened."""
    try:
        with connection.transaction():
            connection.execute(query("set_statement_timeout"), [f"{int(hold_timeout_s * 1000)}ms"])
            connection.execute(query("next_generation"))
            return connection.execute(query(f"delete_{table}"), {"ids": ids, "xmin": xmin}).rowcount
    except pg.QueryCanceled:
        return None
