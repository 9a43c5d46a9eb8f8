"""What the load generator says about a database that is not what was sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ingest.core.delivery.work import Descriptor, Full
from ingest.store.connection import Connection
from lab.decoding import work_of
from lab.store_model import Pipeline
from tools.loadgen.checking import differences
from tools.loadgen.fleet import Fleet, headers

AT = datetime(2026, 1, 1, tzinfo=UTC)
FORMS = ("wire", "native", "legacy")


@pytest.fixture
def fleet(connection: Connection) -> Fleet:
    """Three nodes, each of another form, that are stored as they are."""
    made = Fleet(3, 1, forms=FORMS, resources=150, kinds=("catalog",))
    pipeline = Pipeline(connection)
    works = []
    for node in made.nodes:
        made.change(node)
        body = made.body(node, AT)
        descriptor = Descriptor(node.number + 1, 1, 0, len(body), len(body), AT, headers(node, AT))
        work = work_of(pipeline.decoding, descriptor, body, {})
        assert isinstance(work, Full)
        works.append(work)
    pipeline.lane.apply(works)
    return made


NEWEST = dict.fromkeys(range(3), AT)


def test_what_was_stored_as_it_was_sent_is_no_difference(fleet: Fleet, database: str) -> None:
    """In every form; and each node is counted once."""
    counted: list[int] = []
    assert list(differences(database, fleet, NEWEST, lambda: counted.append(1))) == []
    assert len(counted) == 3


@pytest.mark.parametrize(
    ("tampering", "word"),
    [
        ("DELETE FROM catalogs WHERE node_id = {node}", "nothing is stored"),
        ("UPDATE catalogs SET producer_timestamp = producer_timestamp - interval '1s' WHERE node_id = {node}",
         "was sent last"),
        ("UPDATE catalog_resources SET resource_ids = resource_ids[2:] WHERE node_id = {node}", "rows are not"),
        ("UPDATE edge_sets SET digest = digest || '1' WHERE id = (SELECT edge_set_id FROM catalogs WHERE node_id = {node})",
         "rows are not"),
        ("UPDATE position_sets SET position_ids = position_ids[2:] || position_ids[1] WHERE id = "
         "(SELECT position_set_id FROM catalogs WHERE node_id = {node})", "resources differ"),
        ("UPDATE edge_sets SET relationships[1] = (relationships[1] + 1) % 5 "
         "WHERE id = (SELECT edge_set_id FROM catalogs WHERE node_id = {node})", "edges differ"),
        ("UPDATE resources SET parameters = parameters || '{{\"x\":1}}' WHERE id = "
         "(SELECT resource_ids[1] FROM catalog_resources WHERE node_id = {node} AND chunk = 0)", "resources differ"),
        ("UPDATE catalogs SET environment_id = NULL WHERE node_id = {node}", "environment differ"),
    ],
)  # fmt: skip
def test_each_way_of_being_wrong_is_found(
    fleet: Fleet, database: str, connection: Connection, tampering: str, word: str
) -> None:
    """A row that is gone, older, or has other contents; the node is named."""
    certname = fleet.nodes[1].certname
    row = connection.execute("SELECT id FROM nodes WHERE certname = %s", [certname]).fetchone()
    assert row is not None
    connection.execute(tampering.format(node=row[0]))
    found = {difference.certname: difference.what for difference in differences(database, fleet, NEWEST)}
    assert word in found[certname]


def test_a_catalog_that_never_came_is_found(fleet: Fleet, database: str) -> None:
    """The fleet has gone on, the database has not."""
    later = AT + timedelta(minutes=30)
    (difference,) = differences(database, fleet, NEWEST | {2: later})
    assert difference.certname == fleet.nodes[2].certname
    assert "was sent last" in difference.what
