"""Made-up facts and reports are like real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab.synthetic_runs import fact_values, facts, report, report_payload

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(minutes=30)


def test_a_run_is_made_again_from_its_numbers() -> None:
    """The same numbers, the same bytes; another node or time, others."""
    assert facts("a", 1, AT) == facts("a", 1, AT)
    assert report("a", 1, "few", AT) == report("a", 1, "few", AT)
    assert len({facts("a", 1, AT), facts("a", 1, LATER), facts("b", 1, AT)}) == 3
    assert len({report("a", 1, "few", AT), report("a", 2, "few", LATER), report("b", 1, "few", AT)}) == 3


@pytest.mark.parametrize("number", range(4))
def test_facts_move_as_real_ones_do(number: int) -> None:
    """Of 16 KB some 37 leaves differ from one run to the next; nothing comes and nothing goes."""
    one, other = (_leaves(fact_values("n.example.com", number, at)) for at in (AT, LATER))
    assert len(facts("n.example.com", number, AT)) == pytest.approx(16_300, rel=0.1)
    assert one.keys() == other.keys()
    assert 25 <= sum(one[path] != other[path] for path in one) <= 40
    assert all(type(one[path]) is type(other[path]) for path in one)


@pytest.mark.parametrize(
    ("change", "changed", "kib"), [("unchanged", 0, 10), ("upgrade", 41, 55), ("everything", 1000, 1100)]
)
def test_reports_have_the_size_of_real_ones(change: str, changed: int, kib: int) -> None:
    """156 metrics and three log lines, and an event and a line for each resource that changed."""
    assert len(report("n.example.com", 1, change, AT)) / 1024 == pytest.approx(kib, rel=0.15)
    found = report_payload("n.example.com", 1, change, AT)
    assert len(found["metrics"]) == 156
    assert len(found["logs"]) == 3 + changed
    messages = {event["message"] for each in found["resources"] for event in each["events"]}
    assert sum(log["message"] in messages for log in found["logs"]) == changed


def test_a_run_changes_the_same_on_all_nodes() -> None:
    """Events of two nodes differ only in when they were; those of another run in content."""

    def events(certname: str, run: int) -> list[Any]:
        found = report_payload(certname, run, "few", AT)["resources"]
        return [[r["resource_title"], [e["message"] for e in r["events"]]] for r in found]

    assert events("a", 2) == events("b", 2)
    assert events("a", 2) != events("a", 3)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict | list) or not value:
        return {path: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {p: leaf for key, its in pairs for p, leaf in _leaves(its, (*path, str(key))).items()}
