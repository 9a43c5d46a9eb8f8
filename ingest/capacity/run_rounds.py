"""What facts and reports cost the real engine, beside the catalogs of the same calibration.

Rounds are as those of catalogs: a backlog of each kind, for what a message costs when batches are full; messages at random
times and one at a time, for what a batch costs beside them. What a kind adds to the database is weighed before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ingest.capacity.calibration import Round, Runs
from ingest.capacity.machine import machine
from ingest.capacity.rounds import Bench
from ingest.capacity.run_bodies import Bodies, RunNode

# Kind, how often, and by how much fewer messages than nodes: the large ones take their time. The first round of a kind that
# comes again and again is not counted: leaves that move are found then, and days and nodes have their rows made.
BACKLOGS = (
    ("facts_first", 1, 1),
    ("facts_next", 4, 1),
    ("report_unchanged", 4, 1),
    ("report_few", 2, 4),
    ("report_worst", 1, 16),
)
FLOW_SHARE = 0.5  # of a backlog's rate: facts and reports never come with nothing else
FLOWING = (
    "facts_next",
    "report_unchanged",
)  # what most runs send; before tables grow by what hardly any run sends
EVENTS = "event_contents"


class RunScale(NamedTuple):
    nodes: int = 240
    flow: int = 480
    singles: int = 60


def measure_runs(
    bench: Bench,
    bodies: Bodies,
    scale: RunScale,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Runs:
    """``progress``: what is going on, and which share of this is done."""
    nodes = [RunNode(bodies, number) for number in range(scale.nodes)]
    rounds: list[Round] = []
    stored: dict[str, float] = {}
    event_bytes = 0.0
    for place, (kind, times, fewer) in enumerate(BACKLOGS):
        progress(f"{kind.replace('_', ', ')}", 0.7 * place / len(BACKLOGS))
        part = nodes[: max(1, len(nodes) // fewer)]
        found, grown = _backlogs(bench, kind, part, times)
        rounds += found
        messages = max(1, sum(r.messages for r in found))
        stored[kind] = max(0.0, sum(grown.values())) / messages
        if kind == "report_few":
            event_bytes = max(0, grown.get(EVENTS, 0)) / messages
        if kind in FLOWING:
            rounds += _flow(bench, kind, nodes, scale, found)
    return Runs(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=machine("").cpu,
        bodies=bodies.named,
        rounds=tuple(rounds),
        stored_bytes=stored,
        event_bytes=event_bytes,
    )


def _backlogs(
    bench: Bench, kind: str, nodes: Sequence[RunNode], times: int
) -> tuple[list[Round], dict[str, int]]:
    """The rounds that count, and what each table grew by meanwhile. One of several comes right after a checkpoint."""
    found = []
    before = bench.table_bytes()
    for time in range(times):
        found.append(
            bench.backlog(kind, [(node, kind) for node in nodes], fresh_pages=times > 2 and time == 1)
        )
        if time == 0 and times > 2:
            found.clear()
            before = bench.table_bytes()
    after = bench.table_bytes()
    return found, {name: size - before.get(name, 0) for name, size in after.items()}


def _flow(
    bench: Bench, kind: str, nodes: Sequence[RunNode], scale: RunScale, backlog: Sequence[Round]
) -> list[Round]:
    """At random times, and one at a time."""
    per_s = FLOW_SHARE * sum(r.messages for r in backlog) / sum(r.seconds for r in backlog)
    flow = bench.flow("flow", f"{kind} flow", _in_turn(nodes, kind, scale.flow), per_s)
    return [flow, bench.single(f"{kind} alone", _in_turn(nodes, kind, scale.singles))[1]]


def _in_turn(nodes: Sequence[RunNode], kind: str, messages: int) -> list[tuple[RunNode, str]]:
    return [(nodes[number % len(nodes)], kind) for number in range(messages)]
