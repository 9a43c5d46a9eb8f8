"""What a run sends besides its catalog, as a broken or malicious node sends it: facts, reports, inputs and commands that are
large, never the same, or of another time. Neighbours do not notice, memory is bounded, and what is refused is refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ingest.config.loading import load
from ingest.store.connection import Connection
from lab.engine import Start, publish
from tests.core.test_report import event, log, old, report, resource
from tests.hostile.watching import watched

MIB = 1024 * 1024
# make test-hostile-long has them at full size; a body of 50 MB takes a minute of a slow core.
IS_LONG = "INGEST_TEST_HOSTILE_SECONDS" in os.environ
FLAGS = {"workers": "1", "decode_memory_bytes_max": "1GiB", "body_bytes_max": "64MiB"} if IS_LONG else {
    "workers": "1", "decode_memory_bytes_max": "256MiB", "body_bytes_max": "16MiB"}  # fmt: skip
LARGE = 50_000_000 if IS_LONG else 4_000_000
NOW = datetime.now(UTC)


def command(name: str, version: int, certname: str, minute: float, **payload: Any) -> bytes:
    when = (NOW + timedelta(minutes=minute)).isoformat()
    document = {"certname": certname, "producer_timestamp": when} | payload
    return json.dumps(
        {"command": name, "version": version, "certname": certname, "payload": document}
    ).encode()


def facts(certname: str, minute: float, **values: Any) -> bytes:
    return command("replace facts", 5, certname, minute, environment="production", values=values)


def run(certname: str, minute: float, **more: Any) -> bytes:
    when = (NOW + timedelta(minutes=minute)).isoformat()
    made = report(producer_timestamp=when, start_time=when, end_time=when) | more
    del made["certname"], made["producer_timestamp"]
    return command("store report", 8, certname, minute, **made)


def old_run(certname: str, events: int) -> bytes:
    """In the flat form of version 5: each event says all of its resource."""
    when = NOW.isoformat()
    made = old(5) | {"start_time": when, "end_time": when}
    made["resource_events"] = made["resource_events"][:2] * (events // 2)
    del made["certname"], made["producer_timestamp"]
    return command("store report", 5, certname, 0, **made)


def inputs(certname: str, minute: float, pairs: list[list[str]]) -> bytes:
    return command("replace catalog inputs", 1, certname, minute, catalog_uuid=None, inputs=pairs)


def with_many(body: bytes, place: bytes, what: bytes, count: int) -> bytes:
    """Python need not hold them all as objects."""
    return body.replace(place, b"[" + b",".join([what] * count) + b"]")


class Case(NamedTuple):
    """What is sent of the node with the case's name; why it is refused; what the node has then, as SQL and its answer."""

    bodies: Callable[[str], list[bytes]]
    reason: str | None = None
    asked: str = ""
    answer: object = None


