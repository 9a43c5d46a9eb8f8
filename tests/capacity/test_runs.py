"""Whole runs in the plan: facts and reports beside catalogs, in time, on disk and in the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from ingest.capacity import calibration as saved
from ingest.capacity import plan as planning
from ingest.capacity.calibration import FACTS_KINDS, REPORT_KINDS, rank_of_kind
from ingest.capacity.costs import BatchCosts, Costs, Lesser, Line
from ingest.capacity.fleet import Fleet, arrivals, run_bytes
from ingest.capacity.plan import plan
from ingest.capacity.planned import Plan
from ingest.capacity.report import render
from ingest.capacity.run_bodies import CHANGED, RunNode, from_directory, made_up
from ingest.capacity.run_costs import all_costs_of, built_in
from ingest.capacity.run_report import runs_basis
from ingest.capacity.run_space import Keep, run_space
from ingest.capacity.simulation import simulate
from ingest.capacity.world import Arrival, Setup
from ingest.cli.main import cli
from ingest.core.delivery.importance import CATALOG, FACTS, RANKS, REPORT
from ingest.errors import Misconfigured
from tests.capacity import made_up as known

CATALOGS = Fleet(3000, 1800.0, 0.9, 0.09, 0.01, 1_250_000, 8, 0.1)
RUNS = msgspec.structs.replace(
    CATALOGS, kinds=RANKS, reports_changed=0.02, run_bytes=run_bytes(known.calibration())
)
SETUP = Setup(cores=2, workers=2, writers=2, queues=(0, 1, 2))


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "LOAD_MESSAGES", 120)
        patch.setattr(planning, "LIMIT_MESSAGES", 240)
        patch.setattr(planning, "BURST_MESSAGES_MAX", 600)
        patch.setattr(planning, "CURVE_LOADS", (0.1, 0.9))
        yield


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(known.calibration(), RUNS, SETUP, target_s=60.0, outage_s=3600.0)


def _costs() -> Costs:
    free = BatchCosts(0.0, 0.0, 0.0, dict.fromkeys(saved.KINDS, Line(0.001, 0.0)))
    line = Line(0.001, 0.0)
    kinds = (*saved.KINDS, *FACTS_KINDS, *REPORT_KINDS)
    return Costs(
        receiver=line, broker=line, broker_in=0.5, decoder=dict.fromkeys(kinds, Line(0.002, 0.0)),
        at_rest=dict.fromkeys(("receiver", "broker", "decoder"), 1.0), noise=dict.fromkeys(kinds, (1.0,)),
        writer=free, postgresql=free, commit_s=0.001, crowding=1.0,
        lesser={
            rank: Lesser(Line(0.003, 0.0), line, batch, batch)
            for rank in (FACTS, REPORT)
            for batch in [BatchCosts(0.004, 0.0005, 0.0, dict.fromkeys(kinds, Line(0.0002, 0.0)))]
        },
    )  # fmt: skip


@pytest.mark.parametrize("kind", [*FACTS_KINDS, *REPORT_KINDS])
def test_a_lone_message_of_any_kind_takes_the_sum_of_its_stages(kind: str) -> None:
    """Receiver, decoder, writer, PostgreSQL, commit, by its own costs and not by a catalog's."""
    found = simulate(_costs(), SETUP._replace(cores=4), [Arrival(0.0, kind, 10_000, 1)])
    assert found.freshness_s == pytest.approx([0.003 + 0.002 + 2 * (0.004 + 0.0005 + 0.0002) + 0.001])
    assert found.ranks == [rank_of_kind(kind)]


def test_catalogs_do_not_wait_behind_reports() -> None:
    """Of a backlog in three queues nearly all catalogs are stored before half of the reports, and all of it is stored."""
    backlog = [
        Arrival(0.0, kind, 10_000, node)
        for node in range(400)
        for kind in ("report_unchanged", "facts_next", "unchanged")
    ]
    found = simulate(_costs(), SETUP, backlog)
    catalogs, reports = (sorted(found.freshness_of(rank)) for rank in (CATALOG, REPORT))
    assert catalogs[380] < reports[200]
    assert len(found.finished_s) == len(backlog) == 1200
    assert sorted(map(len, map(found.freshness_of, (CATALOG, FACTS, REPORT)))) == [400, 400, 400]


