"""After a run: are the facts and reports that the database has what was sent of each node?"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from ingest.core.delivery.decoding import DecoderSettings
from ingest.core.delivery.work import Descriptor
from ingest.core.report.decoding import ReportDecoder
from ingest.errors import Refused
from ingest.store.connection import Connection
from ingest.store.facts.reading import read_factset
from ingest.store.report.reading import read_report
from lab.decoding import work_of
from tools.loadgen.fleet import Fleet, Node

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
FACTS_MEMBERS = ("certname", "environment", "producer", "values")
EVENT_MEMBERS = ("status", "name", "property", "new_value", "old_value", "message")
LOG_MEMBERS = ("level", "message", "source", "tags", "file", "line")
# The newest, how many of this run there are, and what the newest has.
REPORTS = """
SELECT l.producer_timestamp, encode(l.hash, 'hex'),
       (SELECT count(*) FROM node_reports r WHERE r.node_id = l.node_id AND r.producer_timestamp >= %s),
       l.successes, coalesce(cardinality(r.event_ids), 0), cardinality(r.log_ids), cardinality(r.metrics)
FROM nodes n
JOIN node_latest_reports l ON l.node_id = n.id
LEFT JOIN node_reports r
       ON r.node_id = l.node_id AND r.producer_timestamp = l.producer_timestamp AND r.hash = l.hash
WHERE n.certname = %s
"""


def facts_differ(connection: Connection, fleet: Fleet, node: Node, at: datetime) -> str | None:
    """Reads them back whole, every leaf."""
    sent = json.loads(fleet.other("facts", node, at))["payload"]
    try:
        found = read_factset(connection, node.certname)
    except Refused as refused:
        return str(refused)
    if found["producer_timestamp"] != at.isoformat(timespec="milliseconds"):
        return f"the facts of {found['producer_timestamp']} are stored, those of {at} were sent last"
    names = [name for name in FACTS_MEMBERS if found[name] != sent[name]]
    return f"its facts differ: {' and '.join(names)}" if names else None


def reports_differ(
    connection: Connection, fleet: Fleet, node: Node, at: datetime, since: datetime, *, whole: bool
) -> str | None:
    """The newest one's identity and size, and how many there are; or the newest one whole as well."""
    body = fleet.other("report", node, at)
    payload = json.loads(body)["payload"]
    decoder = ReportDecoder(DecoderSettings(cache_bytes_max=0))
    identity = work_of(decoder, Descriptor(1, 1, 0, len(body), len(body), at, {}), body, {}).header.hash
    row: Any = connection.execute(REPORTS, [since, node.certname]).fetchone()
    if row is None:
        return "no report is stored"
    stored_at, hash_, count, *sizes = row
    if stored_at != at:
        return f"the report of {stored_at} is the newest, that of {at} was sent last"
    if hash_ != identity.hex():
        return "the newest report is another than what was sent last"
    if count != node.runs:
        return f"{count} reports are stored of {node.runs} that were sent"
    events = sum(len(resource["events"]) for resource in payload["resources"])
    if sizes != [events, events, len(payload["logs"]), len(payload["metrics"])]:
        return f"the newest report has other events, logs or metrics than were sent: {sizes}"
    return _parts_differ(read_report(connection, hash_), payload) if whole else None


def _parts_differ(found: dict[str, Any], sent: dict[str, Any]) -> str | None:
    events = [event for resource in sent["resources"] for event in resource["events"]]
    parts = (
        ("events", _only(found["resource_events"], EVENT_MEMBERS), _only(events, EVENT_MEMBERS)),
        ("logs", _only(found["logs"], LOG_MEMBERS), _only(sent["logs"], LOG_MEMBERS)),
        ("metrics", found["metrics"], sent["metrics"]),
        ("status", found["status"], sent["status"]),
    )
    names = [name for name, one, other in parts if one != other]
    return f"read back, its report's {' and '.join(names)} differ" if names else None


def _only(rows: list[dict[str, Any]], members: tuple[str, ...]) -> list[list[Any]]:
    return [[row[name] for name in members] for row in rows]
