"""When nodes were heard of, who is overdue, and what a person may do with a node."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from ingest.errors import Refused
from ingest.store.connection import Connection, translate_errors
from ingest.store.engines import at_work
from ingest.store.housekeeping import locked_nodes
from ingest.store.queries import query

# Of silence over the usual interval; of the seconds from a producer's timestamp to its catalog being stored.
SILENCE_LIMITS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 50.0)
LAG_LIMITS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0)


class NodeFreshness(msgspec.Struct, frozen=True):
    """A line of the view ``node_freshness``."""

    certname: str
    deactivated: datetime | None
    expired: datetime | None
    catalog_environment: str | None
    heard_at: datetime
    silent_s: float
    usual_s: int
    is_learnt: bool  # else its interval is taken to be that of the others
    overdue_after_s: float
    is_overdue: bool
    catalog_timestamp: datetime | None
    catalog_stored_at: datetime | None
    catalog_lag_s: float | None  # from the producer's timestamp to being stored
    facts_timestamp: datetime | None
    report_timestamp: datetime | None
    report_status: str | None
    report_noop: bool | None
    report_hash: str | None

    @property
    def state(self) -> str:
        if self.deactivated:
            return "deactivated"
        if self.expired:
            return "expired"
        return "overdue" if self.is_overdue else "active"


def list_nodes(
    connection: Connection,
    *,
    certname: str | None = None,
    overdue: bool = False,
    failed: bool = False,
    stale: timedelta | None = None,
    inactive: bool = False,
) -> list[NodeFreshness]:
    """The longest silent first; a node that is asked for by name is there in any state."""
    wanted = {
        "certname": certname,
        "overdue": overdue,
        "failed": failed,
        "stale": stale,
        "inactive": inactive,
    }
    with translate_errors():
        rows: Any = connection.execute(query("list_nodes"), wanted).fetchall()
    return [NodeFreshness(*row) for row in rows]


def fleet_freshness(connection: Connection) -> dict[str, Any]:
    """The fleet in numbers: what the commands, the page and Prometheus show."""
    limits = {"silence_limits": list(SILENCE_LIMITS), "lag_limits": list(LAG_LIMITS)}
    with translate_errors():
        row: Any = connection.execute(query("fleet_freshness"), limits).fetchone()
        found: dict[str, Any] = row[0]
    for name, bounds in (("silence", SILENCE_LIMITS), ("lag", LAG_LIMITS)):
        found[f"{name}_limits"] = list(bounds)
        found[name] = [found[name].get(str(place), 0) for place in range(len(bounds) + 1)]
    found["engines"] = sum(at_work(connection).values())
    return found


def quarantine_summary(connection: Connection) -> list[dict[str, Any]]:
    """By reason, the newest first."""
    with translate_errors():
        rows: Any = connection.execute(query("quarantine_summary")).fetchall()
    names = ("reason", "rows", "messages", "last_seen", "certname")
    return [dict(zip(names, row, strict=True)) for row in rows]


def node_details(connection: Connection, certname: str) -> dict[str, Any]:
    """What else a person wants to see of a node, in one look."""
    with translate_errors():
        row: Any = connection.execute(query("node_details"), {"certname": certname}).fetchone()
    details: dict[str, Any] = row[0]
    return details


def deactivate_node(connection: Connection, certname: str) -> None:
    """Raises Refused when there is no such node."""
    _change(connection, certname, "deactivate_node")


def reactivate_node(connection: Connection, certname: str) -> None:
    """Raises Refused when there is no such node."""
    _change(connection, certname, "reactivate_node")


def forget_node(connection: Connection, certname: str) -> None:
    """With all that is stored of it. Raises Refused when there is no such node."""
    with translate_errors(), locked_nodes(connection, _find(connection, certname)) as ids:
        # A node that lives and has facts is deleted by nobody: an engine of an older version would do so unasked.
        connection.execute(query("deactivate_node"), [ids])
        connection.execute(query("forget_node"), {"ids": ids})


def _change(connection: Connection, certname: str, statement: str) -> None:
    with translate_errors(), locked_nodes(connection, _find(connection, certname)) as ids:
        connection.execute(query(statement), [ids])


def _find(connection: Connection, certname: str) -> list[tuple[object, ...]]:
    if "\0" in certname:
        raise Refused("no node's name has a NUL in it")
    with translate_errors():
        found = connection.execute(query("find_node"), [certname]).fetchall()
    if not found:
        raise Refused(f"nothing is known of a node {certname}: 'ingest nodes' lists those that are")
    return found
