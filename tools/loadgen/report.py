"""Reads the raw results of a run and says whether everything was stored before its node asked again."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from hdrh.histogram import HdrHistogram

from tools.loadgen.results import About, Ended, Results, Sent

MICROSECONDS = 1_000_000
LONGEST_S = 24 * 3600
DIGITS = 3  # significant ones that the histogram keeps
LATE_S = 1.0  # a generator that is later than this was a limit itself
GROWN_S, GROWN_TIMES = 1.0, 3  # less is chance, or nobody's concern
QUARTER_MIN = 20  # catalogs; of fewer a median says little
BUSY = 0.8  # of a core: more is rarely to be had beside the garbage collector and others' turns
AT_ONCE = ("thundering-herd", "backlog")
PERCENTILES = (50.0, 95.0, 99.0, 100.0)


class Freshness(NamedTuple):
    """From due to queryable, in real seconds, of one kind of message or of change."""

    kind: str
    catalogs: int
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


class Summary(NamedTuple):
    about: About
    ended: Ended | None
    sent: int
    stored: int  # seen as it was sent
    superseded: int  # a newer one of its node stood there when the watcher looked
    unseen: int  # neither: it is lost, or the run ended too early
    in_time: int  # queryable before the node's next run
    judged: int  # sent long enough before the end to be judged
    freshness: list[Freshness]  # all kinds together first
    per_s: float
    mib_per_s: float
    latest_s: float  # how late the generator was at most
    settled_s: float  # until everything was stored, from the start
    entries: list[tuple[Sent, float | None]]  # each message and when it could be queried


def summarise(results: Results) -> Summary:
    """All figures from the raw lines. Raises Misconfigured when the directory holds no run."""
    about = results.about()
    sent = results.sent()
    stored = results.stored()
    ended = results.ended()
    seen = {(entry.what, entry.node, entry.run): entry.seen_s for entry in stored}
    entries = [(entry, seen.get((entry.what, entry.node, entry.run))) for entry in sent]
    end_s = max([ended.watched_s if ended is not None else 0.0, *seen.values(), 0.0])
    # What was due again only after the end of the observation says nothing, unless it was stored.
    judged = [(entry, at) for entry, at in entries if at is not None or entry.next_s <= end_s]
    first_s = min([entry.sent_s for entry in sent], default=0.0)
    last_s = max([entry.sent_s for entry in sent], default=0.0)
    seconds = max(last_s - first_s, 1e-9)
    return Summary(
        about,
        ended,
        len(sent),
        sum(not entry.superseded for entry in stored),
        sum(entry.superseded for entry in stored),
        sum(at is None for _, at in entries) if about.poll_s is not None else 0,
        sum(at is not None and at <= entry.next_s for entry, at in judged),
        len(judged),
        _freshnesses(about, entries),
        len(sent) / seconds,
        sum(entry.bytes for entry in sent) / seconds / 1024**2,
        max([entry.sent_s - max(0.0, entry.due_s) for entry in sent], default=0.0),
        max(seen.values(), default=0.0),
        entries,
    )


def things(about: About) -> str:
    """What was sent, in a word."""
    return "catalogs" if about.kinds == ("catalog",) else "messages"


def _freshnesses(about: About, entries: list[tuple[Sent, float | None]]) -> list[Freshness]:
    """Of all, of each kind where there are several, and of catalogs by how they changed."""
    found = [_freshness("all", entries)]
    if len(about.kinds) > 1:
        found += [_freshness(what, [e for e in entries if e[0].what == what]) for what in about.kinds]
    catalogs = [entry for entry in entries if entry[0].what == "catalog"]
    changes = sorted({entry.kind for entry, _ in catalogs})
    return found + [_freshness(kind, [e for e in catalogs if e[0].kind == kind]) for kind in changes]


def verdict(summary: Summary) -> str:
    """One sentence for a person."""
    if summary.about.poll_s is None:
        return "Nobody watched: say --database to learn when what was sent is stored."
    if not summary.judged:
        return "Nothing was sent that could be judged."
    share = summary.in_time / summary.judged
    which = (
        "all of them" if summary.in_time == summary.judged else f"{summary.judged - summary.in_time} were not"
    )
    return f"{share:.2%} of {summary.judged} {things(summary.about)} were stored before their node's next run: {which}."


def remarks(summary: Summary) -> list[str]:
    """What else a reader must know before believing the figures."""
    found = []
    ended = summary.ended
    if ended is None or ended.interrupted:
        found.append("The run was interrupted; the figures are those until then.")
    waited = [at for entry, at in summary.entries if entry.due_s < 0]
    if waited:
        drained = [at for at in waited if at is not None]
        done = (
            f"the last was stored {seconds(max(drained))} after it"
            if len(drained) == len(waited)
            else "some never were"
        )
        found.append(
            f"{len(waited)} {things(summary.about)} were due before the start, in the outage, and "
            f"cannot all have been in time; {done}."
        )
    if summary.latest_s > LATE_S:
        found.append(_why_late(summary))
    if summary.about.scenario == "steady" and (growth := _growth(summary)) is not None:
        found.append(
            f"Freshness grew while the run went on, from {seconds(growth[0])} to {seconds(growth[1])} (medians of its first "
            "and last quarter): a longer run may not keep up."
        )
    if summary.unseen:
        found.append(
            f"{summary.unseen} {things(summary.about)} were never seen in the database, nor a newer one of their "
            "node: they are lost, "
            "or the run ended too early for them."
        )
    if summary.superseded:
        found.append(
            f"{summary.superseded} {things(summary.about)} were replaced by a newer one of their "
            "node before the watcher saw them."
        )
    if ended is not None and ended.differences is not None:
        found.append(
            f"{ended.compared} nodes compared with what was sent: {ended.differences or 'no'} differences."
        )
    elif ended is not None:
        found.append("The database was not compared with what was sent.")
    if ended is not None and ended.receipted < summary.sent:
        found.append(f"The broker gave a receipt for {ended.receipted} of {summary.sent} messages.")
    return found


def facts(summary: Summary) -> list[tuple[str, str]]:
    """The run in pairs of words."""
    about = summary.about
    mix = ", ".join(f"{kind} {share:.0%}" for kind, share in about.mix.items())
    found = [
        ("scenario", f"{about.scenario}, {about.nodes} nodes every {about.interval_s / 60:g} minutes"),
        (
            "time",
            f"{about.speed:g} times as fast: {about.interval_s / about.speed:.1f} s between two runs of a node",
        ),
        ("changes", mix),
        ("formats", ", ".join(about.formats)),
        (
            "load",
            f"{summary.per_s:.1f} {things(about)}/s, {summary.mib_per_s:.1f} MiB/s, {summary.sent} messages",
        ),
    ]
    if about.poll_s is not None:
        found += [
            ("stored", f"{summary.stored} seen, the last {summary.settled_s:.1f} s after the start"),
            ("precision", f"what is stored is seen up to {about.poll_s * 1000:.0f} ms late"),
        ]
    if summary.ended is not None and summary.ended.send_s:
        cpu_s = summary.ended.generator_cpu_s
        words = f"{cpu_s / summary.ended.send_s:.0%} of one core, {cpu_s * 1000 / max(1, summary.sent):.2f} ms a message"
        found.append(("generator", f"{words}, at most {seconds(summary.latest_s)} late"))
    return found


def _growth(summary: Summary) -> tuple[float, float] | None:
    """Median freshness of the first and the last quarter, where the last is worse beyond chance."""
    delays = [
        at - entry.due_s
        for entry, at in sorted(summary.entries, key=lambda pair: pair[0].due_s)
        if at is not None
    ]
    quarter = len(delays) // 4
    if quarter < QUARTER_MIN:
        return None
    first, last = median(delays[:quarter]), median(delays[-quarter:])
    return (first, last) if last > GROWN_S and last > GROWN_TIMES * first else None


def _why_late(summary: Summary) -> str:
    """A generator that spends its time on the processor is slow itself; one that waits is made to wait."""
    text = f"Messages were sent up to {seconds(summary.latest_s)} after they were due: "
    ended = summary.ended
    if summary.about.scenario in AT_ONCE:
        text += "many were due at once, and went as fast as the broker took them."
    elif ended is None or not ended.send_s:
        text += "the generator, or the broker that it waited for, was itself the limit."
    elif ended.generator_cpu_s / ended.send_s > BUSY:
        text += "the generator was itself the limit, its core was busy."
    else:
        text += "the broker, or whoever else used the cores, made the generator wait; that was the limit."
    return text + " Delay counts from when they were due."


def markdown(summary: Summary) -> str:
    lines = ["# A simulated fleet", "", f"**{verdict(summary)}**", ""]
    lines += [f"- {remark}" for remark in remarks(summary)]
    lines += ["", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts(summary)), ""]
    lines += [
        "Freshness, from due to queryable:",
        "",
        "| kind or change | messages | p50 | p95 | p99 | max |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    for row in summary.freshness:
        times = " | ".join(seconds(value) for value in (row.p50_s, row.p95_s, row.p99_s, row.max_s))
        lines.append(f"| {row.kind} | {row.catalogs} | {times} |")
    return "\n".join(lines) + "\n"


def seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def histogram(values_s: Sequence[float]) -> HdrHistogram:
    """Of times in microseconds; a time over the limit counts as the limit."""
    found = HdrHistogram(1, LONGEST_S * MICROSECONDS, DIGITS)
    for value in values_s:
        found.record_value(max(1, min(int(value * MICROSECONDS), LONGEST_S * MICROSECONDS)))
    return found


def _freshness(kind: str, entries: Sequence[tuple[Sent, float | None]]) -> Freshness:
    found = histogram([at - entry.due_s for entry, at in entries if at is not None])
    values: list[Any] = [found.get_value_at_percentile(p) / MICROSECONDS for p in PERCENTILES]
    return Freshness(kind, found.get_total_count(), *values)
