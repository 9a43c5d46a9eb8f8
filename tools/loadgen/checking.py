"""After a run: is what the database has what was sent last of each node?

Each node's newest catalog is made again from the seed and decoded; its digests are compared with those of the rows that
are stored. Some nodes, of small fleets all, are also read back whole and compared member by member. Of whole runs, each
node's facts are compared value by value, its reports counted, and the newest one compared with what was sent.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.normalise import normalise
from ingest.core.catalog.wire import to_wire
from ingest.core.delivery.work import DIGEST_BYTES, Descriptor, Full
from ingest.errors import Refused
from ingest.store.catalog.reading import read_catalog
from ingest.store.connection import Connection, connect
from lab import synthetic_runs
from lab.decoding import work_of
from tools.loadgen.fleet import Fleet, Node, headers
from tools.loadgen.sending import Newest

CACHE_BYTES = 512 * 1024 * 1024
WHOLE_NODES = 100  # so many are compared whole: they take ten times as long as by digests
MEMBERS = ("certname", "version", "producer", "producer_timestamp", "environment", "resources", "edges")
ROWS = """
SELECT c.producer_timestamp, es.digest, ps.digest,
       (SELECT string_agg(r.digest, ''::bytea ORDER BY cr.chunk, m.place)
        FROM catalog_resources cr
        CROSS JOIN LATERAL unnest(cr.resource_ids) WITH ORDINALITY AS m (id, place)
        JOIN resources r ON r.id = m.id
        WHERE cr.node_id = c.node_id)
FROM nodes n
JOIN catalogs c ON c.node_id = n.id
JOIN edge_sets es ON es.id = c.edge_set_id
JOIN position_sets ps ON ps.id = c.position_set_id
WHERE n.certname = %s
"""


FACTS = "SELECT producer_timestamp, facts FROM node_factsets WHERE certname = %s"
REPORTS = """
SELECT (SELECT count(*) FROM reports WHERE certname = %(certname)s), l.producer_timestamp, l.status,
       (SELECT count(*) FROM resource_events e WHERE e.report = l.hash),
       (SELECT array_agg(g.message ORDER BY g.place) FROM report_logs g WHERE g.report = l.hash),
       (SELECT jsonb_agg(jsonb_build_array(m.category, m.name, m.value)) FROM report_metrics m WHERE m.report = l.hash)
FROM latest_reports l
WHERE l.certname = %(certname)s
"""


class Difference(NamedTuple):
    certname: str
    what: str


def differences(
    database: str,
    fleet: Fleet,
    newest: Mapping[int, Newest],
    kinds: Sequence[str] = ("catalog",),
    step: Callable[[], None] = lambda: None,
) -> Iterator[Difference]:
    """Compares every node that ran with its ``newest`` run."""
    decoding = Decoding(CACHE_BYTES)
    # A sample, not every nth: roles take turns.
    whole = set(random.Random(len(newest)).sample(list(newest), min(len(newest), WHOLE_NODES)))
    with connect(database) as connection:
        for number, (at, change) in newest.items():
            node = fleet.nodes[number]
            found = [_rows_differ(connection, decoding, fleet, node, at)]
            if found == [None] and number in whole:
                found = [_whole_differs(connection, fleet, node, at)]
            if "facts" in kinds:
                found.append(_facts_differ(connection, node, at))
            if "report" in kinds:
                found.append(_reports_differ(connection, node, change, at))
            for one in found:
                if one is not None:
                    yield Difference(node.certname, one)
            step()


def _facts_differ(connection: Connection, node: Node, at: datetime) -> str | None:
    row: Any = connection.execute(FACTS, [node.certname]).fetchone()
    if row is None:
        return "no facts are stored"
    timestamp, values = row
    if timestamp != at:
        return f"the facts of {timestamp} are stored, those of {at} were sent last"
    expected = synthetic_runs.fact_values(node.certname, node.number, at)
    names = sorted(name for name in values.keys() | expected.keys() if values.get(name) != expected.get(name))
    return f"its facts {', '.join(names[:5])} differ" if names else None


def _reports_differ(connection: Connection, node: Node, change: str, at: datetime) -> str | None:
    row: Any = connection.execute(REPORTS, {"certname": node.certname}).fetchone()
    if row is None:
        return "no report is stored"
    count, timestamp, status, events, messages, metrics = row
    if count != node.runs:
        return f"{count} of its {node.runs} reports are stored"
    if timestamp != at:
        return f"the newest report is of {timestamp}, the last that was sent of {at}"
    payload = synthetic_runs.report_payload(node.certname, node.runs, change, at)
    expected = (
        payload["status"],
        sum(len(resource["events"]) for resource in payload["resources"]),
        sorted(log["message"] for log in payload["logs"]),
        sorted([metric["category"], metric["name"], metric["value"]] for metric in payload["metrics"]),
    )
    found = (status, events, sorted(messages or ()), sorted(metrics or ()))
    return None if found == expected else "its newest report is not what was sent"


def _rows_differ(
    connection: Connection, decoding: Decoding, fleet: Fleet, node: Node, at: datetime
) -> str | None:
    row: Any = connection.execute(ROWS, [node.certname]).fetchone()
    if row is None:
        return "nothing is stored"
    timestamp, edge_set, position_set, digests = row
    if timestamp != at:
        return f"the catalog of {timestamp} is stored, that of {at} was sent last"
    body = fleet.body(node, at)
    descriptor = Descriptor(1, 1, 0, len(body), len(body), at, headers(node, at))
    work = work_of(decoding, descriptor, body, {})
    assert isinstance(work, Full)
    of_rows = hashlib.sha256((digests or b"") + edge_set + position_set).digest()[:DIGEST_BYTES]
    return None if of_rows == work.content_digest else "the stored rows are not what was sent"


def _whole_differs(connection: Connection, fleet: Fleet, node: Node, at: datetime) -> str | None:
    skimmed = skim(fleet.body(node, at), headers(node, at), at)
    assert isinstance(skimmed, Skim)
    expected = to_wire(normalise(skimmed))
    try:
        found = to_wire(read_catalog(connection, node.certname))
    except Refused as refused:
        return str(refused)
    names = [name for name in MEMBERS if found[name] != expected[name]]
    return f"read back, its {' and '.join(names)} differ" if names else None
