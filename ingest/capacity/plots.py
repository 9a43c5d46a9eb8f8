"""The pictures of a capacity report."""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ingest.capacity.pictures import FIRST, INK, MARK, SECOND, figure, seconds, svg
from ingest.capacity.planned import Burst, Case, Curve, Plan
from ingest.capacity.run_report import things
from ingest.capacity.words import about


def plots(plan: Plan) -> dict[str, str]:
    """Name -> an ``<svg>`` element."""
    return {
        "freshness": _freshness(plan.curve, plan.base, plan.target_s),
        "stages": _stages(plan.base),
        "outage": _burst("outage", plan.outage, "the backlog after an outage, over time"),
        "deploy": _burst(
            "deploy", plan.deploy, f"{things(plan.fleet)} of a fleet-wide deploy not stored yet, over time"
        ),
        "what_if": _what_if(plan),
    }


def _freshness(curve: Curve, base: Case, target_s: float) -> str:
    with figure(7.4, 3.6) as (drawn, axis):
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.plot(curve.nodes, curve.p99_s, color=FIRST, linewidth=2, label="p99", marker="o", markersize=3)
        axis.plot(
            curve.nodes, curve.p50_s, color=SECOND, linewidth=2, label="median", marker="o", markersize=3
        )
        axis.axvline(base.nodes, color=MARK, linestyle="--", linewidth=1.4, label=f"planned: {base.nodes:,}")
        if target_s < 20 * max(curve.p99_s):
            axis.axhline(
                target_s, color=INK, linestyle=":", linewidth=1.2, label=f"target: {seconds(target_s)}"
            )
        axis.set_xlabel("nodes")
        axis.set_ylabel("freshness")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
        axis.legend()
        return svg(drawn, "freshness", "median and p99 freshness by the number of nodes")


def _stages(base: Case) -> str:
    names = list(base.utilisation)
    with figure(7.4, 0.9 + 0.55 * len(names)) as (drawn, axis):
        places = range(len(names))
        now = [base.utilisation[name] * 100 for name in names]
        limit = [base.utilisation_at_limit[name] * 100 for name in names]
        axis.barh([p + 0.19 for p in places], limit, height=0.34, color=SECOND, label="at the limit")
        axis.barh([p - 0.19 for p in places], now, height=0.34, color=FIRST, label="at the planned load")
        for place, value in zip(places, now, strict=True):
            axis.text(value + 1, place - 0.19, f"{value:.1f} %", va="center", fontsize=9)
        axis.set_yticks(list(places), names)
        axis.invert_yaxis()
        axis.set_xlim(0, max(105.0, *(value + 12 for value in now)))
        axis.set_xlabel("busy, %")
        axis.grid(visible=False, axis="y")
        drawn.legend(loc="outside upper right", ncols=2)
        return svg(drawn, "stages", "how busy each stage is, at the planned load and at the limit")


def _burst(name: str, burst: Burst, what: str) -> str:
    with figure(7.4, 2.8) as (drawn, axis):
        axis.fill_between(burst.times_s, burst.waiting, color=FIRST, alpha=0.25, linewidth=0)
        axis.plot(burst.times_s, burst.waiting, color=FIRST, linewidth=2)
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.set_ylabel("not stored yet")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        return svg(drawn, name, what)


def _what_if(plan: Plan) -> str:
    cases = [plan.base, *plan.what_if]
    with figure(7.4, 0.9 + 0.42 * len(cases)) as (drawn, axis):
        places = list(range(len(cases)))
        axis.barh(
            places,
            [max(1, case.nodes_fit) for case in cases],
            height=0.55,
            color=SECOND,
            label="nodes that fit",
        )
        axis.plot(
            [case.nodes for case in cases], places, "D", color=MARK, markersize=6, label="nodes planned"
        )
        for place, case in zip(places, cases, strict=True):
            axis.text(max(1, case.nodes_fit) * 1.08, place, about(case.nodes_fit), va="center", fontsize=9)
        axis.set_xscale("log")
        axis.set_yticks(places, [case.name for case in cases])
        axis.invert_yaxis()
        axis.set_xlim(right=3.5 * max(max(case.nodes_fit, case.nodes) for case in cases))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.grid(visible=False, axis="y")
        drawn.legend(loc="outside upper right", ncols=2)
        return svg(drawn, "what_if", "nodes that fit under other conditions")