def test_a_lone_catalog_is_hardly_later_while_reports_wait() -> None:
    """A thousand of them before it: it takes less than a fifth of the time that they do."""
    reports = [Arrival(0.0, "report_unchanged", 10_000, node) for node in range(1000)]
    late = Arrival(0.05, "unchanged", 1_000_000, 7)
    found = simulate(_costs(), SETUP, [*reports, late])
    assert found.freshness_of(CATALOG)[0] < 0.2 * max(found.freshness_of(REPORT))


def test_each_queue_has_its_part_of_the_window() -> None:
    """However many reports wait, they hold a seventh of it: the rest stays free for facts and catalogs."""
    reports = [Arrival(0.0, "report_unchanged", 10_000, node) for node in range(300)]
    found = simulate(_costs(), SETUP._replace(window_messages_max=70), reports)
    assert found.window_bytes_max == 10 * 10_000


def test_a_run_sends_each_kind_once_at_the_rate_of_runs() -> None:
    """Facts, catalog and report of the same node, the same mix from the beginning to the end."""
    load = list(arrivals(RUNS, 3000, per_s=30.0, cores=2, seed=1))
    by_rank = {rank: [a for a in load if rank_of_kind(a.kind) == rank] for rank in (CATALOG, FACTS, REPORT)}
    nodes = {rank: sorted(a.node for a in found) for rank, found in by_rank.items()}
    assert nodes[CATALOG] == nodes[FACTS] == nodes[REPORT]
    assert [a.due_s for a in load] == sorted(a.due_s for a in load)
    for found in by_rank.values():
        assert sum(a.due_s < load[-1].due_s / 2 for a in found) == pytest.approx(1500, rel=0.1)
    changed = sum(a.kind == "report_few" for a in by_rank[REPORT])
    assert changed == pytest.approx(0.02 * 3000, rel=0.35)


@pytest.mark.parametrize("kinds", [("catalog",), ("facts",), ("report",), ("catalog", "report")])
def test_only_the_kinds_that_are_planned_come(kinds: tuple[str, ...]) -> None:
    load = arrivals(msgspec.structs.replace(RUNS, kinds=kinds), 50, per_s=None, cores=2, seed=1)
    assert {RANKS[rank_of_kind(a.kind)] for a in load} == set(kinds)


def test_the_plan_answers_for_each_kind(made: Plan) -> None:
    """Whether it is stored before the next run; what waits after an outage, in messages, bytes and time."""
    assert [(one.kind, one.before_next_run) for one in made.base.kinds] == [(name, True) for name in RANKS]
    assert made.outage.messages == 3 * 6000
    a_run = 1_250_000 + sum(RUNS.mean_bytes(rank) for rank in (FACTS, REPORT))
    assert made.outage.body_bytes == pytest.approx(6000 * a_run, rel=0.01)
    assert list(made.outage.kinds_s) == list(RANKS)
    assert made.outage.kinds_s["catalog"] < made.outage.kinds_s["report"]
    assert made.outage.seconds == pytest.approx(max(made.outage.kinds_s.values()))
    assert made.what_if[-1].name == "every report has changes"
    assert made.what_if[-1].limit_per_s < made.base.limit_per_s


def test_whole_runs_cost_more_than_catalogs_alone(made: Plan) -> None:
    alone = plan(
        known.calibration(), CATALOGS, SETUP._replace(queues=(0, 0, 0)), target_s=60.0, outage_s=3600.0
    )
    assert alone.runs is None
    assert made.runs is not None
    assert made.base.limit_per_s < alone.base.limit_per_s
    assert made.base.utilisation["cores"] > alone.base.utilisation["cores"]
    space, runs = made.space, made.runs
    assert space.wal_bytes_day == alone.space.wal_bytes_day + runs.wal_bytes_day
    assert space.database_bytes == alone.space.database_bytes + runs.database_bytes


