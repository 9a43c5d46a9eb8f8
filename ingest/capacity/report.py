"""The plan as a person reads it: one HTML file that needs nothing else, Markdown, or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import msgspec

from ingest.capacity import cluster_report
from ingest.capacity.plan import LOAD_MAX
from ingest.capacity.planned import Burst, Case, Plan
from ingest.capacity.run_report import (
    KINDS_HEAD,
    kept,
    kinds,
    kinds_answer,
    kinds_rows,
    runs_basis,
    runs_space,
    things,
)
from ingest.capacity.words import about, duration, percent, seconds, size, times
from ingest.errors import Misconfigured

DISTURBED = 0.1  # of the cores used by others during the calibration: figures are worse than they could be
FORMATS = {".html": "html", ".md": "markdown", ".json": "json"}


def format_of(file: Path) -> str:
    """By the file's ending. Raises Misconfigured for one that says nothing."""
    found = FORMATS.get(file.suffix.lower())
    if found is None:
        raise Misconfigured("--output", f"{file} ends in none of {', '.join(FORMATS)}")
    return found


def render(plan: Plan, format_: str) -> str:
    if format_ == "json":
        return msgspec.json.format(msgspec.json.encode(plan), indent=1).decode() + "\n"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"),
        autoescape=jinja2.select_autoescape(["html.jinja"], default_for_string=False),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    if format_ == "html":
        # Half a second to import, and Markdown has no pictures.
        from ingest.capacity.plots import plots

        return environment.get_template("report.html.jinja").render(plots=plots(plan), **_words(plan))
    return environment.get_template("report.md.jinja").render(
        percent=percent, seconds=seconds, **_words(plan)
    )


def _words(plan: Plan) -> dict[str, Any]:
    base = plan.base
    return {
        "plan": plan,
        "title": f"Capacity for {base.nodes:,} nodes every {duration(base.interval_s)}",
        "verdict": _verdict(plan),
        "interrupted": "Interrupted: the rows under “What if” are not all there.",
        "headline": _headline(plan),
        "bottleneck": f"The bottleneck: {_stage(base.bottleneck)}, busy "
        f"{percent(base.utilisation_at_limit[base.bottleneck])} of the time when no more comes through.",
        "kinds_head": KINDS_HEAD,
        "kinds_rows": kinds_rows(plan),
        "kinds_answer": kinds_answer(plan),
        "cluster_head": cluster_report.HEAD,
        "cluster_rows": cluster_report.cluster_rows(plan),
        "cluster_answer": cluster_report.cluster_answer(plan),
        "outage": _outage(plan),
        "deploy": _deploy(plan),
        "what_if_head": (
            "case", "nodes", "cores", "busiest stage", "p99 freshness", f"{things(plan.fleet)}/s at most", "bottleneck",
            "nodes that fit", "headroom",
        ),
        "what_if_rows": [_row(case) for case in (base, *plan.what_if)],
        "space": _space(plan),
        "basis": _basis(plan),
    }  # fmt: skip


def _verdict(plan: Plan) -> str:
    base, what = plan.base, things(plan.fleet)
    if base.fits:
        assert base.p99_s is not None
        return (
            f"It fits: 99 of 100 {kinds(plan.fleet)[0]} are in PostgreSQL {seconds(base.p99_s)} after they were queued, "
            f"and this machine would hold {times(base.headroom)} as many nodes."
        )
    if base.p99_s is None:
        return (
            f"It does not fit: {base.offered_per_s:,.1f} {what} a second come and {base.limit_per_s:,.1f} can be "
            f"stored, so the queue grows. {about(base.nodes_fit)} nodes would fit."
        )
    return (
        f"It does not fit with p99 freshness under {duration(plan.target_s)} and {percent(1 - LOAD_MAX)} to spare: "
        f"{about(base.nodes_fit)} nodes would."
    )


def _headline(plan: Plan) -> list[tuple[str, str]]:
    base, what = plan.base, things(plan.fleet)
    found = [
        ("offered", f"{base.offered_per_s:,.2f} {what}/s"),
        ("at most", f"{base.limit_per_s:,.0f} {what}/s"),
        (f"nodes that fit (p99 under {duration(plan.target_s)})", about(base.nodes_fit)),
        ("headroom", times(base.headroom)),
        ("p99 freshness", "grows" if base.p99_s is None else seconds(base.p99_s)),
        ("median freshness", "grows" if base.p50_s is None else seconds(base.p50_s)),
        ("bottleneck", base.bottleneck),
        (f"drained after {duration(plan.outage_s)} of outage", _end(plan.outage)),
        ("fleet-wide deploy, all at once", _end(plan.deploy)),
    ]
    if plan.runs is not None and plan.runs.reports_bytes:
        found.append((f"disk for {kept(plan.runs)}", size(plan.runs.reports_bytes)))
    if plan.runs is not None:
        wal = plan.space.wal_bytes_day + plan.space.wal_pages_bytes_day
        found += [("in the broker after that outage", size(plan.outage.body_bytes)), ("WAL a day", size(wal))]
    return found


def _outage(plan: Plan) -> str:
    count, outage = f"{plan.outage.messages:,} {_messages(plan)}", duration(plan.outage_s)
    if plan.runs is not None:
        count += f" ({size(plan.outage.body_bytes)} in the broker)"
    if plan.outage.seconds is None:
        return f"After {outage} of outage {count} wait, and the queue grows: it is never drained."
    return (
        f"After {outage} of outage of the engine or its database {count} wait in the queue. They are stored "
        f"{seconds(plan.outage.seconds)} after its end, while the fleet goes on reporting."
    ) + _by_kind(plan.outage)


