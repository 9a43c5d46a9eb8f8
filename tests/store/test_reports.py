"""Reports in the database: what was sent is there, once, on its day, and the newest of each node beside it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.core.delivery.work import Outcome
from ingest.engine.kinds import open_lane
from ingest.store.connection import Connection, connect
from ingest.store.content_table import FEW_ROWS
from ingest.store.housekeeping import HousekeepingSettings, expire_nodes, forget_nodes
from ingest.store.lane import LaneSettings
from ingest.store.queries import query
from ingest.store.report.housekeeping import end_old_reports
from lab.store_model import Pipeline, wire_body
from tests.core.test_report import event, log, report, resource

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
TTL = timedelta(days=14)
# Two runs of a small node, made by Puppet 7.23.
REAL = json.loads(gzip.decompress((Path(__file__).parent / "reports.json.gz").read_bytes()))


class Reports(Pipeline):
    """Like an engine that keeps reports for two weeks."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.lane = open_lane(connection, LaneSettings(1000, report_ttl=TTL))
        self.whole = 0  # asked for once more, with all contents

    def decode(self, body: bytes, *, complete: bool = False, **more: Any) -> Any:
        self.whole += complete
        return super().decode(body, complete=complete, **more)

    def send(self, *reports: dict[str, Any], at: datetime = NOW, version: int = 8) -> list[Outcome]:
        return self.take(*(body(one, version) for one in reports), received_at=at)


@pytest.fixture
def reports(connection: Connection) -> Reports:
    return Reports(connection)


def body(payload: dict[str, Any], version: int = 8) -> bytes:
    return json.dumps({"command": "store report", "version": version, "payload": payload}).encode()


def at(when: datetime, certname: str = "a.example", **more: Any) -> dict[str, Any]:
    """A report of a run that ended then."""
    return report(certname=certname, producer_timestamp=when.isoformat(), start_time=when.isoformat(),
                  end_time=when.isoformat(), **more)  # fmt: skip


def rows(connection: Connection, statement: str, *given: Any) -> list[tuple[Any, ...]]:
    return connection.execute(statement, given or None).fetchall()  # type: ignore[arg-type]


def days(connection: Connection) -> list[str]:
    found = rows(
        connection,
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'node_reports'::regclass ORDER BY 1",
    )
    return [name.removeprefix("node_reports_") for (name,) in found]


