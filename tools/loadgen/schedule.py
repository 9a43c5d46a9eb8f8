"""Who runs when: pure arithmetic on simulated time, in seconds of the fleet's own clock from the start."""

from __future__ import annotations

import random
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import NamedTuple

from ingest.errors import Misconfigured

SCENARIOS = ("steady", "deploy-wave", "thundering-herd", "backlog", "growth")
OUTAGE_S = 3600.0  # what waits in the queue when a backlog begins
GROWTH_FROM = 0.5  # the share of nodes that a growing fleet begins with


class Due(NamedTuple):
    """One run of one node. ``next_s`` is when the node asks again."""

    at_s: float
    node: int
    next_s: float
    forced: str | None = None  # what changes, if the scenario says so


def schedule(scenario: str, nodes: int, interval_s: float, duration_s: float, seed: int) -> Iterator[Due]:
    """Every run that is due within the duration, in order. Raises Misconfigured for an unknown scenario."""
    if scenario not in SCENARIOS:
        raise Misconfigured("--scenario", f"{scenario!r} is none of {', '.join(SCENARIOS)}")
    chance = random.Random(f"{seed} splay")
    waiting: list[tuple[float, int]] = []
    for node in range(nodes):
        heappush(waiting, (_first_s(scenario, node, nodes, interval_s, duration_s, chance), node))
    # A deploy happens in the middle: before it the fleet is as always, after it too.
    deploy_s = duration_s / 2 if scenario == "deploy-wave" else float("inf")
    upgraded: set[int] = set()
    while waiting and waiting[0][0] < duration_s:
        at_s, node = heappop(waiting)
        forced = None
        if at_s >= deploy_s and node not in upgraded:
            upgraded.add(node)
            forced = "upgrade"
        yield Due(at_s, node, at_s + interval_s, forced)
        heappush(waiting, (at_s + interval_s, node))


def there_from_the_start(scenario: str, node: int, nodes: int) -> bool:
    """Whether the node ran before the clock started; a growing fleet has others."""
    return scenario != "growth" or node < nodes * GROWTH_FROM


def _first_s(
    scenario: str, node: int, nodes: int, interval_s: float, duration_s: float, chance: random.Random
) -> float:
    splay_s = chance.random() * interval_s
    if scenario == "thundering-herd":
        return 0.0
    if scenario == "backlog":
        # The outage is over at zero; what was due in it is sent at once, and is late from the beginning.
        return splay_s - OUTAGE_S
    if not there_from_the_start(scenario, node, nodes):
        # The other nodes come one after the other until the last run but one.
        share = (node / nodes - GROWTH_FROM) / (1 - GROWTH_FROM)
        return share * max(0.0, duration_s - interval_s)
    return splay_s
