"""Whole runs: made-up facts and reports are like real ones, and what the database has of them is compared."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ingest.core.delivery.work import Descriptor
from ingest.errors import Misconfigured
from ingest.store.connection import Connection
from lab.decoding import work_of
from lab.runs import Run, facts_of, report_of
from lab.store_model import Pipeline
from tools.loadgen.checking import differences
from tools.loadgen.fleet import Fleet, parse_kinds

AT = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("facts", "report")


def payload(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)["payload"]
    return found


def run(number: int = 0, run_: int = 1, seed: int = 1) -> Run:
    return Run(f"n{number}.example.com", number, run_, AT, seed)


def test_a_run_is_made_again_from_its_numbers() -> None:
    """The same numbers, the same bytes; another run, node or seed, others."""
    assert facts_of(run()) == facts_of(run())
    assert report_of(run(), changed=3) == report_of(run(), changed=3)
    for other in (run(number=1), run(run_=2), run(seed=2)):
        assert facts_of(run()) != facts_of(other)
        assert report_of(run()) != report_of(other)


@pytest.mark.parametrize("number", range(4))
def test_facts_move_as_real_ones_do(number: int) -> None:
    """Of 16 KB some 37 leaves differ from one run to the next; nothing comes and nothing goes."""
    one, other = (_leaves(payload(facts_of(run(number, at)))["values"]) for at in (1, 2))
    assert len(facts_of(run(number))) == pytest.approx(16_300, rel=0.1)
    assert one.keys() == other.keys()
    assert 25 <= sum(one[path] != other[path] for path in one) <= 40
    assert all(type(one[path]) is type(other[path]) for path in one)


@pytest.mark.parametrize(("changed", "kib"), [(0, 10), (40, 54), (1000, 1100)])
def test_reports_have_the_size_of_real_ones(changed: int, kib: int) -> None:
    """156 metrics and three log lines, and an event and a line for each resource that changed."""
    found = payload(report_of(run(), changed=changed))
    assert len(json.dumps(found, separators=(",", ":"))) / 1024 == pytest.approx(kib, rel=0.15)
    assert len(found["metrics"]) == 156
    assert len(found["logs"]) == 3 + changed
    messages = {event["message"] for each in found["resources"] for event in each["events"]}
    assert sum(log["message"] in messages for log in found["logs"]) == changed


def test_a_release_is_reported_alike_by_all_nodes() -> None:
    """Events of two nodes differ only in when they were; those of another release in content."""

    def events(number: int, release: int) -> list[Any]:
        found = payload(report_of(run(number), changed=5, release=release))["resources"]
        return [[r["resource_title"], [e["message"] for e in r["events"]]] for r in found]

    assert events(1, 2) == events(2, 2)
    assert events(1, 2) != events(1, 3)


@pytest.fixture
def fleet(connection: Connection) -> Fleet:
    """Three nodes whose two runs are stored, the second one with changes."""
    made = Fleet(3, 1, resources=150, kinds=KINDS)
    pipeline = Pipeline(connection)
    for node in made.nodes:
        for at, forced in ((AT - timedelta(minutes=30), None), (AT, "upgrade")):
            made.change(node, forced)
            for _, parts in made.messages(node, at):
                body = b"".join(parts)
                descriptor = Descriptor(1, 1, 0, len(body), len(body), AT, {})
                pipeline.lane.apply([work_of(pipeline.decoding, descriptor, body, {})])
    return made


NEWEST = dict.fromkeys(range(3), AT)
NODE = "(SELECT id FROM nodes WHERE certname = %(certname)s)"


def test_what_was_stored_as_it_was_sent_is_no_difference(fleet: Fleet, database: str) -> None:
    """Facts leaf by leaf, the newest report whole, and how many there are."""
    assert list(differences(database, fleet, NEWEST)) == []


@pytest.mark.parametrize(
    ("tampering", "word"),
    [
        (f"DELETE FROM node_facts WHERE node_id = {NODE}", "no facts"),
        (f"UPDATE node_facts SET producer_timestamp = producer_timestamp - interval '1s' WHERE node_id = {NODE}", "of 20"),
        (f"UPDATE node_facts SET environment_id = NULL WHERE node_id = {NODE}", "environment"),
        (f"DELETE FROM node_latest_reports WHERE node_id = {NODE}", "no report"),
        (f"DELETE FROM node_reports WHERE node_id = {NODE} AND event_ids IS NULL", "1 reports are stored of 2"),
        (f"UPDATE node_latest_reports SET hash = 'other' WHERE node_id = {NODE}", "another than"),
        (f"UPDATE node_reports SET log_ids = log_ids[2:] WHERE node_id = {NODE}", "other events, logs"),
        (f"UPDATE node_reports SET metrics[30] = metrics[30] + 1 WHERE node_id = {NODE}", "metrics differ"),
        (f"UPDATE node_reports SET event_ids = event_ids[2:] || event_ids[1] WHERE node_id = {NODE}", "events differ"),
        ("UPDATE log_contents SET level = 'err' WHERE %(certname)s::text IS NOT NULL", "logs differ"),
    ],
)  # fmt: skip
def test_each_way_of_being_wrong_is_found(
    fleet: Fleet, database: str, connection: Connection, tampering: str, word: str
) -> None:
    """What is gone, older, or other than it was sent; the node is named."""
    certname = fleet.nodes[1].certname
    connection.execute(tampering, {"certname": certname})
    found = list(differences(database, fleet, NEWEST))
    assert any(d.certname == certname and word in d.what for d in found), found


@pytest.mark.parametrize("text", ["", "catalogs", "facts,,report", "inputs"])
def test_an_unknown_kind_is_refused(text: str) -> None:
    """One line that names the flag."""
    with pytest.raises(Misconfigured, match=r"^--kinds: "):
        parse_kinds(text)


def test_kinds_are_sent_in_the_order_of_a_run() -> None:
    """However they were named."""
    assert parse_kinds("report, facts") == ("facts", "report")
    assert parse_kinds("catalog") == ("catalog",)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict | list) or not value:
        return {path: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {p: leaf for key, its in pairs for p, leaf in _leaves(its, (*path, str(key))).items()}