YEARS, LATER = 10 * 365 * 24 * 60, 600  # minutes
FACT = "SELECT count(*) FROM facts WHERE certname = %(name)s"
EVENTS = "SELECT count(*) FROM resource_events WHERE certname = %(name)s"
CASES = {
    "leaf": Case(
        lambda n: [facts(n, m, uptime=m, still={"a": 1}) for m in range(30)],
        asked="SELECT value::integer FROM facts WHERE certname = %(name)s AND name = 'uptime'", answer=29,
    ),
    "shape": Case(
        lambda n: [facts(n, m, **{f"fact_{m}": {f"key_{m}": [m] * (m % 5)}}) for m in range(30)],
        asked="SELECT string_agg(name, ',') FROM facts WHERE certname = %(name)s", answer="fact_29",
    ),
    "paths": Case(
        lambda n: [facts(n, 0, **{f"f{a}": {f"k{b}": b for b in range(1000)} for a in range(100)})],
        asked="SELECT count(*) FROM fact_contents WHERE certname = %(name)s", answer=100_000,
    ),
    "facts-of-one-text": Case(lambda n: [facts(n, 0, text="x" * LARGE)], asked=FACT, answer=1),
    "facts-of-leaves": Case(
        lambda n: [with_many(facts(n, 0, many="@"), b'"@"', b"1", (64 if IS_LONG else 15) * MIB // 2 - 500)],
        "too_much_memory", FACT, 0,
    ),
    "facts-too-deep": Case(
        lambda n: [facts(n, 0, deep="@").replace(b'"@"', b"[" * 300 + b"]" * 300)], "too_deep", FACT, 0
    ),
    "facts-ahead": Case(
        lambda n: [facts(n, YEARS, a=1), facts(n, LATER, a=2)],
        asked="SELECT value::integer FROM facts WHERE certname = %(name)s", answer=2,
    ),
    "facts-behind": Case(lambda n: [facts(n, -50 * YEARS / 10, a=1), facts(n, 1, a=2)], asked=FACT, answer=1),
    "packages": Case(
        lambda n: [
            command("replace facts", 5, n, m, values={}, package_inventory=[[f"p{m}-{k}", "1", "apt"] for k in range(2000)])
            for m in range(5)
        ],
        asked="SELECT count(*) FROM package_inventory WHERE certname = %(name)s", answer=2000,
    ),
    "report-of-events": Case(
        lambda n: [run(n, 0, resources=[resource(f"/{k}", event(message=f"m{k}")) for k in range(10_000)])],
        asked=EVENTS, answer=10_000,
    ),
    "report-of-one-text": Case(
        lambda n: [run(n, 0, resources=[resource("/x", event(new_value="x" * LARGE))], logs=[log("y" * 1000)])],
        asked=EVENTS, answer=1,
    ),
    "report-of-old": Case(lambda n: [old_run(n, 10_000)], asked=EVENTS, answer=10_000),
    # The long form: all of its resources, although nothing happened to any of them.
    "report-in-full": Case(
        lambda n: [with_many(run(n, 0, resources="@"), b'"@"', (each := json.dumps(resource()).encode()), LARGE // len(each))],
        asked="SELECT count(*) FROM reports WHERE certname = %(name)s", answer=1,
    ),
    # As text 3 bytes each; as JSON for whoever reads the report 700.
    "report-of-nothing": Case(
        lambda n: [with_many(run(n, 0, resources=[resource("/x") | {"events": "@"}]), b'"@"', b"{}", 600_000)],
        "too_large", EVENTS, 0,
    ),
    "report-of-metrics": Case(
        lambda n: [with_many(run(n, 0, metrics="@"), b'"@"', b'{"category":"a","name":"b","value":1}', 10_000)],
        asked="SELECT count(*) FROM report_metrics WHERE certname = %(name)s", answer=10_000,
    ),
    "report-ahead": Case(
        lambda n: [run(n, YEARS, status="ahead"), run(n, LATER, status="right")],
        asked="SELECT status FROM latest_reports WHERE certname = %(name)s", answer="right",
    ),
    "report-behind": Case(
        lambda n: [run(n, -YEARS, status="behind"), run(n, 1, status="right")],
        asked="SELECT string_agg(status, ',') FROM reports WHERE certname = %(name)s", answer="right",
    ),
    "report-with-times": Case(
        lambda n: [run(n, 0, resources=[resource("/x", event(timestamp="0001-01-01T00:00:00Z")),
                                        resource("/y", event(timestamp="9999-12-31T00:00:00Z"))])],
        asked="SELECT max(timestamp) - min(timestamp) > interval '9000 years' FROM resource_events WHERE certname = %(name)s",
        answer=True,
    ),
    "inputs": Case(
        lambda n: [inputs(n, m, [["hiera", f"{m} {k}"] for k in range(20_000)]) for m in range(3)],
        asked="SELECT count(*) FROM catalog_inputs WHERE certname = %(name)s", answer=20_000,
    ),
    "inputs-ahead": Case(
        lambda n: [inputs(n, YEARS, [["a", "ahead"]]), inputs(n, LATER, [["a", "right"]])],
        asked="SELECT string_agg(name, ',') FROM catalog_inputs WHERE certname = %(name)s", answer="right",
    ),
    "gone-ahead": Case(
        lambda n: [facts(n, 0, a=1), command("deactivate node", 3, n, YEARS), facts(n, LATER, a=2)], asked=FACT, answer=1
    ),
    "kept-ahead": Case(
        lambda n: [command("configure expiration", 1, n, YEARS, expire={"facts": False}),
                   command("configure expiration", 1, n, LATER, expire={"facts": True})],
        asked="SELECT expires FROM node_expirations JOIN nodes ON id = node_id WHERE certname = %(name)s", answer=True,
    ),
}  # fmt: skip
NEIGHBOURS = 3


def neighbours(minute: int) -> list[bytes]:
    return [
        body
        for n in range(NEIGHBOURS)
        for body in (
            facts(f"good{n}", minute, a=minute, b=[1, 2]),
            run(f"good{n}", minute, status=f"s{minute}", logs=[log()]),
            inputs(f"good{n}", minute, [["hiera", f"k{minute}"]]),
        )
    ]


def test_hostile_runs(start: Start, broker: str, connection: Connection) -> None:
    """All of them, between the runs of three good nodes."""
    engine = start(
        *(word for name, value in FLAGS.items() for word in (f"--{name.replace('_', '-')}", value))
    )
    sent = 0
    with watched(engine) as watch:
        for minute, (name, case) in enumerate(CASES.items()):
            bodies = [*neighbours(minute), *case.bodies(name)]
            for body in bodies:
                assert len(body) < 64 * MIB
                publish(broker, body)
            sent += len(bodies)
            engine.wait_settled(sent)
    found = connection.execute("SELECT certname, reason FROM quarantine ORDER BY 1").fetchall()
    assert dict(found) == {name: case.reason for name, case in sorted(CASES.items()) if case.reason}  # type: ignore[arg-type]
    wrong = {}
    for name, case in CASES.items():
        (row,) = connection.execute(case.asked.encode(), {"name": name}).fetchall()
        if row != (case.answer,):
            wrong[name] = row
    assert wrong == {}
    last = len(CASES) - 1
    good = "certname LIKE 'good%'"
    assert connection.execute(
        f"SELECT value, count(*) FROM facts WHERE {good} AND name = 'a' GROUP BY 1"  # type: ignore[arg-type]
    ).fetchall() == [(last, NEIGHBOURS)]
    assert connection.execute(f"SELECT count(*) FROM reports WHERE {good}").fetchall() == [  # type: ignore[arg-type]
        (NEIGHBOURS * len(CASES),)
    ]
    assert connection.execute(f"SELECT DISTINCT name FROM catalog_inputs WHERE {good}").fetchall() == [
        (f"k{last}",)
    ]  # type: ignore[arg-type]
    # No clock made a day of its own, and whoever reads all nodes at once is not disturbed by one of them.
    days = connection.execute(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'node_reports'::regclass"
    ).fetchone()
    assert days is not None
    assert days[0] in (1, 2)
    for view in (
        "factsets",
        "inventory",
        "facts",
        "fact_paths",
        "resource_events",
        "report_logs",
        "report_metrics",
    ):
        assert connection.execute(f"SELECT count(v.*::text) > 0 FROM {view} v").fetchall() == [(True,)], view  # type: ignore[arg-type]
    assert watch.deaths() == []
    assert watch.over(load(FLAGS, {}).config) == {}
    assert engine.stop() == 0
