"""A simulated fleet: the same seed, the same messages; each change is what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from ingest.capacity.catalogs import FORMS, synthetic
from ingest.core.catalog.formats import Skim, skim
from ingest.core.catalog.normalise import normalise
from ingest.core.catalog.wire import to_wire
from ingest.errors import Misconfigured
from tools.loadgen.fleet import CHANGES, Fleet, headers, parse_mix
from tools.loadgen.schedule import OUTAGE_S, SCENARIOS, schedule

AT = datetime(2026, 1, 1, tzinfo=UTC)


def catalog(fleet: Fleet, number: int) -> dict[str, Any]:
    node = fleet.nodes[number]
    skimmed = skim(fleet.body(node, AT), headers(node, AT), AT)
    assert isinstance(skimmed, Skim)
    return to_wire(normalise(skimmed))


def test_a_seed_is_a_fleet() -> None:
    """Two fleets of one seed go the same way; another seed goes another one."""
    mix = dict.fromkeys(CHANGES, 0.25)
    fleets = [Fleet(20, seed, mix=mix, resources=200) for seed in (1, 1, 2)]
    ways = [[[fleet.change(node) for node in fleet.nodes] for _ in range(3)] for fleet in fleets]
    assert ways[0] == ways[1]
    assert ways[0] != ways[2]
    for number in (0, 7):
        one, other = (catalog(fleet, number) for fleet in fleets[:2])
        # A transaction's UUID is of the moment.
        assert [one[m] for m in ("certname", "resources", "edges")] == [
            other[m] for m in ("certname", "resources", "edges")
        ]


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_is_what_it_says(kind: str) -> None:
    """Unchanged changes nothing, parameters a few values, lines only lines, an upgrade lines and contents."""
    fleet = Fleet(1, 1, resources=400)
    fleet.change(fleet.nodes[0])
    before = catalog(fleet, 0)
    assert fleet.change(fleet.nodes[0], forced=kind) == kind
    after = catalog(fleet, 0)
    lines, contents = (_differing(before, after, keep) for keep in (("line",), ("parameters", "title")))
    assert (lines > 0) is (kind in ("lines", "upgrade"))
    assert (contents > 0) is (kind in ("parameters", "upgrade"))
    if kind == "lines":
        assert lines > 0.3 * len(before["resources"])


def test_an_upgrade_reaches_all_nodes_of_a_role_alike() -> None:
    """What the release brings is shared: the nodes' new resources differ only where they name the node."""
    fleet = Fleet(24, 1, resources=400)
    one, other = fleet.nodes[0], fleet.nodes[12]
    assert one.template is other.template
    for node in (one, other):
        fleet.change(node)
        fleet.change(node, forced="upgrade")
    found = [
        {json.dumps(r, sort_keys=True) for r in catalog(fleet, n)["resources"]}
        for n in (one.number, other.number)
    ]
    assert len(found[0] & found[1]) > 0.9 * len(found[0])


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_of_a_template_are_one_catalog(form: str) -> None:
    """A node that sends another form has the same resources and edges, but for what the form adds."""
    at_hand = [synthetic(1, 1, one, 400)[0].render("n.example.com", AT) for one in ("wire", form)]
    wire, other = (to_wire(normalise(skim(body, {}, AT))) for body in at_hand)  # type: ignore[arg-type]
    assert other["edges"] == wire["edges"]
    assert [(r["type"], r["title"], r["tags"]) for r in other["resources"]] == [
        (r["type"], r["title"], r["tags"]) for r in wire["resources"]
    ]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_schedule_is_in_order_and_each_node_comes_every_interval(scenario: str) -> None:
    """Runs are due in order; a node's next run is an interval later; nobody is due after the end."""
    dues = list(schedule(scenario, 50, 100.0, 400.0, 1))
    assert dues == sorted(dues, key=lambda due: due.at_s)
    assert all(due.at_s < 400 for due in dues)
    assert {due.node for due in dues} == set(range(50))
    for node in range(50):
        mine = [due for due in dues if due.node == node]
        assert all(a.next_s == pytest.approx(b.at_s) for a, b in pairwise(mine))


def test_scenarios_are_what_they_are_called() -> None:
    """A deploy reaches every node once; a herd has no splay; a backlog was due before; a fleet grows."""
    of = {name: list(schedule(name, 50, 100.0, 400.0, 1)) for name in SCENARIOS}
    assert sorted(due.node for due in of["deploy-wave"] if due.forced == "upgrade") == list(range(50))
    assert {due.at_s for due in of["thundering-herd"]} == {0.0, 100.0, 200.0, 300.0}
    assert sum(due.at_s < 0 for due in of["backlog"]) == 50 * OUTAGE_S / 100
    active = [len({d.node for d in of["growth"] if a <= d.at_s < a + 100}) for a in (0, 300)]
    assert active[0] < active[1] == 50


@pytest.mark.parametrize("text", ["", "unchanged=1.5", "unchanged=0.5", "sideways=1", "unchanged=x"])
def test_an_impossible_mix_is_refused(text: str) -> None:
    """One line that names the flag."""
    with pytest.raises(Misconfigured, match=r"^--mix: "):
        parse_mix(text)


def _differing(before: dict[str, Any], after: dict[str, Any], members: tuple[str, ...]) -> int:
    def of(whole: dict[str, Any]) -> dict[Any, Any]:
        return {(r["type"], r["title"]): [r.get(m) for m in members] for r in whole["resources"]}

    old, new = of(before), of(after)
    return sum(old.get(ref) != value for ref, value in new.items())