def sent_events(payload: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = []
    for one in payload["resources"]:
        about = (
            one["resource_type"],
            one["resource_title"],
            one["file"],
            one["line"],
            one["containment_path"],
        )
        if one["skipped"]:
            found.append(
                ("skipped", one["timestamp"], *about, None, None, None, None, None, one["corrective_change"])
            )
        for each in one["events"]:
            names = ("property", "name", "new_value", "old_value", "message", "corrective_change")
            found.append((each["status"], each["timestamp"], *about, *(each[name] for name in names)))
    return [(status, datetime.fromisoformat(when), *rest) for status, when, *rest in found]


@pytest.mark.parametrize("run", ["unchanged", "next"])
def test_what_puppet_sent_is_stored(connection: Connection, reports: Reports, run: str) -> None:
    """Every event, line and metric in its order, and what stands above them."""
    payload = REAL[run]["payload"]
    assert reports.send(payload) == [Outcome.STORED]
    names = ("puppet_version", "report_format", "configuration_version", "environment", "status", "noop", "noop_pending",
             "corrective_change", "code_id", "cached_catalog_status", "producer", "job_id")  # fmt: skip
    (stored,) = rows(connection, f"SELECT {', '.join(names)} FROM reports")
    assert stored == tuple(payload[name] for name in names)
    times = ("start_time", "end_time", "producer_timestamp")
    assert rows(connection, f"SELECT {', '.join(times)} FROM reports") == [
        tuple(datetime.fromisoformat(payload[name]) for name in times)
    ]
    found = rows(
        connection,
        "SELECT status, timestamp, resource_type, resource_title, file, line, containment_path, property, name,"
        " new_value, old_value, message, corrective_change FROM resource_events ORDER BY place",
    )
    assert found == sent_events(payload)
    assert rows(connection, "SELECT level, message, source, tags, file, line, time FROM report_logs ORDER BY place") == [
        (*(one[name] for name in ("level", "message", "source", "tags", "file", "line")),
         datetime.fromisoformat(one["time"]))
        for one in payload["logs"]
    ]  # fmt: skip
    assert rows(connection, "SELECT category, name, value FROM report_metrics ORDER BY place") == [
        (one["category"], one["name"], one["value"]) for one in payload["metrics"]
    ]
    # 1 and 1.0 are equal in Python: what was an integer is none with a point.
    texts = rows(connection, "SELECT value::text FROM report_metrics ORDER BY place")
    fractions = ["." in text for (text,) in texts]
    assert fractions == [
        isinstance(one["value"], float) and bool(one["value"] % 1) for one in payload["metrics"]
    ]


def test_zeros_take_no_room_and_read_as_zeros(connection: Connection, reports: Reports) -> None:
    """Integers and others, beside what the version before writes: zeros, and empty arrays where there are no events."""
    values = [0, 0.0, 1.5, 3, -0.0, 0]
    metrics = [{"category": "c", "name": str(place), "value": value} for place, value in enumerate(values)]
    reports.send(at(NOW, metrics=metrics, logs=[log()]))
    shown = (
        "SELECT (SELECT jsonb_agg(value ORDER BY place)::text FROM report_metrics),"
        " (SELECT count(*) FROM resource_events), (SELECT count(*) FROM report_logs)"
    )
    (found,) = rows(connection, shown)
    assert json.loads(found[0]) == values
    assert found[1:] == (0, 1)
    assert rows(connection, "SELECT metrics, event_ids FROM node_reports") == [
        ([None, None, 1.5, 3, -0.0, None], None)
    ]
    connection.execute(
        "UPDATE node_reports SET event_ids = '{}', event_offsets = '{}', metrics = ARRAY("
        "SELECT coalesce(value, 0) FROM unnest(metrics) WITH ORDINALITY AS m (value, place) ORDER BY place)"
    )
    assert rows(connection, shown) == [found]


def test_few_new_contents_are_stored_as_many_are(connection: Connection, reports: Reports) -> None:
    """Whether they go one by one or together: the same rows, NULLs and empty arrays too."""
    odd = [
        {"status": None, "name": None, "message": "", "new_value": ["é"], "old_value": None},
        {"message": None},
    ]

    def resources(shape: str) -> list[dict[str, Any]]:
        return [
            resource(
                f"/{place}",
                event(property=shape, **(odd[place % 2] if place < 4 else {})),
                containment_path=[],
            )
            for place in range(2 * FEW_ROWS)
        ]

    def logs(shape: str) -> list[dict[str, Any]]:
        return [log(f"{shape} {place}", line=place, tags=[]) for place in range(2 * FEW_ROWS)]

    def stored(shape: str) -> list[list[tuple[Any, ...]]]:
        return [
            rows(
                connection,
                "SELECT status, resource_type, resource_title, name, message, new_value, old_value, file, line,"
                " containment_path, containing_class, corrective_change FROM event_contents WHERE property = %s"
                " ORDER BY resource_title", shape,
            ),
            rows(
                connection,
                "SELECT level, source, tags, file, line, event_id FROM log_contents WHERE message LIKE %s ORDER BY line",
                f"{shape} %",
            ),
        ]  # fmt: skip

    reports.send(at(NOW, resources=resources("many"), logs=logs("many")))
    for place in range(2 * FEW_ROWS):
        reports.send(
            at(
                NOW + timedelta(minutes=1 + place),
                resources=resources("few")[place : place + 1],
                logs=logs("few")[place : place + 1],
            )
        )
    assert len(stored("few")[1]) == 2 * FEW_ROWS
    assert stored("few") == stored("many")


def test_the_next_run_shares_what_did_not_change(connection: Connection, reports: Reports) -> None:
    """A second report of the same state writes its row and the newest one's, and no content."""
    reports.send(REAL["unchanged"]["payload"])
    contents = "SELECT (SELECT count(*) FROM event_contents), (SELECT count(*) FROM log_contents)"
    before = rows(connection, contents)
    reports.send(REAL["next"]["payload"])
    after = rows(connection, contents)
    assert before[0][0] > 40
    assert after[0][0] - before[0][0] <= before[0][0] // 20
    assert rows(connection, "SELECT count(*) FROM reports") == [(2,)]


def test_contents_that_another_writer_was_given_are_asked_for(
    connection: Connection, reports: Reports
) -> None:
    """A writer before this one was killed with them; or they were deleted since. Nothing is stored that is not whole, and what
    came is stored when it comes again with all."""
    told = {"resources": [resource("/x", event())], "logs": [log("created"), log("said")]}
    metrics = [{"category": "time", "name": "total", "value": 1.5}]
    lost = reports.decode(body(at(NOW, metrics=metrics, **told)))
    assert lost.event_contents
    assert lost.log_contents
    later = [NOW + timedelta(minutes=minute) for minute in (30, 60)]
    assert reports.send(at(later[0], metrics=metrics, **told)) == [Outcome.STORED]
    assert reports.whole == 1
    assert reports.send(at(later[1], metrics=metrics, **told)) == [Outcome.STORED]
    assert reports.whole == 1
    assert len(rows(connection, "SELECT FROM resource_events")) == 2
    assert (
        rows(connection, "SELECT message FROM report_logs ORDER BY 1") == [("created",)] * 2 + [("said",)] * 2
    )
    assert rows(connection, "SELECT value FROM report_metrics") == [(1.5,)] * 2


def test_the_same_report_is_one(connection: Connection, reports: Reports) -> None:
    """Twice in a batch, again later, and by another engine."""
    one = at(NOW)
    assert reports.send(one, one) == [Outcome.STORED, Outcome.UNCHANGED]
    assert reports.send(one) == [Outcome.UNCHANGED]
    assert Reports(connection).send(one) == [Outcome.UNCHANGED]
    assert rows(connection, "SELECT count(*) FROM reports") == [(1,)]


def test_the_newest_report_is_beside_its_node(connection: Connection, reports: Reports) -> None:
    """Whatever the order of arrival; counts of its events by status."""
    old = at(NOW - timedelta(hours=1), status="changed", resources=[resource("/x", event())])
    new = at(
        NOW,
        status="failed",
        resources=[resource("/x", event(status="failure")), resource("/y", skipped=True)],
    )
    for order in ([old, new], [new, old]):
        connection.execute("DELETE FROM nodes")
        connection.execute("TRUNCATE node_reports")
        for one in order:
            assert reports.send(one) == [Outcome.STORED]
        assert rows(
            connection,
            "SELECT status, producer_timestamp, successes, failures, noops, skips FROM latest_reports",
        ) == [("failed", NOW, 0, 1, 0, 1)]
        assert rows(connection, "SELECT count(*) FROM reports") == [(2,)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_order_repetition_and_loss_end_alike(connection: Connection, data: st.DataObject) -> None:
    """Reports of some nodes, delivered in any order, some again, in any batches and with a rollback between."""
    connection.execute("DELETE FROM nodes")
    connection.execute("TRUNCATE node_reports")
    made = [
        at(NOW + timedelta(minutes=minute), f"n{node}", status=f"s{minute}")
        for node in range(3)
        for minute in range(3)
    ]
    order = data.draw(st.permutations(made + made[:4]))
    first, second = Reports(connection), Reports(connection)
    place = 0
    while place < len(order):
        size = data.draw(st.integers(1, 5))
        data.draw(st.sampled_from([first, second])).send(*order[place : place + size])
        place += size
    assert rows(connection, "SELECT certname, count(*) FROM reports GROUP BY 1 ORDER BY 1") == [
        (f"n{node}", 3) for node in range(3)
    ]
    assert rows(connection, "SELECT certname, status FROM latest_reports ORDER BY 1") == [
        (f"n{node}", "s2") for node in range(3)
    ]


def test_what_is_older_than_reports_are_kept_makes_no_day(connection: Connection, reports: Reports) -> None:
    """Nor does a clock that is wrong by years; a report from the future lies on the day on which it came."""
    assert (
        reports.send(at(NOW - TTL - timedelta(seconds=1)), at(NOW - timedelta(days=3650)))
        == [Outcome.STALE] * 2
    )
    assert days(connection) == []
    work = reports.decode(body(at(NOW + timedelta(days=3650))), complete=True, received_at=NOW)
    (settled,) = reports.lane.apply([work.placed(NOW)])  # as the engine does with what it does not believe
    assert settled.outcome is Outcome.STORED
    assert days(connection) == ["20261123"]
    ((said, hash_),) = rows(connection, "SELECT producer_timestamp, hash FROM reports")
    assert said == NOW + timedelta(days=3650)
    # Once more, an hour later: the same report.
    again = reports.decode(body(at(NOW + timedelta(days=3650))), received_at=NOW).placed(
        NOW + timedelta(days=1)
    )
    assert [one.outcome for one in reports.lane.apply([again])] == [Outcome.UNCHANGED]
    assert rows(connection, "SELECT hash FROM reports") == [(hash_,)]


def test_a_day_begins_and_ends_in_utc(connection: Connection, reports: Reports) -> None:
    """Whatever the time zone of the session and of the sender."""
    connection.execute("SET timezone TO 'Asia/Tokyo'")
    midnight = datetime(2026, 11, 23, tzinfo=UTC)
    last = midnight - timedelta(microseconds=1)
    reports.send(at(midnight), at(last), at(midnight + timedelta(hours=14)))
    assert days(connection) == ["20261122", "20261123"]
    assert rows(connection, "SELECT count(*) FROM node_reports_20261123") == [(2,)]


def test_values_of_any_length_are_stored(connection: Connection, reports: Reports) -> None:
    """No index has them; PuppetDB refuses the whole report above 2704 bytes."""
    large = "x" * 3_000_000
    one = at(
        NOW,
        resources=[resource(large, event(new_value=large, message=large, property=large))],
        logs=[log(large)],
    )
    assert reports.send(one) == [Outcome.STORED]
    lengths = (
        "SELECT length(resource_title), length(new_value #>> '{}'), length(message) FROM resource_events"
    )
    assert rows(connection, lengths) == [(3_000_000,) * 3]
    assert rows(connection, "SELECT length(message) FROM report_logs") == [(3_000_000,)]


def test_ten_thousand_events_are_stored(connection: Connection, reports: Reports) -> None:
    """In their order."""
    resources = [resource(f"/{n}", event(message=f"m{n}")) for n in range(10_000)]
    assert reports.send(at(NOW, resources=resources)) == [Outcome.STORED]
    found = rows(connection, "SELECT resource_title FROM resource_events ORDER BY place")
    assert found == [(f"/{n}",) for n in range(10_000)]


# Days


def old_settings(ttl: timedelta) -> HousekeepingSettings:
    return HousekeepingSettings(report_ttl=ttl)


def recent(**since: float) -> datetime:
    return datetime.now(UTC) - timedelta(**since)


def test_days_that_are_over_are_dropped(connection: Connection, reports: Reports) -> None:
    """With all that is in them; the others stay, and so does the newest report of each node."""
    for back in (0, 1, 2, 3, 4):
        reports.send(at(recent(days=back), f"n{back}"), at=recent())
    assert len(days(connection)) == 5
    done = end_old_reports(connection, old_settings(timedelta(days=2)), pause=lambda _: None)
    assert done["report_days_dropped"] == 2
    assert done["report_days_postponed"] == 0
    assert len(days(connection)) == 3
    assert rows(connection, "SELECT certname FROM reports ORDER BY 1") == [("n0",), ("n1",), ("n2",)]
    assert rows(connection, "SELECT count(*) FROM latest_reports") == [(5,)]
    assert end_old_reports(connection, old_settings(timedelta(days=2)))["report_days_dropped"] == 0


def test_a_reader_of_other_days_is_not_disturbed(
    connection: Connection, reports: Reports, database: str
) -> None:
    """It reads on, the old day's space is given back at once, and the empty day goes when nobody reads."""
    for back in (0, 5):
        reports.send(at(recent(days=back), f"n{back}"), at=recent())
    with connect(database) as reader:
        reader.execute("BEGIN")
        newest = days(connection)[-1]
        reader.execute(f"SELECT * FROM node_reports_{newest}")  # type: ignore[arg-type]
        reader.execute("LOCK TABLE ONLY node_reports IN ACCESS SHARE MODE")
        waits: list[float] = []
        done = end_old_reports(connection, old_settings(timedelta(days=2)), pause=waits.append)
        assert (done["report_days_dropped"], done["report_days_postponed"]) == (0, 1)
        assert waits
        assert len(days(connection)) == 2
        oldest = days(connection)[0]
        assert rows(connection, f"SELECT pg_relation_size('node_reports_{oldest}')") == [(0,)]
        assert reader.execute("SELECT count(*) FROM node_reports").fetchall() == [(1,)]
        assert reports.send(at(recent(), "meanwhile"), at=recent()) == [Outcome.STORED]
        reader.execute("COMMIT")
    assert end_old_reports(connection, old_settings(timedelta(days=2)))["report_days_dropped"] == 1
    assert len(days(connection)) == 1


def test_a_reader_of_the_old_day_delays_it_and_is_not_cancelled(
    connection: Connection, reports: Reports, database: str
) -> None:
    """It sees its rows to its end."""
    reports.send(at(recent(days=5), "old"), at=recent())
    (oldest,) = days(connection)
    with connect(database) as reader:
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM node_reports_{oldest}")  # type: ignore[arg-type]
        done = end_old_reports(connection, old_settings(timedelta(days=2)), pause=lambda _: None)
        assert done["report_days_postponed"] == 1
        assert reader.execute("SELECT count(*) FROM node_reports").fetchall() == [(1,)]
        reader.execute("COMMIT")
    assert end_old_reports(connection, old_settings(timedelta(days=2)))["report_days_dropped"] == 1


def test_two_engines_make_the_same_day_at_once(connection: Connection, database: str) -> None:
    """Both store, and nobody waits for ever."""
    errors: list[BaseException] = []

    def store(name: str) -> None:
        try:
            with connect(database) as own:
                lane = Reports(own)
                for back in range(6):
                    lane.send(at(NOW - timedelta(days=back), f"{name}-{back}"))
        except BaseException as error:  # told below
            errors.append(error)

    threads = [threading.Thread(target=store, args=(f"n{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(days(connection)) == 6
    assert rows(connection, "SELECT count(*) FROM reports") == [(24,)]


def test_content_goes_when_all_reports_that_may_use_it_are_gone(
    connection: Connection, reports: Reports
) -> None:
    """And what was used today stays; a writer that remembers an id is told."""
    reports.send(at(recent(), resources=[resource("/x", event())], logs=[log()]), at=recent())
    assert end_old_reports(connection, old_settings(TTL)).get("event_contents", 0) == 0
    for table in ("metric_shapes", "report_headers", "event_contents", "log_contents"):
        connection.execute(f"UPDATE {table} SET last_used = current_date - 17")  # type: ignore[arg-type]
    other = Reports(connection)
    done = end_old_reports(connection, old_settings(TTL), pause=lambda _: None)
    assert (done["event_contents"], done["log_contents"], done["report_headers"]) == (1, 1, 1)
    for lane in (reports, other):
        again = at(recent(), f"n{id(lane)}", resources=[resource("/x", event())], logs=[log()])
        assert lane.send(again, at=recent()) == [Outcome.STORED]
    assert rows(connection, "SELECT count(*) FROM resource_events WHERE certname LIKE 'n%'") == [(2,)]


def test_content_that_is_used_says_so_once_a_day(connection: Connection, reports: Reports) -> None:
    """Also by a writer that has known it since yesterday."""
    first, later = recent(days=1), recent()
    reports.send(at(first, "a", logs=[log()]), at=first)
    connection.execute("UPDATE log_contents SET last_used = current_date - 10")
    reports.send(at(first, "b", logs=[log()]), at=first)
    assert rows(connection, "SELECT current_date - last_used FROM log_contents") == [
        (10,)
    ]  # it was said that day
    reports.send(at(later, "c", logs=[log()]), at=later)
    assert rows(connection, "SELECT current_date - last_used FROM log_contents") == [(0,)]


# Nodes


def test_a_report_keeps_its_node_alive(connection: Connection, reports: Reports) -> None:
    """A node that only reports does not expire, is not forgotten; silent for as long as node_ttl it does."""
    reports.take(wire_body("a.example", 1, []), received_at=recent(days=10))
    reports.send(at(recent(), "a.example"), at(recent(), "b.example"), at=recent())
    assert expire_nodes(connection, timedelta(days=7)) == []
    assert forget_nodes(connection, timedelta(days=14)) == 0
    connection.execute("UPDATE node_latest_reports SET received_at = now() - interval '8 days'")
    assert expire_nodes(connection, timedelta(days=7)) == ["a.example", "b.example"]


def test_a_newer_report_brings_a_node_back(connection: Connection, reports: Reports) -> None:
    """From an expiry and from an older deactivation, as PuppetDB does; an older one does not."""
    when = recent()

    def deactivate(at_: datetime) -> bytes:
        return json.dumps(
            {"command": "deactivate node", "version": 3,
             "payload": {"certname": "a.example", "producer_timestamp": at_.isoformat()}}
        ).encode()  # fmt: skip

    state = "SELECT deactivated IS NOT NULL, expired IS NOT NULL FROM nodes WHERE certname = 'a.example'"
    reports.send(at(when, "a.example"), at=when)
    assert reports.take(deactivate(when - timedelta(minutes=1)), received_at=when) == [Outcome.STALE]
    assert reports.take(deactivate(when + timedelta(minutes=1)), received_at=when) == [Outcome.STORED]
    reports.send(at(when + timedelta(seconds=30), "a.example"), at=when)
    assert rows(connection, state) == [(True, False)]
    reports.send(at(when + timedelta(minutes=2), "a.example"), at=when)
    assert rows(connection, state) == [(False, False)]
    connection.execute("UPDATE nodes SET expired = now()")
    reports.send(at(when + timedelta(minutes=3), "a.example"), at=when)
    assert rows(connection, state) == [(False, False)]


def test_a_node_that_is_purged_takes_its_newest_report_along(
    connection: Connection, reports: Reports
) -> None:
    """By the engine of the version before too, which knows nothing of reports."""
    reports.send(at(NOW))
    connection.execute("DELETE FROM nodes")
    assert rows(connection, "SELECT count(*) FROM latest_reports") == [(0,)]
    assert rows(connection, "SELECT count(*) FROM reports") == [(0,)]


def test_the_state_of_the_fleet_reads_no_event(connection: Connection, reports: Reports) -> None:
    """Its plan has one narrow table, and the nodes."""
    reports.send(at(NOW))
    plan = "\n".join(
        line for (line,) in rows(connection, "EXPLAIN SELECT certname, status, failures FROM latest_reports")
    )
    assert "node_latest_reports" in plan
    assert "node_reports_" not in plan
    assert "event_contents" not in plan


@pytest.fixture
def engine_role(connection: Connection, database: str) -> Iterator[str]:
    """A role that may run the engine and owns nothing."""
    from ingest.store.migrate import grant

    connection.execute("DROP ROLE IF EXISTS report_engine")
    connection.execute("CREATE ROLE report_engine LOGIN")
    grant(connection, "report_engine", None)
    yield database.replace("user=postgres", "user=report_engine")
    connection.execute("DROP OWNED BY report_engine")
    connection.execute("DROP ROLE report_engine")


def test_an_engine_that_owns_nothing_makes_and_drops_days(connection: Connection, engine_role: str) -> None:
    """By functions that do that and nothing else; the day is its owner's."""
    with connect(engine_role) as own:
        lane = Reports(own)
        assert lane.send(at(recent(days=5), "old"), at(recent(), "new"), at=recent()) == [Outcome.STORED] * 2
        assert end_old_reports(own, old_settings(timedelta(days=2)))["report_days_dropped"] == 1
        assert len(days(connection)) == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            own.execute("DROP TABLE node_reports")


def test_a_plan_is_not_the_state_of_its_node(connection: Connection, reports: Reports) -> None:
    """The newest report of a node is that of its agent, as PuppetDB has it."""
    reports.send(at(NOW, status="changed"), at(NOW + timedelta(minutes=1), type="plan", status="failed"))
    assert rows(connection, "SELECT status FROM latest_reports") == [("changed",)]
    reports.send(at(NOW, "b.example", type="plan"))
    assert rows(connection, "SELECT certname FROM latest_reports") == [("a.example",)]
    assert rows(connection, "SELECT certname, type FROM reports ORDER BY 1, 2") == [
        ("a.example", "agent"), ("a.example", "plan"), ("b.example", "plan"),
    ]  # fmt: skip


# Commands


def ingest(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", *arguments, "--database", database],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_report_is_found_by_indexes(connection: Connection, reports: Reports) -> None:
    """However many there are: its hash, and then its node, not what the views make of them."""
    when = recent(minutes=5)
    reports.send(*(at(when, f"n{n}", resources=[resource("/x", event())]) for n in range(300)), at=recent())
    connection.execute("ANALYZE")
    connection.execute("SET enable_seqscan TO off")
    (hash_,) = rows(connection, "SELECT hash FROM reports WHERE certname = 'n7'")[0]
    statement = "EXPLAIN " + query("read_report").as_string(connection)
    explained = connection.execute(statement.encode(), {"hash": hash_}).fetchall()
    plan = "\n".join(str(line) for (line,) in explained)
    assert "Seq Scan on node_reports" not in plan
    assert plan.count("hash_idx") >= 1


def test_the_old_hosts_say_when_they_reported(connection: Connection, reports: Reports) -> None:
    """As storeconfigs had it: when the run began."""
    reports.send(at(NOW))
    assert rows(connection, "SELECT name, last_report FROM storeconfigs.hosts") == [("a.example", NOW)]


def test_commands_show_reports(connection: Connection, reports: Reports, database: str) -> None:
    """All of a node, one of them whole, and those of a status."""
    recently = recent(minutes=5)
    one = at(recently, status="failed", resources=[resource("/x", event())], logs=[log("created")])
    reports.send(one, at(recent(hours=3), "b.example", status="changed"), at=recent())
    listed = ingest(database, "show", "a.example", "--reports")
    (line,) = map(json.loads, listed.stdout.splitlines())
    assert (line["status"], line["certname"]) == ("failed", "a.example")
    whole = json.loads(ingest(database, "show", "a.example", "--report", line["hash"].upper()).stdout)
    assert [each["message"] for each in whole["resource_events"]] == ["created"]
    assert [each["message"] for each in whole["logs"]] == ["created"]
    assert whole["metrics"] == []
    failed = ingest(database, "query", "reports", "--status", "failed", "--since", "2h").stdout.splitlines()
    assert [json.loads(each)["certname"] for each in failed] == ["a.example"]
    assert ingest(database, "query", "reports", "--status", "changed", "--since", "2h").stdout == ""
    for arguments, code, said in (
        (("show", "b.example", "--report", line["hash"]), 5, "is not one of b.example"),
        (("show", "a.example", "--report", "nope"), 5, "no report nope is stored"),
        (("show", "a.example", "--report", line["hash"][:8]), 5, "has 40 letters"),
        (("show", "nobody.example", "--reports"), 5, "nothing of nobody.example is stored"),
        (("show", "a.example", "--reports", "--facts"), 2, "one of them at a time"),
        (("query", "reports", "--since", "soon"), 2, "--since"),
    ):
        refused = ingest(database, *arguments)
        assert (refused.returncode, said in refused.stderr, refused.stderr.count("\n")) == (code, True, 1)
