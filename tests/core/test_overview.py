"""What is said to be wrong, and in how many lines everything is told."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.core.overview import Sample, overview
from ingest.core.overview_lines import lines
from ingest.core.planned import Planned

FLEET = {
    "nodes": 100, "deactivated": 1, "expired": 2, "overdue": 0, "unlearnt": 0, "no_catalog": 0, "usual_s": 1800,
    "statuses": {"changed": 10, "unchanged": 90}, "pace_per_s": 0.05, "overdue_nodes": [], "database_bytes": 10**9,
}  # fmt: skip
QUARANTINE = [{"reason": "unreadable", "rows": 1, "messages": 3, "last_seen": None, "certname": "a"}]


def sample(
    at_s: float = 0.0, *, reasons: tuple[str, ...] = (), healthy: bool = True, **numbers: float
) -> Sample:
    receiver = {
        "ingest_received_total": 0.0,
        "ingest_window_messages_limit": 1000.0,
        "ingest_window_bytes_limit": 1e9,
    }
    given = {f"ingest_{name}": value for name, value in numbers.items() if name != "database_up"}
    writer = {"ingest_database_up": numbers.get("database_up", 1.0)}
    health = {"healthy": healthy, "ready": not reasons, "reasons": list(reasons)}
    processes = {"receiver": receiver | given, "decoder-0": {}, "writer-0": writer, "supervisor": {}}
    return Sample(at_s, {"health": health, "processes": processes})


@pytest.mark.parametrize(
    ("now", "fleet", "quarantine", "what", "do"),
    [
        (sample(), FLEET, [], None, ""),
        (sample(), FLEET, QUARANTINE, "unreadable", "ingest quarantine"),
        (sample(), FLEET | {"statuses": {"failed": 1}}, QUARANTINE, "1 node failed", "--failed"),
        (sample(), FLEET | {"overdue": 1}, QUARANTINE, "1 node overdue", "--overdue"),
        (sample(), FLEET | {"overdue": 50}, [], "50 of 100", "broker"),
        (sample(oldest_unsettled_seconds=90.0), FLEET | {"overdue": 50}, [], "90 s", "pg_stat_activity"),
        (
            sample(batch_lag_seconds=900.0, window_messages=1000.0, waiting=5.0),
            FLEET,
            [],
            "15 min",
            "--workers",
        ),
        (sample(batch_lag_seconds=900.0, window_messages=1000.0), FLEET, [], "15 min", "--writers"),
        (sample(reasons=("no connection to the broker",)), FLEET, QUARANTINE, "broker", "broker"),
        (sample(reasons=("x", "y"), database_up=0.0), FLEET, [], "x; y", "PostgreSQL"),
        (sample(reasons=("writer-0 is not running",), healthy=False), None, [], "writer-0", "log"),
        (None, FLEET, [], "no engine", "ingest run"),
    ],
)
def test_the_worst_thing_is_named_with_its_remedy(
    now: Sample | None, fleet: Any, quarantine: Any, what: str | None, do: str
) -> None:
    """One of them, the one that explains the others; and always within twelve lines."""
    found = overview(now, None, fleet, quarantine)
    if what is None:
        assert found["trouble"] is None
    else:
        assert what in found["trouble"]["what"]
        assert do in found["trouble"]["do"]
    told = lines(found, "http://127.0.0.1:9464")
    assert len(told) <= 12
    assert all("\n" not in text and text for _, text in told)


def test_rates_are_between_two_samples() -> None:
    """Per second of the time between them; none from one sample, and never below zero when an engine began anew."""
    first, second = sample(10.0, received_total=100.0), sample(12.0, received_total=150.0)
    assert overview(second, first)["engine"]["received_per_s"] == 25
    assert overview(second)["engine"]["received_per_s"] is None
    assert overview(sample(14.0, received_total=1.0), second)["engine"]["received_per_s"] == 0


def test_each_kind_waits_for_itself() -> None:
    """How many of each kind are unsettled, since when, how late the last ones were, and how many are settled a second."""
    reports = {
        "kind_unsettled_report": 12.0, "kind_oldest_seconds_report": 3.0, "kind_lag_seconds_report": 40.0,
        "settle_seconds_report_count": 10.0,
    }  # fmt: skip
    found = overview(sample(2.0, **reports), sample(0.0))["engine"]["kinds"]
    assert list(found) == ["catalogs", "facts", "reports"]
    assert found["reports"] == {"unsettled": 12, "oldest_s": 3, "lag_s": 40, "settled_per_s": 5}
    assert found["catalogs"] == {"unsettled": 0, "oldest_s": 0, "lag_s": None, "settled_per_s": 0}
    told = dict(lines(overview(sample(2.0, **reports)), "here"))
    assert told["queues"] == "0 catalogs; 0 facts; 12 reports wait 3.0 s, lag 40 s; window 0 % full"


def test_a_lag_is_the_largest_of_the_writers() -> None:
    """Not their sum."""
    one = sample(kind_lag_seconds_catalog=4.0, settle_seconds_catalog_count=1.0, batch_lag_seconds=4.0)
    one.status["processes"]["writer-1"] = dict(one.status["processes"]["receiver"])
    found = overview(one)["engine"]
    assert (found["lag_newest_s"], found["kinds"]["catalogs"]["lag_s"]) == (4, 4)


@pytest.mark.parametrize(("cores", "decoders"), [(1, 1.0), (2, 1.0), (4, 0.5), (64, 0.25)])
def test_decoders_are_busy_by_those_that_have_a_core(cores: int, decoders: float) -> None:
    """Of six of them, one less than there are cores gets messages; writers work while they have a transaction."""
    names = [f"decoder-{place}" for place in range(6)]
    first, second = sample(0.0), sample(10.0, batch_seconds_sum=5.0)
    for each, cpu_s in ((first, 0.0), (second, 15.0 / 6)):
        each.status["processes"].update({name: {} for name in names})
        each.status["usage"] = {"cores": cores, "cpu_s": dict.fromkeys(names, cpu_s) | {"receiver": cpu_s}}
    busy = overview(second, first)["engine"]["busy"]
    assert busy == {"receiver": 0.25, "decoders": decoders, "writers": 0.5}
    assert set(overview(second)["engine"]["busy"].values()) == {None}


PLAN = Planned("2026-01-01T00:00:00+00:00", 3000, 90_000, 50.0)


@pytest.mark.parametrize(
    ("fleet", "before", "part", "now_part"),
    [
        (FLEET | {"pace_per_s": 1.5}, 0.0, 0.03, 0.1),
        (FLEET | {"pace_per_s": 1.5}, None, 0.03, None),
        (None, 0.0, 0.1, 0.1),
        (None, None, None, None),
    ],
)
def test_what_is_used_of_a_plan(
    fleet: Any, before: float | None, part: float | None, now_part: float | None
) -> None:
    """By the fleet's intervals, and right now; whatever is not known is not made up."""
    earlier = None if before is None else sample(before)
    found = overview(sample(10.0, settle_seconds_catalog_count=50.0), earlier, fleet, [], PLAN)
    assert found["plan"]["part"] == (None if part is None else pytest.approx(part))
    assert found["plan"]["now_part"] == (None if now_part is None else pytest.approx(now_part))
    told = dict(lines(found, "here"))["capacity"]
    assert ("3 % of what the plan says fits (90,000 nodes)" in told) == (fleet is not None)
    assert len(lines(found, "here")) <= 12


