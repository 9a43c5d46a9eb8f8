"""What a report says of whole runs: each kind, the disk of reports, what that rests on. Of catalogs alone it says nothing."""

from __future__ import annotations

from ingest.capacity.fleet import Fleet
from ingest.capacity.planned import Plan
from ingest.capacity.run_space import RunSpace
from ingest.capacity.words import duration, percent, seconds, size

_NAMES = {"catalog": "catalogs", "facts": "facts", "report": "reports"}
KINDS_HEAD = (
    "kind",
    "a second",
    "mean size",
    "median freshness",
    "p99",
    "the last of all",
    "before the next run",
)


def kinds(fleet: Fleet) -> list[str]:
    """As a person says them, the most important first."""
    return [_NAMES[kind] for kind in fleet.kinds]


def things(fleet: Fleet) -> str:
    """What comes so many times a second."""
    return kinds(fleet)[0] if len(fleet.kinds) == 1 else "runs"


def kinds_rows(plan: Plan) -> list[tuple[str, ...]]:
    """None where catalogs alone are planned for."""
    if plan.runs is None:
        return []
    return [
        (
            _NAMES[one.kind],
            f"{one.per_s:,.2f}",
            size(one.body_bytes),
            *("grows" if value is None else seconds(value) for value in (one.p50_s, one.p99_s, one.last_s)),
            "yes" if one.before_next_run else "no",
        )
        for one in plan.base.kinds
    ]


def kinds_answer(plan: Plan) -> str:
    late = [_NAMES[one.kind] for one in plan.base.kinds if not one.before_next_run]
    interval = duration(plan.base.interval_s)
    if late:
        return f"Not all {' and '.join(late)} of a node are stored before its next run, {interval} later."
    every = " and ".join(", ".join(kinds(plan.fleet)).rsplit(", ", 1))
    return (
        f"All {every} of a node are stored before its next run, {interval} later. "
        "What waits is taken in the order of importance: catalogs, facts, reports."
        if len(plan.fleet.kinds) > 1
        else f"All {every} of a node are stored before its next run, {interval} later."
    )


def kept(runs: RunSpace) -> str:
    if not runs.report_days:
        return "a year's reports"
    return f"reports of {runs.report_days:g} day{'' if runs.report_days == 1 else 's'}"


def runs_space(runs: RunSpace | None) -> list[tuple[str, str]]:
    if runs is None:
        return []
    rows = []
    if runs.facts_bytes:
        rows.append(("of the database, facts", size(runs.facts_bytes)))
    if runs.reports_bytes:
        rows += [
            (f"of the database, {kept(runs)}", size(runs.reports_bytes)),
            ("reports of a day", size(runs.reports_day_bytes)),
            ("a report with what it refers to, on average", size(runs.report_bytes)),
        ]
    return rows


def runs_basis(plan: Plan) -> list[str]:
    fleet, runs = plan.fleet, plan.runs
    if runs is None:
        return []
    whose = (
        "with this calibration"
        if runs.own
        else "when this program was made, not on this machine: calibrate anew"
    )
    lines = [f"Facts and reports were measured {whose} ({runs.measured})."]
    if runs.reports_bytes:
        events = "" if runs.with_events else "; events are not stored"
        days = (
            f"{runs.report_days:g} days (report_ttl_s)" if runs.report_days else "for ever (report_ttl_s = 0)"
        )
        lines.append(
            f"{percent(fleet.reports_changed)} of the reports have changes, of 40 resources each, counted as if no two nodes' "
            f"changes were alike. They are kept {days}, by whole days, so that the disk holds up to a day more{events}. A "
            "resource_events_ttl_s shorter than that, but not 0, frees no disk before the reports go."
        )
    if len(fleet.kinds) > 1:
        lines.append(
            "“At most” is in whole runs; nodes that fit want that p99 of the first kind, and the others before the next run. "
            "Of whole runs the CPU that the model tells has been compared with the engine's; freshness and limit have been for "
            "catalogs alone."
        )
    return lines
