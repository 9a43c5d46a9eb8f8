"""Walks all that is stored of all nodes, as payloads of commands: a node at a time, a report at a time.

Each node is read in a transaction of its own: an archive takes long, and no snapshot of the database shall be held so long.
What a run changes meanwhile is in it or not, node by node, as it is in PuppetDB's.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ingest.core.archive.report_form import report_payload
from ingest.core.catalog.wire import to_wire
from ingest.errors import Refused
from ingest.store.catalog.reading import read_catalog
from ingest.store.connection import Connection, translate_errors
from ingest.store.facts.reading import read_factset
from ingest.store.queries import query

NODES_AT_ONCE = 500  # rows of a few hundred bytes

Payload = tuple[str, dict[str, Any]]  # the folder of the archive, and what a command of it has in it


def count_archived(connection: Connection) -> int:
    """About how many payloads there are. Raises Unavailable."""
    with translate_errors():
        row = connection.execute(query("count_archived")).fetchone()
    return int(str(row[0])) if row is not None else 0


def walk(connection: Connection) -> Iterator[Payload]:
    """All payloads, node by node in the order of their names. Raises Unavailable."""
    last = ""
    while True:
        with translate_errors():
            rows: Any = connection.execute(query("archive_nodes"), [last, NODES_AT_ONCE]).fetchall()
        if not rows:
            return
        for row in rows:
            yield from _of_node(connection, row)
        last = rows[-1][0]


def _of_node(connection: Connection, row: tuple[Any, ...]) -> Iterator[Payload]:
    certname, node_id, deactivated, has_catalog, has_facts, *small = row
    configured_at, expires, inputs_at, catalog_uuid, types, names = small
    if configured_at is not None:  # the first, so that nothing of the node expires on its way in
        expiration = {
            "certname": certname,
            "expire": {"facts": expires},
            "producer_timestamp": _time(configured_at),
        }
        yield "configure_expiration", expiration
    if has_facts:
        yield from _unless_gone("facts", connection, certname)
    if has_catalog:
        yield from _unless_gone("catalogs", connection, certname)
    if inputs_at is not None:
        pairs = [list(pair) for pair in zip(types, names, strict=True)]
        inputs = {"certname": certname, "producer_timestamp": _time(inputs_at), "catalog_uuid": catalog_uuid}
        yield "catalog_inputs", inputs | {"inputs": pairs}
    yield from _reports(connection, certname, node_id)
    if deactivated is not None:
        yield "deactivate_node", {"certname": certname, "producer_timestamp": _time(deactivated)}


def _unless_gone(folder: str, connection: Connection, certname: str) -> Iterator[Payload]:
    try:
        if folder == "facts":
            yield folder, read_factset(connection, certname)
        else:
            yield folder, to_wire(read_catalog(connection, certname))
    except Refused:
        return  # purged since its row was read


def _reports(connection: Connection, certname: str, node_id: int) -> Iterator[Payload]:
    with translate_errors(), connection.cursor() as cursor:
        asked = {"certname": certname, "node_id": node_id}
        rows: Any = cursor.stream(query("archive_reports"), asked)
        for head, events in rows:
            yield "reports", report_payload(head, events)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
