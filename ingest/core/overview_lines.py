"""An overview in at most twelve lines: what ``ingest status`` and ``ingest top`` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ingest.core.overview import OUTCOMES
from ingest.core.planned import busy_text, percent
from ingest.core.quantities import bytes_text, duration_text

NAMED = 3  # so many overdue nodes are named in a line


def lines(found: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """At most twelve, each with its name."""
    engine, fleet = found["engine"], found["fleet"]
    told = [("engine", _ready(engine, where))]
    if fleet is not None:
        told += _fleet_lines(fleet)
    if engine is not None:
        told += _engine_lines(engine, fleet)
        told.insert(-1, ("capacity", busy_text(found["plan"], engine["busy"])))
    if fleet is not None:
        told.append(("quarantine", _quarantine(found["quarantine"])))
    told.append(("database", _database(engine, fleet)))
    wrong = found["trouble"]
    told.append(("wrong", wrong["what"] if wrong else "nothing"))
    if wrong:
        told.append(("to do", wrong["do"]))
    return told


def _ready(engine: Mapping[str, Any] | None, where: str) -> str:
    if engine is None:
        return f"does not answer at {where}"
    state = "ready" if engine["ready"] else "not ready: " + "; ".join(engine["reasons"])
    restarts = f", {engine['restarts']:.0f} restarts of children" if engine["restarts"] else ""
    return f"{state} at {where}, {engine['processes']} processes{restarts}"


def _fleet_lines(fleet: Mapping[str, Any]) -> list[tuple[str, str]]:
    named = ", ".join(node["certname"] for node in fleet["overdue_nodes"][:NAMED])
    more = ", ..." if fleet["overdue"] > NAMED else ""
    overdue = f"{fleet['overdue']} overdue" + (f": {named}{more}" if named else "")
    statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(fleet["statuses"].items()))
    return [
        (
            "fleet",
            f"{fleet['nodes']:,} nodes active, {fleet['deactivated']:,} deactivated, {fleet['expired']:,} expired",
        ),
        (
            "freshness",
            f"{fleet['nodes'] - fleet['overdue']:,} in time, {overdue} (usually every {duration_text(fleet['usual_s'])})",
        ),
        ("last runs", statuses or "none"),
    ]


def _engine_lines(engine: Mapping[str, Any], fleet: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    settled = engine["settled"]
    pace = f", {float(fleet['pace_per_s']):.2g} catalogs/s expected" if fleet is not None else ""
    received = "?" if engine["received_per_s"] is None else f"{engine['received_per_s']:.3g}"
    return [
        ("throughput", f"{received} messages/s{pace}"),
        ("queues", f"{_waiting(engine['kinds'])}; window {percent(engine['window_part'])} full"),
        ("settled", ", ".join(f"{settled[name]:,.0f} {name}" for name in OUTCOMES)),
    ]


def _waiting(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """How many of each kind, since when, and how late the last ones were stored by their producer's clock."""
    told = []
    for word, kind in kinds.items():
        since = f" wait {duration_text(kind['oldest_s'])}" if kind["unsettled"] else ""
        lag = "" if kind["lag_s"] is None else f", lag {duration_text(kind['lag_s'])}"
        told.append(f"{kind['unsettled']:,.0f} {word}{since}{lag}")
    return "; ".join(told)


def _quarantine(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "empty"
    return ", ".join(f"{row['messages']:,} {row['reason']}" for row in rows[:NAMED]) + (
        ", ..." if len(rows) > NAMED else ""
    )


def _database(engine: Mapping[str, Any] | None, fleet: Mapping[str, Any] | None) -> str:
    parts = []
    if engine is not None:
        parts.append(f"{engine['writers_up']:.0f} of {engine['writers']} writers connected")
    if fleet is not None:
        engines = fleet.get("engines", 0)  # none where a standby is asked
        parts += [f"{engines} engine{'s' * (engines != 1)} at work on it"] * bool(engines)
        parts.append(bytes_text(fleet["database_bytes"]))
    return ", ".join(parts) or "unknown"
