"""Whole runs of 300 nodes with receipts: facts, catalog, report; and what of them must be stored at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ingest.store.connection import Connection
from lab.runs import Run, facts_of, report_of
from lab.store_model import at, expected, resource, stored, wire_body
from tests.cluster.checker import Found
from tests.cluster.stream import Address, Producer

NODES = 300
PER_S = 4.0  # runs, so every node comes about every 75 s
PRODUCERS = 3  # as many Puppet servers
ROLES = 7
RESOURCES = 40
KINDS = ("facts", "catalog", "report")
AGO = timedelta(hours=6)  # the first run's time; each next one is a second later, whenever it is sent

_REPORTS = """
SELECT r.certname, r.transaction_uuid::text,
       (SELECT array_agg(e.message ORDER BY e.place) FROM resource_events e WHERE e.report = r.hash),
       (SELECT array_agg(l.message ORDER BY l.place) FROM report_logs l WHERE l.report = r.hash)
FROM reports r"""
_TWICE = "SELECT count(*) FROM (SELECT FROM node_reports GROUP BY hash HAVING count(*) > 1) AS twice"


class Runs:
    """All producers. Messages are numbered: three a run, and a run's number is its time, too."""

    def __init__(self, addresses: Sequence[Address], seed: int) -> None:
        self._seed = seed
        self._base = datetime.now(UTC).replace(microsecond=0) - AGO
        self.receipts: dict[int, float] = {}  # when
        self.sent = 0
        self.newest: dict[str, tuple[int, bytes]] = {}  # of facts and catalogs
        self.reports: list[int] = []  # the runs whose report has its receipt
        self._producers = [_Some(self, addresses, place) for place in range(PRODUCERS)]

    def start(self) -> None:
        for producer in self._producers:
            producer.start()

    def end(self) -> None:
        for producer in self._producers:
            if producer.is_alive():
                producer.end()

    def recovered_after(self, since_s: float) -> float:
        return max(producer.outages.recovered_after(since_s) for producer in self._producers)

    def key(self, number: int) -> str:
        run, kind = divmod(number, len(KINDS))
        return f"{KINDS[kind]} {certname_of(run)}"

    @property
    def states(self) -> str:
        """SQL for the watch: the number of the newest message of each node and kind."""
        epoch = int(self._base.timestamp())
        timed = (
            "SELECT '{kind} ' || certname, (round(extract(epoch FROM producer_timestamp))::bigint - {epoch}) * 3 + {place}"
            " FROM {table} JOIN nodes ON id = node_id"
        )
        tables = zip(KINDS, ("node_facts", "catalogs", "node_latest_reports"), strict=True)
        return " UNION ALL ".join(
            timed.format(kind=kind, epoch=epoch, place=place, table=table)
            for place, (kind, table) in enumerate(tables)
        )

    def report(self, run: int) -> bytes:
        return report_of(self._run(run), changed=3 if run % 5 == 0 else 0)

    def bodies(self, run: int) -> tuple[bytes, bytes, bytes]:
        return facts_of(self._run(run)), self._catalog(run), self.report(run)

    def took(self, run: int, kind: int, body: bytes) -> None:
        number = run * len(KINDS) + kind
        self.receipts[number] = time.monotonic()
        if KINDS[kind] == "report":
            self.reports.append(run)
        else:
            self.newest[self.key(number)] = (number, body)

    def _run(self, run: int) -> Run:
        return Run(
            certname_of(run),
            run % NODES,
            run // NODES,
            self._base + timedelta(seconds=run),
            self._seed,
        )

    def _catalog(self, run: int) -> bytes:
        """Two of three are what the node had before."""
        node = run % NODES
        version = (run // NODES + node) // 3
        resources = [
            resource(f"/{place}", parameters={"text": f"{place} of role {node % ROLES}"})
            for place in range(RESOURCES)
        ]
        resources += [resource(f"/own/{place}", parameters={"text": f"{node} {version}"}) for place in range(3)]  # fmt: skip
        body = wire_body(certname_of(run), run, resources, [(0, 1, "contains")])
        return body.replace(at(run).isoformat().encode(), self._run(run).at.isoformat().encode())


class _Some(Producer):
    """Every third node."""

    def __init__(self, runs: Runs, addresses: Sequence[Address], place: int) -> None:
        super().__init__(addresses, place)
        self._runs = runs
        self._first = place

    def run(self) -> None:
        started_s = time.monotonic()
        run = NODES + self._first  # no run has the number 0, nor a node's first one its own
        while not self._ended.wait(max(0.0, started_s + (run - NODES) / PER_S - time.monotonic())):
            for kind, body in enumerate(self._runs.bodies(run)):
                self._runs.sent += 1  # about: producers share it
                before_s = time.monotonic()
                if not self.publish(body):
                    return self.leave()
                self._runs.took(run, kind, body)
                self.outages.note(before_s, time.monotonic())
            run += PRODUCERS
        return self.leave()


def certname_of(run: int) -> str:
    return f"node-{run % NODES}.example.com"


def compare_runs(connection: Connection, runs: Runs) -> Found:
    """Each node's newest facts and catalog, whole; every report, with its events and lines, once."""
    numbers: dict[str, int] = dict(connection.execute(runs.states.encode()).fetchall())
    facts: dict[str, Any] = dict(connection.execute("SELECT certname, facts FROM node_factsets").fetchall())
    lost, differing = [], []
    for key, (number, body) in runs.newest.items():
        kind, certname = key.split(" ")
        if numbers.get(key, -1) < number:
            lost.append(f"{key}: {numbers.get(key)}, not {number}")
        elif kind == "catalog" and stored(connection, certname) != expected(body):
            differing.append(f"{key} differs")
        elif kind == "facts" and facts.get(certname) != json.loads(body)["payload"]["values"]:
            differing.append(f"{key} differ")
    rows: Any = connection.execute(_REPORTS.encode()).fetchall()
    there = {(certname, run): (events or [], lines or []) for certname, run, events, lines in rows}
    for run in runs.reports:
        sent = json.loads(runs.report(run))["payload"]
        events = [each["message"] for one in sent["resources"] for each in one["events"]]
        found = there.get((sent["certname"], sent["transaction_uuid"]))
        if found is None:
            lost.append(f"report of run {run} of {sent['certname']}")
        elif found != (events, [line["message"] for line in sent["logs"]]):
            differing.append(f"report of run {run} of {sent['certname']} differs")
    twice, quarantined, back = (
        _count(connection, sql)
        for sql in (
            _TWICE,
            "SELECT count(*) FROM quarantine",
            "SELECT count(*) FROM faults.effects WHERE after_time < before_time",
        )
    )
    differing += [f"{twice} reports are stored twice"] * bool(twice)
    return Found(lost, differing, back, quarantined)


def _count(connection: Connection, sql: str) -> int:
    row: Any = connection.execute(sql.encode()).fetchone()
    return int(row[0])
