"""After a run: is what the database has what was sent last of each node?

Facts and reports are compared in ``checking_runs``. Each node's newest catalog is made again from the seed and decoded;
its digests are compared with those of the rows that
are stored. Some nodes, of small fleets all, are also read back whole and compared member by member.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
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
from lab.decoding import work_of
from tools.loadgen.checking_runs import BEGINNING, facts_differ, reports_differ
from tools.loadgen.fleet import Fleet, Node, headers

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


class Difference(NamedTuple):
    certname: str
    what: str


def differences(
    database: str,
    fleet: Fleet,
    newest: Mapping[int, datetime],
    step: Callable[[], None] = lambda: None,
    since: datetime = BEGINNING,
) -> Iterator[Difference]:
    """Compares every node that ran; ``newest`` has the producer_timestamp of its last run, and its first one was not before
    ``since``."""
    decoding = Decoding(CACHE_BYTES)
    # A sample, not every nth: roles take turns.
    whole = set(random.Random(len(newest)).sample(list(newest), min(len(newest), WHOLE_NODES)))
    with connect(database) as connection:
        for number, at in newest.items():
            node = fleet.nodes[number]
            for kind in fleet.kinds:
                is_whole = number in whole
                if kind == "facts":
                    found = facts_differ(connection, fleet, node, at)
                elif kind == "report":
                    found = reports_differ(connection, fleet, node, at, since, whole=is_whole)
                else:
                    found = _rows_differ(connection, decoding, fleet, node, at)
                    if found is None and is_whole:
                        found = _whole_differs(connection, fleet, node, at)
                if found is not None:
                    yield Difference(node.certname, found)
            step()


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