def _deploy(plan: Plan) -> str:
    text = (
        f"When a release changes the catalog of every node and all report at once, the last of "
        f"{plan.deploy.messages:,} {_messages(plan) if plan.runs is not None else ''}".rstrip()
        + f" is stored after {_end(plan.deploy)}.{_by_kind(plan.deploy)} "
    )
    if plan.deploy_p99_s is None:
        return text + "Reporting when they are due, they come faster than they can be stored."
    return text + (
        f"When they report as they are due, it takes their interval of {duration(plan.base.interval_s)}, with p99 "
        f"freshness of {seconds(plan.deploy_p99_s)} meanwhile."
    )


def _messages(plan: Plan) -> str:
    return "messages" if len(plan.fleet.kinds) > 1 else kinds(plan.fleet)[0]


def _by_kind(burst: Burst) -> str:
    """Which kind is through when, where there are several."""
    if len(burst.kinds_s) < 2:
        return ""
    names = {"catalog": "the last catalog", "facts": "the last facts", "report": "the last report"}
    parts = [f"{names[kind]} after {seconds(at_s)}" for kind, at_s in burst.kinds_s.items()]
    return f" The most important come first: {', '.join(parts[:-1])} and {parts[-1]}."


def _row(case: Case) -> tuple[str, ...]:
    busiest = max(case.utilisation, key=lambda stage: case.utilisation[stage])
    machines = f"{case.instances} x {case.cores}" if case.instances > 1 else str(case.cores)
    late = [one.kind for one in case.kinds[1:] if not one.before_next_run]
    return (
        case.name,
        f"{case.nodes:,}",
        machines,
        f"{busiest} {percent(case.utilisation[busiest])}",
        "grows" if case.p99_s is None else seconds(case.p99_s) + "".join(f", {kind} late" for kind in late),
        f"{case.limit_per_s:,.0f}",
        case.bottleneck,
        about(case.nodes_fit),
        times(case.headroom),
    )


def _space(plan: Plan) -> list[tuple[str, str]]:
    space = plan.space
    wal = space.wal_bytes_day + space.wal_pages_bytes_day
    now = "database now, as it is" if plan.fleet.database_bytes else "database once every node is stored"
    if plan.runs is not None and not plan.fleet.database_bytes:
        now += " and the oldest reports are dropped" if plan.runs.report_days else " and a year's reports"
    return [
        ("memory of the engine at this load", size(space.memory_bytes)),
        ("memory of the engine with a full window", size(space.memory_bytes_max)),
        (
            "memory of the writers' PostgreSQL processes, without shared_buffers",
            size(space.postgresql_memory_bytes),
        ),
        (now, size(space.database_bytes)),
        (f"database in a year ({plan.fleet.growth:+.0%} nodes)", size(space.database_bytes_year)),
        *runs_space(plan.runs),
        ("WAL a day", size(wal)),
        ("of it full-page images after checkpoints", size(space.wal_pages_bytes_day)),
        ("network, broker to engine", f"{space.network_in_bytes_s * 8 / 1e6:,.1f} Mbit/s"),
        ("network, engine to PostgreSQL (COPY)", f"{space.network_database_bytes_s * 8 / 1e6:,.2f} Mbit/s"),
    ]


def _basis(plan: Plan) -> list[str]:
    fleet, machine = plan.fleet, plan.machine
    lines = [
        f"The fleet, {fleet.origin}: {percent(fleet.unchanged)} of the catalogs are unchanged, "
        f"{percent(fleet.parameters)} differ in a few parameters, {percent(fleet.upgrade)} after an upgrade of "
        f"modules; {size(fleet.body_bytes)} on average, {fleet.roles} roles.",
        f"Service times measured {plan.calibrated_at} (program {plan.calibration_commit or plan.program}, catalogs: "
        f"{plan.calibration_templates}) on {machine.cores} cores of {machine.cpu}, PostgreSQL {machine.postgresql}, "
        f"Python {machine.python}.",
        "A discrete-event simulation with these times gives throughput and freshness; more cores are taken to be as "
        "fast as the measured ones, with as many workers and half as many writers. Nodes that fit load the engine to "
        f"{percent(LOAD_MAX)} of its limit at most, as far as the model has been compared with it.",
        f"PostgreSQL {'has a machine of its own' if plan.database_apart else 'shares these cores'}; the broker "
        f"{'too' if plan.broker_here else 'and the Puppet servers are elsewhere'}.",
        "Memory, disk and WAL are measured amounts, multiplied. Full-page images depend on checkpoint_timeout, the "
        "size of the indexes and chance; they may be several times more in a large database.",
    ]
    lines += runs_basis(plan) + cluster_report.cluster_basis(plan)
    if plan.calibration_disturbed > DISTURBED:
        lines.append(
            f"During the calibration others used {percent(plan.calibration_disturbed)} of the cores: measure again "
            "on an idle machine."
        )
    return lines


def _stage(name: str) -> str:
    return name if name == "PostgreSQL" else f"the {name}"


def _end(burst: Burst) -> str:
    return "never" if burst.seconds is None else seconds(burst.seconds)