def test_a_plan_that_is_nearly_used_up_is_told() -> None:
    """Nothing else is wrong then; without a plan, or far from its end, nothing is."""
    assert overview(sample(), None, FLEET | {"pace_per_s": 40.0}, [], PLAN)["trouble"] is None
    found = overview(sample(), None, FLEET | {"pace_per_s": 47.0}, [], PLAN)["trouble"]
    assert "94 %" in found["what"]
    assert "ingest capacity" in found["do"]


def test_without_a_plan_the_busiest_is_named() -> None:
    """And before there are two samples nothing is."""
    first, second = sample(0.0), sample(10.0, batch_seconds_sum=0.3)
    assert dict(lines(overview(second, first), ""))["capacity"] == "writers the busiest, 3 % of their time"
    assert dict(lines(overview(second), ""))["capacity"] == "not measured yet"


def test_what_is_no_engine_is_an_error() -> None:
    """Whoever else answers on that port."""
    with pytest.raises((KeyError, TypeError, AttributeError)):
        overview(Sample(0.0, {"health": []}))


@pytest.mark.parametrize(("engines", "said"), [(0, ""), (1, "1 engine at work"), (3, "3 engines at work")])
def test_how_many_engines_are_at_work(engines: int, said: str) -> None:
    """In the line of the database; none is said where a standby was asked, which does not know."""
    (line,) = [
        text
        for name, text in lines(overview(sample(), None, FLEET | {"engines": engines}), "here")
        if name == "database"
    ]
    assert ("at work" in line) == bool(said)
    assert said in line
