"""The plan and its report: what stands in it, and that it needs nothing else."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingest.capacity import plan as planning
from ingest.capacity.costs import costs_of
from ingest.capacity.fleet import Fleet, arrivals
from ingest.capacity.plan import plan
from ingest.capacity.planned import Plan
from ingest.capacity.report import render
from ingest.capacity.space import space_of
from ingest.capacity.world import Setup
from ingest.config.planned import load_plan
from tests.capacity import made_up

FLEET = Fleet(3000, 1800.0, 0.9, 0.09, 0.01, 1_250_000, 8, 0.1)
SETUP = Setup(cores=2, workers=2, writers=2)
VOID = {"meta", "br", "hr", "img", "input", "link"}


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Fewer messages in each simulation: these tests do not look at the last digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "LOAD_MESSAGES", 1000)
        patch.setattr(planning, "LIMIT_MESSAGES", 1500)
        yield


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(made_up.calibration(), FLEET, SETUP, target_s=60.0, outage_s=3600.0)


def test_what_was_planned_is_read_again(made: Plan, tmp_path: Path) -> None:
    """The JSON of a report is what plan_file names: as many nodes and catalogs a second as fit."""
    file = tmp_path / "plan.json"
    file.write_text(render(made, "json"))
    found = load_plan(str(file))
    assert found is not None
    assert (found.nodes, found.nodes_fit, found.at) == (3000, made.base.nodes_fit, made.at)
    assert found.fits_per_s == pytest.approx(made.base.nodes_fit / 1800)


def test_a_plan_has_every_quantity(made: Plan) -> None:
    """Stages, bottleneck, throughput, freshness, nodes that fit, outage, deploy, space, what-if rows."""
    base = made.base
    assert base.offered_per_s == pytest.approx(3000 / 1800)
    assert {"receiver", "decoders", "writers", "PostgreSQL", "cores"} <= set(base.utilisation)
    assert base.bottleneck in base.utilisation
    assert base.utilisation_at_limit[base.bottleneck] > 0.85  # a core may be idle beside a busy one
    assert base.p50_s is not None
    assert base.p99_s is not None
    assert base.p50_s <= base.p99_s < 60
    assert base.fits
    assert base.nodes_fit == pytest.approx(0.95 * base.limit_per_s * 1800, rel=0.01)
    assert base.headroom == pytest.approx(base.nodes_fit / 3000, rel=0.01)
    assert made.outage.messages == 6000
    assert made.outage.seconds == pytest.approx(6000 / base.limit_per_s, rel=0.15)
    assert made.deploy.seconds is not None
    assert made.deploy.seconds > 3000 / base.limit_per_s  # upgrades cost more than the mix
    assert [case.name for case in made.what_if] == [
        "twice the nodes", "every 15 minutes", "4 cores", "8 cores", "16 cores", "two instances",
        "PostgreSQL on a machine of its own", "roles that decoders' caches cannot hold",
    ]  # fmt: skip
    assert made.what_if[0].headroom == pytest.approx(base.headroom / 2, rel=0.02)
    assert made.what_if[-1].limit_per_s < base.limit_per_s
    assert made.what_if[1].nodes_fit == pytest.approx(base.nodes_fit / 2, rel=0.02)


def test_the_limit_is_what_the_bottleneck_allows() -> None:
    """One decoder at work: its share of time busy is catalogs a second times its mean demand."""
    calibration = made_up.calibration()
    costs = costs_of(calibration)
    case, _ = planning._case("", costs, FLEET, SETUP, 60.0)
    count = planning.LIMIT_MESSAGES
    load = list(arrivals(FLEET, count, per_s=None, cores=2, seed=count))
    mean_s = sum(costs.decoder[a.kind].at(a.body_bytes) for a in load) / len(load)
    assert case.bottleneck == "decoders"
    assert case.limit_per_s * mean_s == pytest.approx(case.utilisation_at_limit["decoders"], rel=0.1)


def test_a_target_that_load_alone_breaks_limits_the_nodes() -> None:
    """Fewer nodes fit when p99 has to be lower; none when an idle engine takes longer."""
    costs = costs_of(made_up.calibration())
    limit_per_s = planning._case("", costs, FLEET, SETUP, 60.0)[0].limit_per_s

    def p99_s(load: float) -> float:
        found = planning._simulate(costs, FLEET, SETUP, planning.LOAD_MESSAGES, load * limit_per_s)
        return planning.quantile(found.freshness_s, 0.99)

    between_s = (p99_s(0.01) + p99_s(0.95)) / 2
    found = [
        planning._fit(costs, FLEET, SETUP, limit_per_s, target_s) for target_s in (60.0, between_s, 0.001)
    ]
    assert found[0] == pytest.approx(0.95 * limit_per_s)
    assert 0 < found[1] < found[0]
    assert p99_s(found[1] / limit_per_s) <= between_s
    assert found[2] == 0


def test_amounts_are_measured_ones_multiplied() -> None:
    """WAL, network, memory and disk of a fleet twice as large are twice as much where nodes count."""
    calibration = made_up.calibration()
    one = space_of(calibration, FLEET, SETUP, window_peak_bytes=0)
    two = space_of(calibration, msgspec.structs.replace(FLEET, nodes=6000), SETUP, window_peak_bytes=0)
    a_day = FLEET.per_s * 86400
    wal = a_day * (0.9 * 300 + 0.09 * 8000 + 0.01 * 20_000)
    assert one.wal_bytes_day == pytest.approx(wal, rel=0.02)
    assert two.wal_bytes_day == pytest.approx(2 * one.wal_bytes_day, rel=0.01)
    assert one.network_in_bytes_s == pytest.approx(FLEET.per_s * FLEET.body_bytes)
    # 8 roles of 1 MB together with one node each; 88 more nodes took 30 KB each.
    assert one.database_bytes == pytest.approx(8 * (1_000_000 - 30_000) + 3000 * 30_000, rel=0.02)
    assert two.database_bytes - one.database_bytes == pytest.approx(3000 * 30_000, rel=0.02)
    # A tenth more nodes, and the room that updates left: 13.832 MB were 10.64.
    year = 1.3 * (8 * 970_000 + 3300 * 30_000)
    assert one.database_bytes_year == pytest.approx(year, rel=0.02)
    # Supervisor, receiver, a decoder at work, one that is not, two writers.
    assert one.memory_bytes == (30 + 20 + 100 + 30 + 2 * 50) << 20
    assert one.memory_bytes_max == one.memory_bytes + SETUP.window_bytes_max


class _Checker(HTMLParser):
    """Every tag is closed, and nothing is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert (value or "").startswith("#"), (tag, name, value)
            if name == "id":
                assert value is not None
                self.ids.append(value)
        assert tag not in ("script", "link", "iframe", "img", "object")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(made: Plan) -> None:
    """One file: no address, no script, no reference but to its own ids; light, dark and paper."""
    page = render(made, "html")
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert "://" not in page
    assert re.findall(r"url\((?!#)", page) == []
    assert "@import" not in page
    for wanted in ("prefers-color-scheme: dark", "@media print", 'name="viewport"', 'lang="en"'):
        assert wanted in page


