"""Whatever happens, in any order, the database equals a dict of the newest catalogs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ingest.core.delivery.work import Claim, Deactivate, Full, Outcome
from ingest.store.catalog.reading import exported_resources
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import collect_garbage, expire_nodes, purge_nodes
from lab.store_model import Pipeline, at, resource, stored, wire_body
from lab.store_reference import Reference
from tests.store.test_writing import deactivate

# make test-store-long has more of them.
EXAMPLES = int(os.environ.get("INGEST_TEST_STORE_EXAMPLES", "25"))
MINUTES = 12
CERTNAMES = ("a.example.com", "b.example.com", "c.example.com")
WRITERS = (0, 1)
EARLY_BYTES = 300  # about two resources

resources = st.builds(
    resource,
    st.sampled_from(["/a", "/b", "/c", "/d", "nul\x00"]),
    type_=st.sampled_from(["File", "Sshkey"]),
    exported=st.booleans(),
    tags=st.lists(st.sampled_from(["a", "b", "web"]), unique=True),
    line=st.integers(1, 3),
    parameters=st.fixed_dictionaries({}, optional={"mode": st.sampled_from(["0600", "0644", 1e22, "\x00"])}),
)
catalogs = st.lists(resources, max_size=6, unique_by=lambda r: (r["type"], r["title"]))
relationships = st.sampled_from(["contains", "before", "notifies"])
# How much of a catalog's content two neighbouring slots may share a chunk is the matter of other tests: here
# most catalogs are short, and some have three chunks.
padding = st.sampled_from([0, 0, 0, 600])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A catalog of some node and minute: few of each, so that they are stale, equal and newer."""
    found = draw(catalogs)
    found += [resource(f"/pad/{n:04}") for n in range(draw(padding))]
    places = st.integers(0, len(found) - 1)
    edges = draw(st.lists(st.tuples(places, places, relationships), max_size=3)) if len(found) > 1 else []
    edges = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]
    # Without a time of its own its order is that of its arrival.
    timed = draw(st.booleans())
    return wire_body(
        draw(st.sampled_from(CERTNAMES)), draw(st.integers(0, MINUTES)), found, edges, timed=timed
    )


commands = st.builds(deactivate, st.sampled_from(CERTNAMES), st.integers(0, MINUTES))


