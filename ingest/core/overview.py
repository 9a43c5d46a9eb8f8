"""What matters of an engine and its fleet, for people: the lines of ``ingest status``, ``ingest top`` and the live page.

Values in, values out: what the engine says of itself (/status.json), what the database says of the fleet, and either may
be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ingest.core.quantities import bytes_text, duration_text

OUTCOMES = ("stored", "unchanged", "stale", "superseded", "quarantined")
NAMED = 3  # so many overdue nodes are named in a line
LATE_S = 60.0  # unsettled for longer than that: something is in the way
BEHIND_S = 300.0
PART_OVERDUE = 0.05  # of the fleet: then it is rather the way to us than the nodes


class Sample(NamedTuple):
    """What an engine said, and when by a clock that only goes forward."""

    at_s: float
    status: Mapping[str, Any]


def overview(
    now: Sample | None,
    before: Sample | None = None,
    fleet: Mapping[str, Any] | None = None,
    quarantine: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """All of it as JSON; without ``before`` there are no rates. Raises KeyError, TypeError or AttributeError for a status
    that is none."""
    found: dict[str, Any] = {
        "engine": None if now is None else _engine(now, before),
        "fleet": None if fleet is None else dict(fleet),
        "quarantine": [dict(row) for row in quarantine],
    }
    found["trouble"] = trouble(found)
    return found


def _engine(now: Sample, before: Sample | None) -> dict[str, Any]:
    health, processes = now.status["health"], now.status["processes"]
    elapsed_s = now.at_s - before.at_s if before else 0.0

    def rate(name: str) -> float | None:
        if before is None or elapsed_s <= 0:
            return None
        return max(0.0, total(now.status, name) - total(before.status, name)) / elapsed_s

    batches = total(now.status, "ingest_lag_seconds_count")
    decoders = sum(name.startswith("decoder") for name in processes)
    writers = sum(name.startswith("writer") for name in processes)
    busy = rate("ingest_decode_cpu_seconds_total")
    writing = rate("ingest_batch_seconds_sum")
    window_of = {
        unit: total(now.status, f"ingest_window_{unit}")
        / max(1.0, total(now.status, f"ingest_window_{unit}_limit"))
        for unit in ("messages", "bytes")
    }
    return {
        "healthy": health["healthy"],
        "ready": health["ready"],
        "reasons": list(health["reasons"]),
        "processes": len(processes),
        "received_per_s": rate("ingest_received_total"),
        "settled": {name: total(now.status, name) for name in OUTCOMES},
        "settled_per_s": None if before is None else sum(rate(name) or 0.0 for name in OUTCOMES),
        "lag_mean_s": total(now.status, "ingest_lag_seconds_sum") / batches if batches else None,
        "lag_newest_s": total(now.status, "ingest_batch_lag_seconds"),
        "lag_newest_before_s": None if before is None else total(before.status, "ingest_batch_lag_seconds"),
        "oldest_unsettled_s": total(now.status, "ingest_oldest_unsettled_seconds"),
        "window_messages": total(now.status, "ingest_window_messages"),
        "window_part": max(window_of.values()),
        "waiting": total(now.status, "ingest_waiting"),
        "decoders_part": None if busy is None or not decoders else min(1.0, busy / decoders),
        "writers_part": None if writing is None or not writers else min(1.0, writing / writers),
        "writers_up": total(now.status, "ingest_database_up"),
        "writers": writers,
        "restarts": total(now.status, "ingest_child_restarts_total"),
    }


def total(status: Mapping[str, Any], name: str) -> float:
    """Of all processes."""
    return float(sum(numbers.get(name, 0.0) for numbers in status["processes"].values()))


# What is wrong


def trouble(found: Mapping[str, Any]) -> dict[str, str] | None:
    """The one thing that is worst, and what to do; None when nothing is wrong."""
    engine, fleet = found["engine"], found["fleet"]
    if engine is not None and (wrong := _of_engine(engine)):
        return {"what": wrong[0], "do": wrong[1]}
    if fleet is not None and (wrong := _of_fleet(fleet)):
        return {"what": wrong[0], "do": wrong[1]}
    if found["quarantine"]:
        newest = found["quarantine"][0]
        return {
            "what": f"messages could not be stored: {newest['reason']}",
            "do": "'ingest quarantine list' shows them, 'ingest quarantine retry --reason' gives them back when it is mended",
        }
    if engine is None:
        return {"what": "no engine answers here", "do": "start it with 'ingest run', or name --metrics-port"}
    return None


def _of_engine(engine: Mapping[str, Any]) -> tuple[str, str] | None:
    reasons = "; ".join(engine["reasons"])
    if not engine["healthy"]:
        return reasons, "the log says how it ended; it is started again by itself"
    if engine["writers_up"] < engine["writers"]:
        return (
            reasons or "a writer has no connection to the database",
            "look at PostgreSQL; the log has its words",
        )
    if not engine["ready"]:
        return reasons, "look at the broker; the log has the reason (connection_lost, broker_unavailable)"
    if engine["oldest_unsettled_s"] > LATE_S:
        age = duration_text(engine["oldest_unsettled_s"])
        return f"a message has waited for {age} to be stored", "look for locks in pg_stat_activity"
    if engine["lag_newest_s"] > BEHIND_S and engine["window_part"] >= 1:
        what = "decoders" if engine["waiting"] else "the database"
        return (
            f"behind by {duration_text(engine['lag_newest_s'])}",
            f"{what} is the limit: more "
            + ("--workers" if engine["waiting"] else "--writers, or a faster disk"),
        )
    return None


def _of_fleet(fleet: Mapping[str, Any]) -> tuple[str, str] | None:
    overdue = fleet["overdue"]
    if overdue and overdue >= max(2.0, PART_OVERDUE * fleet["nodes"]):
        return (
            f"{overdue} of {fleet['nodes']} nodes are overdue",
            "look at Puppet servers and broker first: so many do not stop by themselves; 'ingest nodes --overdue'",
        )
    if overdue:
        return (
            f"{_nodes(overdue)} overdue",
            "'ingest nodes --overdue' names them, 'ingest node NODE' tells more",
        )
    failed = fleet["statuses"].get("failed", 0)
    if failed:
        return f"the last run of {_nodes(failed)} failed", "'ingest nodes --failed' names them"
    return None


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count != 1)}"


# In lines


def lines(found: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """At most twelve, each with its name."""
    engine, fleet = found["engine"], found["fleet"]
    told = [("engine", _ready(engine, where))]
    if fleet is not None:
        told += _fleet_lines(fleet)
    if engine is not None:
        told += _engine_lines(engine, fleet)
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
    busy = "" if engine["decoders_part"] is None else f", decoders {engine['decoders_part']:.0%} busy"
    lag = "none yet" if engine["lag_mean_s"] is None else f"{duration_text(engine['lag_mean_s'])} mean"
    return [
        ("throughput", f"{received} messages/s{pace}{busy}"),
        (
            "lag",
            f"{lag}, {duration_text(engine['lag_newest_s'])} the last ones, from the producer's clock to stored",
        ),
        (
            "queues",
            f"{engine['window_messages']:,.0f} unsettled ({engine['window_part']:.0%} of the window), "
            f"{engine['waiting']:,.0f} waiting, the oldest for {duration_text(engine['oldest_unsettled_s'])}",
        ),
        ("settled", ", ".join(f"{settled[name]:,.0f} {name}" for name in OUTCOMES)),
    ]


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
