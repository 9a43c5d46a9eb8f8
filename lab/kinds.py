"""A message of each kind, small, for tests of what is the same for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ingest.store.connection import Connection
from lab.facts import facts_body
from lab.peer_reports import payloads
from lab.store_model import resource, wire_body

STORED = {
    "catalog": "SELECT certname FROM node_catalogs",
    "facts": "SELECT certname FROM node_factsets",
    "report": "SELECT certname FROM reports",
}


def body_of(kind: str, certname: str, minute: int = 1) -> bytes:
    """As a Puppet server sends it; the kinds are those of ``ingest.core.delivery.importance``."""
    if kind == "catalog":
        return wire_body(certname, minute, [resource("/a")])
    if kind == "facts":
        return facts_body(certname, minute, {"kernel": "Linux", "uptime": minute})
    return next(reports(certname, 1, minute))


def reports(certname: str, count: int, minute: int = 1) -> Iterator[bytes]:
    """Of runs a second apart, in which nothing changed."""
    _, template = payloads(datetime.now(UTC))[0]
    for number in range(count):
        at = (datetime.now(UTC) - timedelta(hours=2) + timedelta(minutes=minute, seconds=number)).isoformat()
        payload = template | {
            "certname": certname,
            "start_time": at,
            "end_time": at,
            "producer_timestamp": at,
        }
        yield json.dumps(
            {"command": "store report", "version": 8, "certname": certname, "payload": payload}
        ).encode()


def stored_nodes(connection: Connection, kind: str) -> set[str]:
    """Of which nodes something of that kind is stored."""
    return {str(certname) for (certname,) in connection.execute(STORED[kind]).fetchall()}