class Store(RuleBasedStateMachine):
    """Two writers with caches of their own, one database, and a Reference that takes the same messages."""

    conninfo: ClassVar[str]
    sent = Bundle("sent")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.connection = connect(self.conninfo)
        empty(self.connection)
        self.writers = [Pipeline(connect(self.conninfo), early_bytes=EARLY_BYTES) for _ in WRITERS]
        self.reference = Reference()
        self.received = 0  # messages; one in ten seconds, so that they come among the times that others name

    def teardown(self) -> None:
        for opened in (self.connection, *(writer.lane.connection for writer in self.writers)):
            opened.close()

    @rule(
        target=sent,
        writer=st.sampled_from(WRITERS),
        batch=st.lists(bodies() | commands, min_size=1, max_size=4),
    )
    def take(self, writer: int, batch: list[bytes]) -> Any:
        self._take(writer, batch)
        return multiple(*batch)

    @rule(writer=st.sampled_from(WRITERS), batch=st.lists(sent, min_size=1, max_size=3))
    def take_again(self, writer: int, batch: list[bytes]) -> None:
        """Redelivered, to the same writer or to the other one, and never in the order of the first time."""
        self._take(writer, batch)

    @rule(
        target=sent,
        writer=st.sampled_from(WRITERS),
        body=sent,
        minute=st.integers(0, MINUTES),
        data=st.data(),
    )
    def change_a_little(self, writer: int, body: bytes, minute: int, data: st.DataObject) -> bytes:
        """The next run of a node: the same content in another order, or with one line or parameter changed."""
        changed = _next_run(body, minute, data)
        self._take(writer, [changed])
        return changed

    @rule(target=held, writer=st.sampled_from(WRITERS), body=bodies() | sent)
    def decode(self, writer: int, body: bytes) -> Any:
        """Decoded now, written later: what its decoder believes may have changed by then."""
        return writer, body, self.writers[writer].decode(body, received_at=self._next_receipt())

    @rule(decoded=held)
    def write(self, decoded: tuple[int, bytes, Claim | Full | Deactivate]) -> None:
        writer, body, work = decoded
        self.writers[writer].settle([work], [body])
        self.reference.take(body, work.received_at)

    @rule(step_rows=st.sampled_from([1, 1000]))
    def collect(self, step_rows: int) -> None:
        collected = collect_garbage(self.connection, step_rows=step_rows, pause=lambda s: None)
        assert collected.postponed == 0

    @rule(minute=st.integers(0, MINUTES))
    def expire(self, minute: int) -> None:
        before = at(minute) + timedelta(seconds=35)  # between two receipts
        assert expire_nodes(self.connection, datetime.now(UTC) - before) == self.reference.expire(before)

    @rule(minute=st.integers(0, MINUTES))
    def purge_deactivated(self, minute: int) -> None:
        before = at(minute) + timedelta(seconds=30)
        purged = purge_nodes(self.connection, datetime.now(UTC) - before)
        assert purged == self.reference.purge(before, expired=False)

    @rule()
    def purge_all(self) -> None:
        purged = purge_nodes(self.connection, timedelta(0))
        assert purged == self.reference.purge(datetime.max.replace(tzinfo=UTC), expired=True)

    @precondition(lambda self: self.reference.nodes)
    @rule()
    def collect_twice_leaves_what_is_used(self) -> None:
        """Content refers to content: with two runs nothing is left that no node has."""
        for _ in range(3):
            collect_garbage(self.connection, pause=lambda s: None)
        left = self._count("SELECT count(*) FROM resources")
        assert left == self._count(
            "SELECT count(DISTINCT used) FROM catalog_resources, unnest(resource_ids) AS used"
        )
        assert self._count("SELECT count(*) FROM tags") == self._count(
            "SELECT count(DISTINCT used) FROM resources, unnest(tag_ids) AS used"
        )
        assert self._count("SELECT count(*) FROM positions") == self._count(
            "SELECT count(DISTINCT used) FROM position_sets, unnest(position_ids) AS used"
        )

    @invariant()
    def every_catalog_is_the_newest(self) -> None:
        expected = self.reference.catalogs()
        rows: Any = self.connection.execute(
            "SELECT certname FROM nodes JOIN catalogs ON node_id = id"
        ).fetchall()
        assert {certname for (certname,) in rows} == expected.keys()
        for certname, catalog in expected.items():
            assert stored(self.connection, certname) == catalog

    @invariant()
    def collectors_see_active_nodes_only(self) -> None:
        found = [
            (r["certname"], r["title"], r["parameters"])
            for r in exported_resources(self.connection, "Sshkey")
        ]
        assert sorted(found, key=repr) == sorted(self.reference.exported("Sshkey"), key=repr)

    @invariant()
    def views_show_active_nodes_whole(self) -> None:
        active = {
            name: catalog
            for name, catalog in self.reference.catalogs().items()
            if self.reference.nodes[name].is_active
        }
        rows: Any = self.connection.execute(
            "SELECT certname, type, title, line FROM node_resources"
        ).fetchall()
        assert sorted(rows, key=repr) == sorted(
            (
                (name, r["type"], r["title"].replace("\x00", "\ufffd"), r["line"])
                for name, catalog in active.items()
                for r in catalog["resources"]
            ),
            key=repr,
        )
        row = self._count("SELECT count(*) FROM edges")
        assert row == sum(len(catalog["edges"]) for catalog in active.values())

    def _take(self, writer: int, batch: Sequence[bytes]) -> None:
        works = [self.writers[writer].decode(body, received_at=self._next_receipt()) for body in batch]
        assert Outcome.REDO not in self.writers[writer].settle(works, batch)
        for body, work in zip(batch, works, strict=True):
            self.reference.take(body, work.received_at)

    def _next_receipt(self) -> datetime:
        self.received += 1
        return at(0) + timedelta(seconds=10 * self.received)

    def _count(self, statement: str) -> int:
        row: Any = self.connection.execute(statement).fetchone()  # type: ignore[call-overload]
        return int(row[0])


def _next_run(body: bytes, minute: int, data: st.DataObject) -> bytes:
    import json

    document = json.loads(body)
    if document["command"] != "replace catalog":
        return deactivate(document["payload"]["certname"], minute)
    payload = document["payload"]
    timed = "producer_timestamp" in payload
    found = (
        data.draw(st.permutations(payload["resources"]))
        if len(payload["resources"]) < 10
        else payload["resources"]
    )
    if found and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(found) - 1))
        change = data.draw(
            st.sampled_from([{"line": 9}, {"parameters": {"mode": "0700"}}, {"exported": True}])
        )
        found = [*found[:place], found[place] | change, *found[place + 1 :]]
    by_ref = {(r["type"], r["title"]): place for place, r in enumerate(found)}
    edges = [
        (by_ref[e["source"]["type"], e["source"]["title"]], by_ref[e["target"]["type"], e["target"]["title"]],
         e["relationship"])
        for e in payload["edges"]
    ]  # fmt: skip
    return wire_body(payload["certname"], minute, found, edges, timed=timed)


def empty(connection: Connection) -> None:
    """As a new database, but for the generation, which only ever grows."""
    connection.execute(
        "TRUNCATE nodes, environments, producers, tags, positions, resources, edge_sets, position_sets, catalogs,"
        " catalog_resources, catalog_exports, quarantine, node_latest_reports, node_expirations, node_inputs,"
        " node_rhythms"
    )
    connection.execute("UPDATE content_state SET generation = generation + 1")


@pytest.fixture
def machine(database: str) -> type[Store]:
    return type("Machine", (Store,), {"conninfo": database})


def test_the_store_equals_the_reference_after_every_step(machine: type[Store]) -> None:
    """Catalogs added, changed, reordered, duplicated, stale; two writers; garbage collected at any moment; nodes
    deactivated, expired and purged."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # shrinking takes minutes; the steps are short enough to read
            print_blob=True,
            database=None,
        ),
    )
