"""Days of reports: which there are whatever clocks say, what goes with them and before them, and who has to wait for that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from ingest.core.delivery.work import Outcome
from ingest.engine.kinds import open_lane
from ingest.errors import Rejected
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import HousekeepingSettings
from ingest.store.lane import LaneSettings
from ingest.store.report.housekeeping import end_old_reports
from lab.servers import Postgres
from tests.core.test_report import event, log, resource
from tests.store.test_reports import TTL, Reports, at, body, days, recent, rows

DAY = timedelta(days=1)
EVENTS_TTL = 3 * DAY
WAIT_MS_MAX = 100  # of a writer, while a day is dropped
ROUNDS = 3  # on a machine that is busy with other tests a process waits for its turn, too


def reports_with(
    connection: Connection, *, report_ttl: timedelta | None = TTL, events_ttl: timedelta = EVENTS_TTL
) -> Reports:
    pipeline = Reports(connection)
    pipeline.lane = open_lane(
        connection, LaneSettings(1000, report_ttl=report_ttl, resource_events_ttl=events_ttl)
    )
    return pipeline


def with_event(when: datetime, certname: str) -> dict[str, object]:
    """And a line that repeats the event's message, and one that does not."""
    return at(when, certname, resources=[resource("/x", event())], logs=[log("created"), log()])


def counted(connection: Connection, view: str) -> dict[str, int]:
    found = rows(connection, f"SELECT certname, count(*) FROM {view} GROUP BY 1 ORDER BY 1")
    return {str(certname): int(count) for certname, count in found}


# Events that go before their reports


def test_events_older_than_their_time_are_gone(connection: Connection) -> None:
    """The reports stay, with logs, also those that repeat an event, and so do the counts of the newest report."""
    reports = reports_with(connection, events_ttl=TTL)
    for back in (0, 2, 4, 6):
        assert reports.send(with_event(recent(days=back), f"n{back}"), at=recent()) == [Outcome.STORED]
    settings = HousekeepingSettings(report_ttl=TTL, resource_events_ttl=EVENTS_TTL)
    done = end_old_reports(connection, settings, pause=lambda _: None)
    assert done["reports_without_events"] == 2
    assert counted(connection, "resource_events") == {"n0": 1, "n2": 1}
    assert counted(connection, "reports") == {"n0": 1, "n2": 1, "n4": 1, "n6": 1}
    assert rows(connection, "SELECT message, count(*) FROM report_logs GROUP BY 1 ORDER BY 1") == [
        ("Applied catalog in 1.00 seconds", 4),
        ("created", 4),
    ]
    assert rows(connection, "SELECT DISTINCT successes FROM latest_reports") == [(1,)]
    assert end_old_reports(connection, settings, pause=lambda _: None)["reports_without_events"] == 0


@pytest.mark.parametrize(
    ("report_ttl", "events_ttl"), [(TTL, TTL), (TTL, 20 * DAY), (None, 20 * DAY)], ids=str
)
def test_events_stay_as_long_as_their_reports_unless_told(
    connection: Connection, report_ttl: timedelta | None, events_ttl: timedelta
) -> None:
    """A longer time means nothing, and costs nothing."""
    reports_with(connection, report_ttl=report_ttl, events_ttl=events_ttl).send(
        with_event(recent(days=13), "a"), at=recent()
    )
    settings = HousekeepingSettings(report_ttl=report_ttl, resource_events_ttl=events_ttl)
    assert end_old_reports(connection, settings, pause=lambda _: None).get("reports_without_events", 0) == 0
    assert counted(connection, "resource_events") == {"a": 1}


def test_a_report_that_comes_late_brings_no_old_events(connection: Connection) -> None:
    """Nor one whose clock is wrong: it is stored, and what repeats an event's message has it."""
    reports = reports_with(connection)
    sent = [with_event(recent(days=back), f"n{back}") for back in (0, 5)]
    assert reports.send(*sent, at=recent()) == [Outcome.STORED] * 2
    assert counted(connection, "resource_events") == {"n0": 1}
    assert counted(connection, "report_logs") == {"n0": 2, "n5": 2}


def test_no_time_for_events_means_none_is_stored(connection: Connection) -> None:
    """As PuppetDB has resource-events-ttl = 0; also where the clock is ahead."""
    reports = reports_with(connection, events_ttl=timedelta(0))
    sent = [with_event(recent(hours=back), f"n{back}") for back in (-5, 0, 5)]
    assert reports.send(*sent, at=recent()) == [Outcome.STORED] * 3
    assert counted(connection, "resource_events") == {}
    assert len(counted(connection, "reports")) == 3


