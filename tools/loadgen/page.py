"""The report of a run as one HTML file with pictures that needs nothing else."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

import jinja2
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

import ingest.capacity
from ingest.capacity.pictures import FIRST, INK, MARK, SECOND, figure, svg
from tools.loadgen.report import MICROSECONDS, Summary, facts, histogram, remarks, seconds, verdict

STEPS = 200  # points of a curve over time
STYLE = Path(ingest.capacity.__file__).parent / "pages" / "style.css"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>A simulated fleet</title><style>{{ style | safe }}</style></head>
<body><h1>A simulated fleet: {{ about.nodes }} nodes, {{ about.scenario }}</h1>
<p class="lead {{ 'good' if good else 'bad' }}">{{ verdict }}</p>
{% for remark in remarks %}<p>{{ remark }}</p>
{% endfor %}
<dl class="cards">{% for name, value in cards %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>{% endfor %}</dl>
<section><h2>Not stored yet</h2><p>Catalogs that were due and could not be queried, over the time of the run.</p>
<figure>{{ waiting | safe }}</figure></section>
{% if over_time %}<section><h2>Freshness over time</h2><p>From due to queryable, by the time at which a message was due.</p>
<figure>{{ over_time | safe }}</figure></section>{% endif %}
{% if percentiles %}<section><h2>Freshness by percentile</h2>
<figure>{{ percentiles | safe }}</figure>
<div class="scroll"><table>
<thead><tr><th>kind or change</th><th>messages</th><th>p50</th><th>p95</th><th>p99</th><th>max</th></tr></thead>
<tbody>{% for row in rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table></div></section>{% endif %}
<section><h2>The run</h2><table><tbody>{% for name, value in facts %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}
</tbody></table></section>
<footer>Made from the raw results of {{ about.at }}.</footer></body></html>
"""


def page(summary: Summary) -> str:
    """HTML, its pictures and its style within."""
    everything = summary.freshness[0]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_PAGE).render(
        style=STYLE.read_text(encoding="utf-8"),
        about=summary.about,
        good=0 < summary.in_time == summary.judged and not summary.unseen,
        verdict=verdict(summary),
        remarks=remarks(summary),
        cards=[
            ("stored in time", f"{summary.in_time / max(1, summary.judged):.2%}"),
            ("freshness, p50", seconds(everything.p50_s)),
            ("freshness, p99", seconds(everything.p99_s)),
            ("slowest", seconds(everything.max_s)),
            ("load", f"{summary.per_s:.1f}/s"),
            ("bodies", f"{summary.mib_per_s:.0f} MiB/s"),
        ],
        waiting=_waiting(summary),
        over_time=_over_time(summary) if everything.catalogs else "",
        percentiles=_percentiles(summary) if everything.catalogs else "",
        rows=[
            (row.kind, row.catalogs, *map(seconds, (row.p50_s, row.p95_s, row.p99_s, row.max_s)))
            for row in summary.freshness
        ],
        facts=facts(summary),
    )


def _waiting(summary: Summary) -> str:
    due = sorted(max(0.0, entry.due_s) for entry, _ in summary.entries)
    sent = sorted(entry.sent_s for entry, _ in summary.entries)
    stored = sorted(at for _, at in summary.entries if at is not None)
    end_s = max([1.0, *sent, *stored])
    times = [end_s * step / STEPS for step in range(STEPS + 1)]
    with figure(7.4, 3.0) as (drawn, axis):
        waiting = [bisect_right(due, at) - bisect_right(stored, at) for at in times]
        unsent = [bisect_right(due, at) - bisect_right(sent, at) for at in times]
        axis.fill_between(times, waiting, color=FIRST, alpha=0.25, linewidth=0)
        axis.plot(times, waiting, color=FIRST, linewidth=2, label="due, not stored")
        axis.plot(times, unsent, color=SECOND, linewidth=1.4, label="of these not sent")
        axis.set_xlabel("seconds of the run")
        axis.set_ylabel("messages")
        axis.set_ylim(bottom=0)
        axis.set_xlim(0, end_s)
        axis.legend()
        return svg(drawn, "waiting", "messages that were due and not stored, over time")


def _over_time(summary: Summary) -> str:
    points = sorted(
        (max(0.0, entry.due_s), at - entry.due_s) for entry, at in summary.entries if at is not None
    )
    size = max(10, len(points) // 60)  # fewer have no percentiles to speak of
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    with figure(7.4, 3.0) as (drawn, axis):
        middles = [group[len(group) // 2][0] for group in groups]
        for share, colour, name in ((0.5, SECOND, "p50"), (0.99, FIRST, "p99")):
            values = [sorted(delay for _, delay in group)[int((len(group) - 1) * share)] for group in groups]
            axis.plot(middles, values, color=colour, linewidth=2, label=name)
        axis.axhline(
            summary.about.interval_s / summary.about.speed, color=MARK, linestyle="--", label="the next run"
        )
        _seconds_axis(axis.yaxis, axis.set_yscale)
        axis.set_xlabel("seconds of the run")
        axis.set_ylabel("freshness")
        axis.legend()
        return svg(drawn, "over_time", "freshness over the time of the run")


def _percentiles(summary: Summary) -> str:
    """The usual picture of an HDR histogram: each nine as far from the last one as that from the one before."""
    found = histogram([at - entry.due_s for entry, at in summary.entries if at is not None])
    nines = [1.0, 2.0, *accumulate([4.0] * 9, lambda a, _: a * 2.5)]
    nines = [nine for nine in nines if nine <= max(2.0, found.get_total_count())]
    with figure(7.4, 3.0) as (drawn, axis):
        values = [found.get_value_at_percentile(100 * (1 - 1 / nine)) / MICROSECONDS for nine in nines]
        axis.plot(nines, values, color=FIRST, linewidth=2, marker="o", markersize=3)
        axis.set_xscale("log")
        axis.set_xticks([2, 10, 100, 1000, 10_000][: sum(nines[-1] >= t for t in (1, 10, 100, 1000, 10_000))])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * (1 - 1 / value):g} %"))
        axis.xaxis.set_minor_locator(NullLocator())
        _seconds_axis(axis.yaxis, axis.set_yscale)
        axis.set_xlabel("percentile of the messages")
        axis.set_ylabel("freshness")
        axis.tick_params(colors=INK)
        return svg(drawn, "percentiles", "freshness by percentile")


def _seconds_axis(axis: object, set_scale: object) -> None:
    set_scale("log")  # type: ignore[operator]
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))  # type: ignore[attr-defined]
    axis.set_minor_locator(NullLocator())  # type: ignore[attr-defined]
    axis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))  # type: ignore[attr-defined]
