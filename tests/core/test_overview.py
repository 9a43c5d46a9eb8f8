"""What is said to be wrong, and in how many lines everything is told."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.core.overview import Sample, lines, overview

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