def test_events_are_taken_out_in_steps(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each a transaction of its own, the oldest day first; readers and writers meanwhile see whole reports."""
    monkeypatch.setattr("ingest.store.report.housekeeping.STEP_REPORTS", 2)
    reports = reports_with(connection, events_ttl=TTL)
    for back in (5, 6):
        reports.send(*(with_event(recent(days=back), f"n{back}{n}") for n in range(3)), at=recent())
    left: list[list[str]] = []
    settings = HousekeepingSettings(report_ttl=TTL, resource_events_ttl=EVENTS_TTL)
    end_old_reports(
        connection, settings, pause=lambda _: left.append(sorted(counted(connection, "resource_events")))
    )
    assert [len(names) for names in left] == [4, 3, 1, 0]
    assert all(name.startswith("n5") for name in left[1])


# Clocks that are wrong


@pytest.mark.parametrize("report_ttl", [TTL, None], ids=["two weeks", "for ever"])
@pytest.mark.parametrize("years", [-2020, -56, -13, 1, 10, 1000])
def test_a_wrong_clock_makes_no_day_of_its_own(
    connection: Connection, years: int, report_ttl: timedelta | None
) -> None:
    """Whatever future_tolerance_s and report_ttl_s allow: it lies on the day on which it came, under the time that it said, or
    is stale."""
    reports = reports_with(connection, report_ttl=report_ttl)
    when = datetime(2026, 11, 23, 12, tzinfo=UTC)
    said = datetime(2026 + years, 11, 23, tzinfo=UTC)
    (outcome,) = [one.outcome for one in reports.lane.apply([raw(reports, at(said), when)])]
    if years < 0 and report_ttl is not None:
        assert outcome is Outcome.STALE
        assert days(connection) == []
        return
    assert outcome is Outcome.STORED
    assert days(connection) == ["20261123"]
    assert rows(connection, "SELECT producer_timestamp::text FROM reports") == [
        (said.strftime("%Y-%m-%d %H:%M:%S+00").zfill(22),)
    ]
    again = [one.outcome for one in reports.lane.apply([raw(reports, at(said), when + DAY)])]
    assert again == [Outcome.UNCHANGED]
    # And its right time counts again, once its clock is right.
    assert reports.send(at(when + DAY, status="failed"), at=when + DAY) == [Outcome.STORED]
    assert rows(connection, "SELECT status FROM latest_reports") == [("failed",)]


def raw(reports: Reports, payload: dict[str, object], when: datetime) -> object:
    """As a decoder hands it on that believes any time."""
    from ingest.core.delivery.work import Descriptor

    bytes_ = body(payload)
    (work,) = reports.decoding.decode(
        Descriptor(1, 1, 0, len(bytes_), len(bytes_), when, {}), memoryview(bytes_), {}
    )
    return work


# Who waits while a day is dropped


@contextmanager
def busy(connect_one: Callable[[], Connection], told: list[BaseException]) -> Iterator[threading.Semaphore]:
    """Two writers that store reports of today without a pause, each in transactions of its own; each that is stored is one
    more of what it gives."""
    ended, progress = threading.Event(), threading.Semaphore(0)
    stored = [0, 0]

    def write(place: int) -> None:
        try:
            with connect_one() as own:
                lane = Reports(own)
                while not ended.is_set():
                    sent = at(recent(seconds=-stored[place]), f"w{place}", logs=[log()])
                    assert lane.send(sent, at=recent()) == [Outcome.STORED]
                    stored[place] += 1
                    progress.release()
        except BaseException as error:  # told below
            told.append(error)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield progress
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)


def test_a_day_that_somebody_dropped_is_made_again(connection: Connection) -> None:
    """By hand, or by an engine that keeps reports for less: a writer that knows the day is refused once, and not from then on."""
    reports = reports_with(connection)
    assert reports.send(at(recent(), "a"), at=recent()) == [Outcome.STORED]
    connection.execute("SELECT drop_report_day((now() + interval '3 days')::date)")
    with pytest.raises(Rejected, match="no partition"):
        reports.send(at(recent(), "b"), at=recent())
    assert reports.send(at(recent(), "b"), at=recent()) == [
        Outcome.STORED
    ]  # as a writer does before it refuses one
    assert counted(connection, "reports") == {"b": 1}


def test_dropping_a_day_holds_up_no_writer_and_cancels_no_reader(
    connection: Connection, database: str, postgres: Postgres
) -> None:
    """Of two old days one is read, and one reader reads today's while it lasts. PostgreSQL itself tells who waited for a
    lock for longer than WAIT_MS_MAX."""
    writers: list[int] = []
    errors: list[BaseException] = []

    def writer() -> Connection:
        own = connect(database)
        own.execute(f"SET deadlock_timeout TO '{WAIT_MS_MAX}ms'")
        own.execute("SET log_lock_waits TO on")
        writers.append(own.info.backend_pid)
        return own

    seeded = Reports(connection)
    for back in (0, 5, 6):
        seeded.send(at(recent(days=back), f"n{back}"), at=recent())
    newest = days(connection)[-1]
    settings = HousekeepingSettings(report_ttl=2 * DAY)
    with connect(database) as reader, busy(writer, errors) as progress:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute(f"SELECT count(*) FROM node_reports_{newest}")  # type: ignore[arg-type]
        since = recent(hours=1).isoformat()  # a constant: the planner looks at no other day
        reader.execute(
            f"DECLARE slow CURSOR FOR SELECT * FROM node_reports WHERE producer_timestamp > '{since}'"
        )  # type: ignore[arg-type]
        waited = [True]
        for _ in range(ROUNDS):
            began = len(postgres.log())
            done = end_old_reports(connection, settings, pause=lambda _: reader.execute("FETCH 1 FROM slow"))  # type: ignore[arg-type]
            while progress.acquire(blocking=False):
                pass
            assert all(progress.acquire(timeout=60) for _ in range(5))  # the writers go on
            waited = [f"process {pid} still waiting" in postgres.log()[began:] for pid in writers]
            if not any(waited):
                break
        assert not any(waited)
        assert (done["report_days_dropped"], done["report_days_postponed"]) == (0, 1)
        assert counted(connection, "reports").keys() == {"n0", "w0", "w1"}
        assert reader.execute(f"SELECT count(*) FROM node_reports_{newest}").fetchone() != (0,)  # type: ignore[arg-type]
        reader.execute("COMMIT")
        # Once nobody reads they are taken out, between the transactions of writers that go on.
        for _ in range(20):
            if end_old_reports(connection, settings, pause=lambda _: None)["report_days_postponed"] == 0:
                break
    assert errors == []
    assert len(days(connection)) == 1 or days(connection)[0] >= newest