def test_the_pictures_are_well_formed_and_take_the_page_s_colours(made: Plan) -> None:
    """Five of them, each with a title for who cannot see it, references that lead somewhere, no colour of its own
    for lines and letters."""
    found = re.findall(r"<svg.*?</svg>", render(made, "html"), re.DOTALL)
    assert len(found) == 5
    for text in found:
        root = ElementTree.fromstring(text.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
        title = root.find("title")
        assert title is not None
        assert title.text
        ids = {element.get("id") for element in root.iter()}
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', text)) <= ids
        assert "var(--ink)" in text
        assert set(re.findall(r"#[0-9a-f]{6}\b", text)) <= {"#ffffff", "#000000"}


def test_what_a_person_must_know_stands_in_both_texts(made: Plan) -> None:
    """HTML and Markdown say the same."""
    page = re.sub(
        r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>|<style.*?</style>", "", render(made, "html"), flags=re.DOTALL)
    )
    markdown = render(made, "markdown")
    for wanted in (
        "3,000 nodes every 30 min", "It fits", "bottleneck",
        "After 1 h of outage of the engine or its database 6,000 catalogs", "headroom",
        "twice the nodes", "every 15 minutes", "16 cores", "two instances", "WAL a day", "database in a year (+10% nodes)",
        "memory of the engine", "Mbit/s", "p99 freshness", "made up", "abcdef0", "A Processor",
    ):  # fmt: skip
        assert wanted in " ".join(page.split()), wanted
        assert wanted in markdown, wanted


def test_markdown_tables_are_tables(made: Plan) -> None:
    """Each has as many cells in every row, and no line between its rows."""
    blocks = [block for block in render(made, "markdown").split("\n\n") if "|---" in block]
    assert len(blocks) == 5
    for block in blocks:
        lines = block.strip().splitlines()
        assert re.fullmatch(r"[|:-]+", lines[1])
        assert len({line.count("|") for line in lines}) == 1


def test_json_is_the_whole_plan(made: Plan) -> None:
    """Read back it is equal."""
    assert msgspec.json.decode(render(made, "json"), type=Plan) == made


def test_a_fleet_that_does_not_fit_is_told_so() -> None:
    """No freshness where the queue grows for ever; how many nodes would fit; and the report is still one."""
    fleet = msgspec.structs.replace(FLEET, nodes=3_000_000)
    found = plan(made_up.calibration(), fleet, SETUP, target_s=60.0, outage_s=3600.0)
    assert found.base.p99_s is None
    assert not found.base.fits
    assert found.outage.seconds is None
    assert max(found.base.utilisation.values()) > 1
    text = render(found, "markdown")
    assert "It does not fit: 1,666.7 catalogs a second come" in text
    assert "never drained" in text
    _Checker().feed(render(found, "html"))


def test_ctrl_c_leaves_the_rows_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted among the what-if rows, the plan has the others, and the report says that some lack."""
    real = planning._case

    def case(name: str, *arguments: Any) -> Any:
        if name == "every 15 minutes":
            raise KeyboardInterrupt
        return real(name, *arguments)

    monkeypatch.setattr(planning, "_case", case)
    found = plan(made_up.calibration(), FLEET, SETUP, target_s=60.0, outage_s=3600.0)
    assert found.interrupted
    assert [row.name for row in found.what_if] == ["twice the nodes"]
    assert "Interrupted" in render(found, "html")
