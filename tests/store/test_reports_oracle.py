"""The same reports, deactivations and expirations into PuppetDB 7.12 and into our tables: the same answers."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import expire_nodes, purge_nodes
from ingest.store.migrate import migrate
from lab.facts import facts_body
from lab.puppetdb import PuppetDB, missing
from lab.servers import Postgres
from lab.store_model import Pipeline, wire_body
from tests.core.test_report import event, log, old, report, resource
from tests.store.test_reports import REAL, body

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(missing()), reason=missing() or "")]

NOW = datetime.now(UTC).replace(microsecond=0)


class Both:
    """Takes commands, one after the other, and compares."""

    def __init__(self, peer: PuppetDB, connection: Connection) -> None:
        self.peer = peer
        self.connection = connection
        self.pipeline = Pipeline(connection)

    def take(self, *bodies: bytes) -> None:
        for one in bodies:
            self.send([one])
        self.compare()

    def send(self, bodies: Sequence[bytes], at: Sequence[datetime] = ()) -> None:
        """At once, as far as PuppetDB is concerned: of one node only what may come in any order. ``at``: when each came."""
        self.peer.store(bodies)
        for one, when in zip(bodies, at or [datetime.now(UTC)] * len(bodies), strict=True):
            self.pipeline.take(one, received_at=when)

    def expire(self) -> None:
        self.peer.clean("expire_nodes")
        expire_nodes(self.connection, timedelta(days=7))

    def purge(self) -> None:
        self.peer.clean("purge_nodes")
        purge_nodes(self.connection, timedelta(days=14))

    def compare_life(self) -> list[str]:
        """Which nodes there are, and their states; returns those that are expired."""
        theirs = [
            {
                "certname": row["certname"],
                "is_deactivated": row["deactivated"] is not None,
                "is_expired": row["expired"] is not None,
                "hash": row["latest_report_hash"],
                "has_facts": row["facts_timestamp"] is not None,
                "has_catalog": row["catalog_timestamp"] is not None,
            }
            for row in self.peer.ask("nodes", ANY_STATE)
        ]
        same(theirs, self.rows(LIFE))
        return sorted(row["certname"] for row in theirs if row["is_expired"])

    def compare(self) -> None:
        same(self._their_reports(), self.rows(REPORTS))
        same(self._their_events(), self.rows(EVENTS))
        same(
            self._their_lines(),
            self.rows("SELECT report, level, message, source, tags, file, line, time FROM report_logs"),
        )
        same(self._their_metrics(), self.rows("SELECT report, category, name, value FROM report_metrics"))
        same(self._their_latest(), self.rows(LATEST))

    def rows(self, statement: str) -> list[dict[str, Any]]:
        cursor: Any = self.connection.execute(statement)  # type: ignore[call-overload]
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _their_reports(self) -> list[dict[str, Any]]:
        # What it answers of corrective changes is null in the open version; ours is the truth.
        left_out = (
            "logs",
            "metrics",
            "resource_events",
            "receive_time",
            "corrective_change",
            "latest_report?",
        )
        return [{k: v for k, v in row.items() if k not in left_out} for row in self.peer.ask("reports")]

    def _their_events(self) -> list[dict[str, Any]]:
        left_out = ("report_receive_time", "corrective_change")
        return [{k: v for k, v in row.items() if k not in left_out} for row in self.peer.ask("events")]

    def _their_lines(self) -> list[dict[str, Any]]:
        return [
            {"report": row["hash"]} | line
            for row in self.peer.ask("reports")
            for line in row["logs"]["data"] or ()
        ]

    def _their_metrics(self) -> list[dict[str, Any]]:
        return [
            {"report": row["hash"]} | one
            for row in self.peer.ask("reports")
            for one in row["metrics"]["data"] or ()
        ]

    def _their_latest(self) -> list[dict[str, Any]]:
        """By all nodes, whatever their state."""
        return [
            {
                "certname": row["certname"],
                "hash": row["latest_report_hash"],
                "status": row["latest_report_status"],
                "noop": row["latest_report_noop"],
                "noop_pending": row["latest_report_noop_pending"],
                "cached_catalog_status": row["cached_catalog_status"],
                "environment": row["report_environment"],
                "end_time": row["report_timestamp"],
                "is_deactivated": row["deactivated"] is not None,
            }
            for row in self.peer.ask("nodes", ANY_STATE)
            if row["latest_report_hash"]
        ]


ANY_STATE = ["or", ["=", ["node", "active"], False], ["=", ["node", "active"], True]]
UUID = "45e93ff0-4a15-4575-8182-ecd4525e03da"
LIFE = """
    SELECT n.certname, n.deactivated IS NOT NULL AS is_deactivated, n.expired IS NOT NULL AS is_expired,
           encode(l.hash, 'hex') AS hash, f.node_id IS NOT NULL AS has_facts, c.node_id IS NOT NULL AS has_catalog
    FROM nodes n
    LEFT JOIN node_latest_reports l ON l.node_id = n.id
    LEFT JOIN node_facts f ON f.node_id = n.id
    LEFT JOIN catalogs c ON c.node_id = n.id"""
REPORTS = """
    SELECT certname, hash, puppet_version, report_format, configuration_version, start_time, end_time, producer_timestamp,
           transaction_uuid::text AS transaction_uuid, catalog_uuid::text AS catalog_uuid, code_id, job_id,
           cached_catalog_status, environment, producer, status, noop, noop_pending, type
    FROM reports"""
EVENTS = """
    SELECT certname, report, status, timestamp, resource_type, resource_title, property, name, new_value, old_value, message,
           file, line, containment_path, containing_class, run_start_time, run_end_time, configuration_version, environment
    FROM resource_events"""
LATEST = """
    SELECT certname, hash, status, noop, noop_pending, cached_catalog_status, environment, end_time,
           deactivated IS NOT NULL AS is_deactivated
    FROM latest_reports"""


def same(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> None:
    expected, found = sorted(map(_key, theirs)), sorted(map(_key, ours))
    assert [row for row in found if row not in expected] == []
    assert [row for row in expected if row not in found] == []
    assert len(expected) == len(found)


def _key(row: dict[str, Any]) -> str:
    return json.dumps({name: _comparable(value) for name, value in row.items()}, sort_keys=True)


def _comparable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    if isinstance(value, str) and value[-6:] == "+00:00" and value[4:5] == "-":
        return _comparable(datetime.fromisoformat(value))  # of logs PuppetDB keeps the text
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return value


@pytest.fixture(scope="module")
def peer() -> Iterator[PuppetDB]:
    directory = Path(tempfile.mkdtemp(prefix="ingest-oracle-"))
    directory.chmod(0o755)
    (directory / "postgresql").mkdir()
    server = Postgres(directory / "postgresql")
    server.start()
    started = PuppetDB(directory, server)
    yield started
    started.stop()
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def both(peer: PuppetDB, postgres: Postgres) -> Iterator[Both]:
    postgres.execute("postgres", "CREATE DATABASE reports_oracle")
    with connect(postgres.conninfo("reports_oracle")) as connection:
        migrate(connection)
        yield Both(peer, connection)


def moved(certname: str, minutes: float = 0, **more: Any) -> dict[str, Any]:
    when = (NOW + timedelta(minutes=minutes)).isoformat()
    made = report(certname=certname, producer_timestamp=when, start_time=when, end_time=when)
    return made | {"transaction_uuid": None} | more


def test_real_reports(both: Both) -> None:
    """Of two runs, by Puppet 7.23, as if they were of today."""
    for name, run in REAL.items():
        minute = {"unchanged": -40, "next": -10}[name]
        when = (NOW + timedelta(minutes=minute)).isoformat()
        both.take(body(run["payload"] | {"producer_timestamp": when}))


def test_every_version(both: Both) -> None:
    """From the oldest that PuppetDB takes over HTTP to the newest."""
    for version in (5, 6, 7, 8):
        document = old(version) if version < 8 else report(resources=[resource("/x", event())], logs=[log()])
        both.take(
            body(document | {"certname": f"v{version}", "producer_timestamp": NOW.isoformat()}, version)
        )


def test_odd_values(both: Both) -> None:
    """Skipped resources, any JSON in values, no file, text of any script, U+0000."""
    values = [
        None,
        True,
        0,
        -1.5,
        "",
        "ünï 🙂",
        "a\0b",
        [1, {"a": None}],
        {"b": [], "a": {}},
        12345678901234567890,
    ]
    resources = [
        resource(f"/{n}", event(new_value=v, old_value=v, message="é\n")) for n, v in enumerate(values)
    ]
    resources += [
        resource("skipped", skipped=True),
        resource(
            "bare", event(property=None, message=None, name=None), file=None, line=None, containment_path=None
        ),
        resource("class", event(), containment_path=["Stage[main]", "A", "B::C", "D[d]", "File[class]"]),
        resource("quiet"),
    ]
    logs = [log("é\n", tags=["a", "b::c"]), log("", source="", file="/x", line=7), log("é\n")]
    metrics = [{"category": "time", "name": "total", "value": v} for v in (0, 1, 1.5, 1e-7, 123456789)]
    both.take(
        body(moved("odd", resources=resources, logs=logs, metrics=metrics, configuration_version='"/ <é>'))
    )


def test_the_same_report_again_and_an_older_one(both: Both) -> None:
    """The newest counts, whatever comes later."""
    both.take(body(moved("again", 0, status="failed", noop_pending=True)))
    both.take(body(moved("again", 0, status="failed", noop_pending=True)))
    both.take(body(moved("again", -5, status="changed")))
    both.take(
        body(moved("again", 5, status="unchanged", cached_catalog_status="on_failure", environment="é"))
    )


# The life of nodes


KINDS: dict[str, Callable[[str, datetime], bytes]] = {
    "facts": lambda certname, when: facts_body(certname, 0, {"a": 1}, producer_timestamp=when.isoformat()),
    "catalog": lambda certname, when: dated(wire_body(certname, 1, []), when),
    "report": lambda certname, when: body(moved(certname, (when - NOW) / timedelta(minutes=1))),
    "inputs": lambda certname, when: command(
        "replace catalog inputs", 1, certname, when, inputs=[["hiera", "a"]], catalog_uuid=UUID
    ),
    "deactivate": lambda certname, when: command("deactivate node", 3, certname, when),
}


def command(name: str, version: int, certname: str, when: datetime, **more: Any) -> bytes:
    payload = {"certname": certname, "producer_timestamp": when.isoformat()} | more
    return json.dumps({"command": name, "version": version, "payload": payload}).encode()


def dated(catalog: bytes, when: datetime) -> bytes:
    document = json.loads(catalog)
    document["payload"]["producer_timestamp"] = when.isoformat()
    return json.dumps(document).encode()


@pytest.mark.parametrize("minute", [-1, 1, 9], ids=["before all", "between", "after all"])
def test_deactivation_in_every_order(both: Both, minute: int) -> None:
    """Of facts, a catalog, a report and a deactivation that lies before, between or after them."""
    minutes = {"facts": 0, "catalog": 2, "report": 4, "deactivate": minute}
    orders = list(itertools.permutations(minutes))
    for place in range(len(minutes)):
        both.send([
            KINDS[order[place]](f"d{minute}-{''.join(kind[0] for kind in order)}", NOW + timedelta(minutes=minutes[order[place]]))
            for order in orders
        ])  # fmt: skip
        both.compare_life()


# Two of them make sure that who is heard of by one of a kind stays; a node that shall not expire does not.
AGES = (None, timedelta(days=1), timedelta(days=8))
OTHERS = ("nothing", "inputs", "keep", "keep no more")


def test_expiry_by_the_newest_of_all_kinds(both: Both) -> None:
    """Each kind missing, recent or old; and the node is back with whatever comes then."""
    now = datetime.now(UTC)
    sent: list[tuple[bytes, datetime]] = []
    for number, (facts, catalog, run, other) in enumerate(itertools.product(AGES, AGES, AGES, OTHERS)):
        ages = {"facts": facts, "catalog": catalog, "report": run}
        certname = f"e{number:03}"
        if all(age is None for age in ages.values()):
            continue  # a node of which there is nothing is forgotten, and in PuppetDB expired
        sent += [
            (KINDS[kind](certname, now - age), now - age) for kind, age in ages.items() if age is not None
        ]
        if other == "inputs":
            sent.append((KINDS["inputs"](certname, now - AGES[1]), now - AGES[1]))
        for minutes, expires in ((10, False), (5, True)):
            if other == "keep no more" or (other == "keep" and not expires):
                when = now - timedelta(days=9, minutes=minutes)
                sent.append(
                    (command("configure expiration", 1, certname, when, expire={"facts": expires}), when)
                )
    both.send([one for one, _ in sent], [when for _, when in sent])
    both.compare_life()
    both.expire()
    expired = both.compare_life()
    assert 10 < len(expired) < 100
    back = [
        KINDS[("facts", "catalog", "report", "inputs")[number % 4]](
            certname, datetime.now(UTC) + timedelta(seconds=1)
        )
        for number, certname in enumerate(expired)
    ]
    both.send(back, [datetime.now(UTC)] * len(back))
    assert both.compare_life() == []


def test_a_node_that_is_gone_for_long_is_purged(both: Both) -> None:
    """With its newest report; one that was deactivated lately stays."""
    now = datetime.now(UTC)
    for days in (13, 15):
        for kind in ("facts", "catalog", "report"):
            before = now - timedelta(days=days + 1)
            both.send([KINDS[kind](f"p{days}-{kind}", before)], [before])
            both.send([KINDS["deactivate"](f"p{days}-{kind}", now - timedelta(days=days))])
    both.purge()  # PuppetDB shows them no more as soon as it may
    both.compare_life()


def test_catalog_inputs(both: Both) -> None:
    """The newest of a node, as a set."""

    def inputs(pairs: list[list[str]], minutes: float) -> bytes:
        when = NOW + timedelta(minutes=minutes)
        return command("replace catalog inputs", 1, "in", when, inputs=pairs, catalog_uuid=UUID)

    both.take(wire_body("in", 1, []))
    for pairs, minutes in (
        ([["hiera", "a"], ["hiera", "b"]], 0),
        ([["hiera", "old"]], -1),
        ([["hiera", "c"]], 1),
    ):
        both.take(inputs(pairs, minutes))
        theirs = [
            {"certname": row["certname"], "type": one[0], "name": one[1]}
            for row in both.peer.ask("catalog-input-contents", ["=", "certname", "in"])
            for one in [(row["type"], row["name"])]
        ]
        same(theirs, both.rows("SELECT certname, type, name FROM catalog_inputs WHERE certname = 'in'"))
