"""What matters of an engine and its fleet, for people: ``ingest status``, ``ingest top`` and the live page.

Values in, values out: what the engine says of itself (/status.json), what the database says of the fleet, and either may
be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ingest.core.delivery.importance import RANKS
from ingest.core.delivery.routing import decoders_at_work
from ingest.core.planned import FULL, Planned, percent, used
from ingest.core.quantities import duration_text

KINDS = dict(zip(RANKS, ("catalogs", "facts", "reports"), strict=True))
OUTCOMES = ("stored", "unchanged", "stale", "superseded", "quarantined")
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
    planned: Planned | None = None,
) -> dict[str, Any]:
    """All of it as JSON; without ``before`` there are no rates. Raises KeyError, TypeError or AttributeError for a status
    that is none."""
    found: dict[str, Any] = {
        "engine": None if now is None else _engine(now, before),
        "fleet": None if fleet is None else dict(fleet),
        "quarantine": [dict(row) for row in quarantine],
    }
    found["plan"] = None if planned is None else _of_plan(planned, found)
    found["trouble"] = trouble(found)
    return found


def _of_plan(planned: Planned, found: Mapping[str, Any]) -> dict[str, Any]:
    fleet, engine = found["fleet"], found["engine"]
    catalogs = None if engine is None else engine["kinds"]["catalogs"]["settled_per_s"]
    return used(planned, None if fleet is None else float(fleet["pace_per_s"]), catalogs)


def _engine(now: Sample, before: Sample | None) -> dict[str, Any]:
    health, processes = now.status["health"], now.status["processes"]

    def rate(name: str) -> float | None:
        return _rate(now, before, lambda status: total(status, name))

    batches = total(now.status, "ingest_lag_seconds_count")
    writers = sum(name.startswith("writer") for name in processes)
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
        "lag_newest_s": largest(now.status, "ingest_batch_lag_seconds"),
        "kinds": {word: _kind(now, before, kind) for kind, word in KINDS.items()},
        "oldest_unsettled_s": total(now.status, "ingest_oldest_unsettled_seconds"),
        "window_messages": total(now.status, "ingest_window_messages"),
        "window_part": max(window_of.values()),
        "waiting": total(now.status, "ingest_waiting"),
        "busy": _busy(now, before),
        "writers_up": total(now.status, "ingest_database_up"),
        "writers": writers,
        "restarts": total(now.status, "ingest_child_restarts_total"),
    }


def _kind(now: Sample, before: Sample | None, kind: str) -> dict[str, Any]:
    settled = f"ingest_settle_seconds_{kind}_count"
    return {
        "unsettled": total(now.status, f"ingest_kind_unsettled_{kind}"),
        "oldest_s": total(now.status, f"ingest_kind_oldest_seconds_{kind}"),
        "lag_s": largest(now.status, f"ingest_kind_lag_seconds_{kind}")
        if total(now.status, settled)
        else None,
        "settled_per_s": _rate(now, before, lambda status: total(status, settled)),
    }


def _busy(now: Sample, before: Sample | None) -> dict[str, float | None]:
    """The part of its time that each kind of process works; of decoders, of those that have a core. A writer works while it
    has a transaction, whoever of the two computes."""
    usage = now.status.get("usage") or {}
    counts = {
        kind: sum(name.startswith(kind) for name in now.status["processes"]) for kind in ("decoder", "writer")
    }
    decoders = min(counts["decoder"], decoders_at_work(int(usage.get("cores", 1))))

    def cpu(kind: str) -> float | None:
        return _rate(now, before, lambda status: _cpu_s(status, kind))

    writing = _rate(now, before, lambda status: total(status, "ingest_batch_seconds_sum"))
    of_each = {
        "receiver": (cpu("receiver"), 1),
        "decoders": (cpu("decoder"), decoders),
        "writers": (writing, counts["writer"]),
    }
    return {
        kind: None if rate is None or not count else min(1.0, rate / count)
        for kind, (rate, count) in of_each.items()
    }


def _cpu_s(status: Mapping[str, Any], kind: str) -> float:
    usage = status.get("usage") or {"cpu_s": {}}
    return float(sum(seconds for name, seconds in usage["cpu_s"].items() if name.startswith(kind)))


def _rate(now: Sample, before: Sample | None, of: Callable[[Mapping[str, Any]], float]) -> float | None:
    """A second, between the two; never below 0: what was replaced counts anew."""
    if before is None or now.at_s <= before.at_s:
        return None
    return max(0.0, of(now.status) - of(before.status)) / (now.at_s - before.at_s)


def largest(status: Mapping[str, Any], name: str) -> float:
    """Of all processes."""
    return float(max((numbers.get(name, 0.0) for numbers in status["processes"].values()), default=0.0))


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
    plan = found["plan"]
    if plan is not None and (plan["part"] or 0.0) >= FULL:
        return {
            "what": f"the fleet uses {percent(plan['part'])} of what the plan of {plan['at'][:10]} says fits",
            "do": "plan anew with 'ingest capacity'; its rows under \"What if\" say what more would hold",
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