def test_a_fleet_whose_reports_come_too_late_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_others", lambda *_: iter(()))
    fleet = msgspec.structs.replace(RUNS, nodes=3_000_000)
    found = plan(known.calibration(), fleet, SETUP, target_s=60.0, outage_s=60.0)
    assert [one.before_next_run for one in found.base.kinds] == [False] * 3
    text = render(found, "markdown")
    assert "Not all catalogs and facts and reports of a node are stored before its next run" in text
    assert "runs a second come" in text


@pytest.mark.parametrize(
    ("keep", "days"), [(Keep(14.0), 14), (Keep(1.0), 1), (Keep(90.0, 7.0), 90), (Keep(0.0), 365)]
)
def test_disk_of_reports_is_their_number_times_their_size(keep: Keep, days: int) -> None:
    """3000 nodes every 30 minutes are 144,000 a day; kept for ever, a year is told."""
    stored = built_in().stored_bytes
    each = 0.98 * stored["report_unchanged"] + 0.02 * stored["report_few"]
    found = run_space(known.calibration(), RUNS, keep)
    assert found is not None
    assert found.reports_bytes == pytest.approx(days * 144_000 * each, rel=1e-6)
    # A day more is there until it is dropped as a whole.
    there = days + (keep.report_days > 0)
    assert found.database_bytes == pytest.approx(
        there * 144_000 * each + 3000 * stored["facts_first"], rel=1e-6
    )


def test_events_that_are_not_stored_take_nothing() -> None:
    with_events, without = (run_space(known.calibration(), RUNS, Keep(14.0, days)) for days in (7.0, 0.0))
    assert with_events is not None
    assert without is not None
    assert without.reports_bytes < 0.95 * with_events.reports_bytes


def test_what_is_built_in_agrees_with_days_of_reports_as_weighed() -> None:
    """40,320 reports of 14 days, one in fifty with changes, took 2558 bytes each (bench/records/disk-20261127-022752.json)."""
    stored = built_in().stored_bytes
    assert 0.98 * stored["report_unchanged"] + 0.02 * stored["report_few"] == pytest.approx(2558, rel=0.25)


