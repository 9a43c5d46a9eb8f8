"""Counts of events: by node, resource or class (event-counts), and how many of those had any (aggregate-event-counts)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.core.query import ast
from ingest.core.query.reading import read_filter
from ingest.store.query import values
from ingest.store.query.columns import Shown
from ingest.store.query.compiling import Compiled, Compiler
from ingest.store.query.entity import Entity, EntityField, Type, always
from ingest.store.query.report_entities import DISTINCT_EVENTS, EVENTS

GROUPS = {
    "certname": ("certname",),
    "containing_class": ("containing_class",),
    "resource": ("resource_type", "resource_title"),
}
GROUPS_MAX = 10  # there are three
COUNTS = {"failures": "failure", "skips": "skipped", "successes": "success", "noops": "noop"}
NEEDED = ("certname", "status", "containing_class", "resource_type", "resource_title")
START, END = "%(distinct_start)s", "%(distinct_end)s"


def compile_event_counts(query: ast.Query, asked: Mapping[str, Any], node_purge_ttl_s: float) -> Compiled:
    """Raises BadQuery."""
    compiler = Compiler(node_purge_ttl_s)
    group = str(asked["summarize_by"])
    counted = _counted(compiler, query, asked, group)
    paging = compiler.paging(_entity_of_counts(group), query)
    subject = (
        "json_build_object('type', counted.resource_type, 'title', counted.resource_title)"
        if group == "resource"
        else f"json_build_object('title', counted.{group})"
    )
    shown = ", ".join(f"'{name}', counted.{name}" for name in COUNTS)
    row = f"json_build_object({shown}, 'subject_type', {compiler.parameters.text(group)}, 'subject', {subject})::text"
    return Compiled(
        f"SELECT {row} FROM (SELECT * FROM ({counted}) AS counted{paging}) AS counted",
        f"SELECT count(*) FROM ({counted}) AS counted",
        compiler.parameters.values,
    )


def compile_aggregate(query: ast.Query, asked: Mapping[str, Any], node_purge_ttl_s: float) -> Compiled:
    """The same for each of several groups, in one row each. Raises BadQuery."""
    compiler = Compiler(node_purge_ttl_s)
    groups = str(asked["summarize_by"]).split(",")
    if len(groups) > GROUPS_MAX:
        raise ast.BadQuery(f"'summarize_by' has more than {GROUPS_MAX} values")
    parts = []
    for group in groups:
        counted = _counted(compiler, query, asked, group)
        shown = ", ".join(f"'{name}', count(*) FILTER (WHERE counted.{name} > 0)" for name in COUNTS)
        parts.append(
            f"SELECT json_build_object('summarize_by', {compiler.parameters.text(group)}, {shown}, 'total', count(*))::text"
            f" FROM ({counted}) AS counted"
        )
    rows = " UNION ALL ".join(parts)
    return Compiled(rows, f"SELECT count(*) FROM ({rows}) AS found", compiler.parameters.values)


def _counted(compiler: Compiler, query: ast.Query, asked: Mapping[str, Any], group: str) -> str:
    if group not in GROUPS:
        raise ast.BadQuery(f"Unsupported value for 'summarize_by': '{group[:200]}'")
    count_by = asked.get("count_by") or "resource"
    if count_by not in ("resource", "certname"):
        raise ast.BadQuery(f"Unsupported value for 'count_by': '{str(count_by)[:200]}'")
    if query.columns is not None or query.group_by:
        raise ast.BadQuery("counts of events are of whole events: extract is not understood here")
    fields = GROUPS[group]
    events = _events(compiler, query, asked)
    columns = ", ".join(f"event.c{NEEDED.index(name)} AS {name}" for name in NEEDED)
    if count_by == "certname":
        wanted = ", ".join(dict.fromkeys(("certname", "status", *fields)))
        events = f"SELECT DISTINCT {wanted} FROM (SELECT {columns} FROM ({events}) AS event) AS event"
    else:
        events = f"SELECT {columns} FROM ({events}) AS event"
    sums = ", ".join(
        f"count(*) FILTER (WHERE event.status = '{status}') AS {name}" for name, status in COUNTS.items()
    )
    grouped = ", ".join(f"event.{name}" for name in fields)
    counted = f"SELECT {grouped}, {sums} FROM ({events}) AS event GROUP BY {grouped}"
    wanted_counts = read_filter(asked.get("counts_filter")).where
    condition = compiler.condition(_entity_of_counts(group, filters=True), wanted_counts)
    return counted if condition is None else f"SELECT * FROM ({counted}) AS counted WHERE {condition}"


def _events(compiler: Compiler, query: ast.Query, asked: Mapping[str, Any]) -> str:
    entity, shown = EVENTS, [Shown(name, EVENTS.fields[name].sql, Type.STRING) for name in NEEDED]
    if not asked.get("distinct_resources"):
        return compiler.select(entity, query, shown)
    return between(compiler, compiler.select(DISTINCT_EVENTS, query, shown), asked)


def between(compiler: Compiler, sql: str, asked: Mapping[str, Any]) -> str:
    """Puts the times of ``distinct_resources`` where the statement wants them. Raises BadQuery."""
    times = [asked.get(name) for name in ("distinct_start_time", "distinct_end_time")]
    for placeholder, given in zip((START, END), times, strict=True):
        sql = sql.replace(placeholder, compiler.parameters.add(values.timestamp(given), "timestamptz"))
    return sql


def _entity_of_counts(group: str, *, filters: bool = False) -> Entity:
    """What counts_filter and order_by may name."""
    fields = {name: EntityField(f"counted.{name}", Type.NUMERIC) for name in COUNTS}
    if not filters:
        fields |= {name: EntityField(f"counted.{name}") for name in GROUPS[group]}
    return Entity("event_counts", fields, always("from_events"))


def compile_distinct_events(query: ast.Query, asked: Mapping[str, Any], node_purge_ttl_s: float) -> Compiled:
    """/events with ``distinct_resources``. Raises BadQuery."""
    compiler = Compiler(node_purge_ttl_s)
    compiled = compiler.compile(DISTINCT_EVENTS, query)
    return Compiled(
        between(compiler, compiled.rows, asked),
        between(compiler, compiled.total, asked),
        compiler.parameters.values,
    )
