"""The same reports, deactivations and expirations into PuppetDB 7.12 and into our tables: the same answers."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.store.connection import Connection, connect
from ingest.store.migrate import migrate
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
            self.peer.store([one])
            self.pipeline.take(one, received_at=datetime.now(UTC))
        self.compare()

    def compare(self) -> None:
        same(self._their_reports(), self._rows(REPORTS))
        same(self._their_events(), self._rows(EVENTS))
        same(
            self._their_lines(),
            self._rows("SELECT report, level, message, source, tags, file, line, time FROM report_logs"),
        )
        same(self._their_metrics(), self._rows("SELECT report, category, name, value FROM report_metrics"))
        same(self._their_latest(), self._rows(LATEST))

    def _rows(self, statement: str) -> list[dict[str, Any]]:
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
        query = ["or", ["=", ["node", "active"], False], ["=", ["node", "active"], True]]
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
            for row in self.peer.ask("nodes", query)
            if row["latest_report_hash"]
        ]


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
    """From the oldest that PuppetDB's queue takes over HTTP to the newest."""
    for version in (5, 6, 7, 8):
        document = old(5) if version == 5 else report(resources=[resource("/x", event())], logs=[log()])
        document |= {"certname": f"v{version}", "producer_timestamp": NOW.isoformat()}
        if version == 6:
            for name in ("noop_pending", "corrective_change", "producer", "job_id"):
                document.pop(name, None)
        if version == 5:
            document.pop("cached_catalog_status", None)
            document.pop("code_id", None)
        both.take(body(document, version))


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


def test_deactivation_in_every_order(both: Both) -> None:
    """Before and after reports and catalogs that are older or newer."""

    def deactivate(certname: str, minutes: float) -> bytes:
        when = (NOW + timedelta(minutes=minutes)).isoformat()
        payload = {"certname": certname, "producer_timestamp": when}
        return json.dumps({"command": "deactivate node", "version": 3, "payload": payload}).encode()

    both.take(body(moved("d1", 0)), deactivate("d1", 1))
    both.take(body(moved("d1", 2)))
    both.take(body(moved("d2", 0)), deactivate("d2", -1))
    both.take(deactivate("d3", 0), body(moved("d3", -1)))
    both.take(deactivate("d3", 1), body(moved("d3", 2)))


def test_catalog_inputs(both: Both) -> None:
    """The newest of a node, as a set."""

    def inputs(pairs: list[list[str]], minutes: float) -> bytes:
        when = (NOW + timedelta(minutes=minutes)).isoformat()
        payload = {"certname": "in", "producer_timestamp": when, "inputs": pairs,
                   "catalog_uuid": "45e93ff0-4a15-4575-8182-ecd4525e03da"}  # fmt: skip
        return json.dumps({"command": "replace catalog inputs", "version": 1, "payload": payload}).encode()

    both.take(wire_body("in", 1, []))
    for pairs, minutes in (
        ([["hiera", "a"], ["hiera", "b"]], 0),
        ([["hiera", "old"]], -1),
        ([["hiera", "c"]], 1),
    ):
        both.take(inputs(pairs, minutes))
        theirs = [
            {"certname": row["certname"], "type": one[0], "name": one[1]}
            for row in both.peer.ask("catalog-input-contents")
            for one in [(row["type"], row["name"])]
        ]
        same(theirs, both._rows("SELECT certname, type, name FROM catalog_inputs"))