def test_a_record_of_the_version_before_is_read_and_says_what_it_lacks(made: Plan, tmp_path: Path) -> None:
    """Of schema 1 and without facts and reports: those are the built-in ones, and the report says so."""
    document = msgspec.to_builtins(known.calibration())
    document["schema"] = 1
    del document["runs"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    old = saved.load(tmp_path / "old.json")
    assert old.runs is None
    assert msgspec.structs.replace(old, schema=saved.SCHEMA) == known.calibration()
    assert "measured when this program was made, not on this machine" in render(made, "markdown")
    own = run_space(known.calibration(runs=built_in()), RUNS, Keep())
    assert "measured with this calibration" in " ".join(runs_basis(msgspec.structs.replace(made, runs=own)))


def test_costs_of_runs_make_life_come_true() -> None:
    """Where messages come at random times, every stage is told as much CPU as was measured."""
    costs = all_costs_of(known.calibration())
    for round_ in (r for r in built_in().rounds if r.mode == "flow"):
        (kind,) = round_.kinds
        size = round_.body_bytes / round_.messages
        writer, postgresql = costs.batches_of(rank_of_kind(kind))
        for stage, batches in (("writer", writer), ("postgresql", postgresql)):
            told_s = batches.batch_s * round_.batches + batches.message[kind].at(size) * round_.messages
            assert told_s == pytest.approx(round_.cpu_s[stage], rel=0.02), (kind, stage)
        decoded_s = costs.decoder[kind].at(size) * round_.messages
        assert decoded_s == pytest.approx(round_.cpu_s["decoder"], rel=0.02), kind
    assert costs.decoder["report_worst"].at(1.3e6) > 10 * costs.decoder["report_few"].at(54_000)


def test_both_texts_tell_of_whole_runs(made: Plan) -> None:
    page, text = render(made, "html"), render(made, "markdown")
    for wanted in (
        "Before the next run?", "All catalogs, facts and reports of a node are stored before its next run", "reports of 14 days",
        "runs/s at most", "GiB in the broker", "report_ttl_s",
    ):  # fmt: skip
        assert wanted in page, wanted
        assert wanted in text, wanted
    assert msgspec.json.decode(render(made, "json"), type=Plan) == made


def test_kinds_choose_what_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All by default; catalogs alone as before; reports alone; how long they are kept is the engine's setting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "_others", lambda *_: iter(()))
    saved.save(known.calibration(), tmp_path / "c.json")

    def run(*arguments: str) -> dict[str, object]:
        words = ["capacity", "--calibration", "c.json", "--nodes", "3000", "--output", "p.json", *arguments]
        done = CliRunner().invoke(cli, words, standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        found: dict[str, object] = json.loads((tmp_path / "p.json").read_text())
        return found

    assert run()["fleet"]["kinds"] == list(RANKS)  # type: ignore[index]
    assert run("--kinds", "catalog")["runs"] is None
    reports = run("--kinds", "report", "--report-ttl-s", str(7 * 86400))["runs"]
    assert (reports["report_days"], reports["facts_bytes"]) == (7.0, 0)  # type: ignore[index]
    with pytest.raises(Misconfigured, match="--reports-changed: 2 is not a share"):
        run("--reports-changed", "2")
    with pytest.raises((Misconfigured, click.UsageError), match="kinds"):
        run("--kinds", "catalogues")


def test_made_up_facts_move_as_facter_s_do_and_reports_have_events() -> None:
    """Of two runs of a node a few leaves in a hundred differ; a report has as many events as its kind says."""
    node = RunNode(made_up(), 1)
    one, other = (_leaves(json.loads(node.next(kind))["payload"]["values"]) for kind in FACTS_KINDS)
    assert one.keys() == other.keys()
    assert 0.02 < sum(one[path] != other[path] for path in one) / len(one) < 0.08
    for kind, events in CHANGED.items():
        payload = json.loads(node.next(kind))["payload"]
        assert sum(len(each["events"]) for each in payload["resources"]) == events
        assert len(payload["metrics"]) == 156
        assert len(payload["logs"]) == events + 3


def test_an_operator_s_own_facts_and_reports_are_taken(tmp_path: Path) -> None:
    """With the node's name and times replaced; what is neither is one line that names the file."""
    for folder in ("facts", "reports"):
        (tmp_path / folder).mkdir()
    node = RunNode(made_up(), 1)
    facts = json.loads(node.next("facts_next"))
    facts["payload"]["values"]["ours"] = "of run-001.calibration.example.com"
    (tmp_path / "facts" / "a.json").write_text(json.dumps(facts))
    report = json.loads(node.next("report_few"))
    report["payload"]["configuration_version"] = "ours"
    (tmp_path / "reports" / "a.json").write_text(json.dumps(report))
    other = RunNode(from_directory(tmp_path), 2)
    assert json.loads(other.next("facts_next"))["payload"]["values"]["ours"] == f"of {other.certname}"
    sent = json.loads(other.next("report_unchanged"))["payload"]
    assert (sent["configuration_version"], sent["resources"], sent["certname"]) == (
        "ours",
        [],
        other.certname,
    )
    assert datetime.fromisoformat(sent["producer_timestamp"]) <= datetime.now(UTC)
    (tmp_path / "facts" / "b.json").write_text("[]")
    with pytest.raises(Misconfigured, match=r"b\.json is not facts in wire form"):
        from_directory(tmp_path)


def _leaves(value: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    if not isinstance(value, dict):
        return {path: value}
    found: dict[tuple[str, ...], object] = {}
    for name, one in value.items():
        found |= _leaves(one, (*path, name))
    return found
