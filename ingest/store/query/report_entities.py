"""The entities that come from reports: reports, their events, logs and metrics, and what catalogs were compiled from."""

from __future__ import annotations

from ingest.store.query.catalog_entities import BY_CERTNAME, BY_ENVIRONMENT, BY_PRODUCER
from ingest.store.query.entity import (
    OF_NODES,
    Entity,
    EntityField,
    Relation,
    Type,
    always,
    embedded,
    subselect,
)

_HREF = "'/pdb/query/v4/reports/' || encode(r.hash, 'hex') || '/{0}'"


def _data(statement: str, **columns: str) -> str:
    """A part of a report as the text of its JSON."""
    return f"coalesce({subselect(statement, **columns)}::text, 'null')"


_DATA = {
    "events": _data(
        "report_events_json",
        start_time="r.start_time",
        event_ids="r.event_ids",
        event_offsets="r.event_offsets",
    ),
    "logs": _data(
        "report_logs_json", start_time="r.start_time", log_ids="r.log_ids", log_offsets="r.log_offsets"
    ),
    "metrics": _data(
        "report_metrics_json", metrics="r.metrics", metrics_exact="r.metrics_exact", shape_id="r.shape_id"
    ),
}
# By the time that the report is stored under, so that days without any are not looked at.
_LATEST = (
    "((r.node_id, r.producer_timestamp, r.hash) IN"
    " (SELECT l.node_id, l.producer_timestamp, l.hash FROM node_latest_reports l))"
)
_TYPE = EntityField("CASE WHEN h.is_plan THEN 'plan' ELSE 'agent' END")


def _embedded(name: str) -> EntityField:
    """A part of a report as ``{data, href}``."""
    return embedded(_DATA[name], _HREF.format(name))


def _texts(alias: str, *names: str) -> dict[str, EntityField]:
    return {name: EntityField(f"{alias}.{name}") for name in names}


def _flags(alias: str, *names: str) -> dict[str, EntityField]:
    return {name: EntityField(f"{alias}.{name}", Type.BOOLEAN) for name in names}


def _time(sql: str, shown: str | None = None) -> EntityField:
    return EntityField(sql, Type.TIMESTAMP, shown=shown)


REPORTS = Entity(
    "reports",
    {
        "hash": EntityField("r.hash", Type.HASH),
        "certname": EntityField("n.certname"),
        **_texts("r", "configuration_version", "code_id", "job_id"),
        **_texts("h", "puppet_version", "producer", "cached_catalog_status", "environment", "status"),
        "type": _TYPE,
        "transaction_uuid": EntityField("r.transaction_uuid::text"),
        "catalog_uuid": EntityField("r.catalog_uuid::text"),
        "start_time": _time("r.start_time"),
        "end_time": _time("r.end_time"),
        # Compared by the time that was believed, which says in which partition it is.
        "producer_timestamp": _time("r.producer_timestamp", "coalesce(r.said_at, r.producer_timestamp)"),
        "receive_time": _time("r.received_at"),
        **_flags("h", "noop", "noop_pending", "corrective_change"),
        "report_format": EntityField("h.report_format", Type.NUMERIC),
        "latest_report?": EntityField("r.hash", Type.BOOLEAN, projectable=False),
        "resource_events": _embedded("events"),
        "metrics": _embedded("metrics"),
        "logs": _embedded("logs"),
    },
    always("from_reports"),
    BY_CERTNAME | BY_ENVIRONMENT | BY_PRODUCER | {"events": Relation(("hash",), ("report",))},
    OF_NODES,
    latest=_LATEST,
    has_kinds=True,
    has_large_rows=True,
)


def _part_of_report(name: str) -> Entity:
    """The only column of the only row of /reports/HASH/logs and /metrics."""
    fields = {
        name: EntityField(f"{_DATA[name]}::json", Type.JSON, queryable=False, json=_DATA[name]),
        "hash": EntityField("r.hash", Type.HASH, projectable=False),
        "type": _TYPE._replace(projectable=False),
    }
    return Entity(
        f"report_{name}", fields, always("from_reports"), has_kinds=True, has_large_rows=True, bare=name
    )


EVENTS = Entity(
    "events",
    {
        "certname": EntityField("n.certname"),
        "report": EntityField("r.hash", Type.HASH),
        "configuration_version": EntityField("r.configuration_version"),
        "environment": EntityField("h.environment"),
        **_texts(
            "ev",
            "status",
            "resource_type",
            "resource_title",
            "property",
            "message",
            "file",
            "containing_class",
            "name",
        ),
        "run_start_time": _time("r.start_time"),
        "run_end_time": _time("r.end_time"),
        "report_receive_time": _time("r.received_at"),
        "timestamp": _time("(r.start_time + o.microseconds * interval '1 microsecond')"),
        "corrective_change": EntityField("ev.corrective_change", Type.BOOLEAN),
        "new_value": EntityField("coalesce(ev.new_value, 'null')::jsonb", Type.ENCODED),
        "old_value": EntityField("coalesce(ev.old_value, 'null')::jsonb", Type.ENCODED),
        "line": EntityField("ev.line", Type.NUMERIC),
        "containment_path": EntityField("ev.containment_path", Type.ARRAY),
        "latest_report?": EntityField("r.hash", Type.BOOLEAN, projectable=False),
    },
    always("from_events"),
    BY_CERTNAME | BY_ENVIRONMENT | {"reports": Relation(("report",), ("hash",))},
    OF_NODES,
    latest=_LATEST,
)
# The newest event of each resource's property, within a time; the condition of a query is looked for in those.
DISTINCT_EVENTS = EVENTS._replace(source=always("from_distinct_events"))

_INPUTS = subselect("catalog_inputs_json", types="i.types", names="i.names")
CATALOG_INPUTS = Entity(
    "catalog_inputs",
    {
        "certname": EntityField("n.certname"),
        "catalog_uuid": EntityField("i.catalog_uuid::text"),
        "producer_timestamp": _time("i.producer_timestamp"),
        "inputs": EntityField(_INPUTS, Type.JSON, queryable=False),
    },
    always("from_catalog_inputs"),
    BY_CERTNAME,
    OF_NODES,
    has_large_rows=True,
)
CATALOG_INPUT_CONTENTS = Entity(
    "catalog_input_contents",
    {
        **_texts("i", "certname", "type", "name"),
        "catalog_uuid": EntityField("i.catalog_uuid::text"),
        "producer_timestamp": _time("i.producer_timestamp"),
    },
    always("from_catalog_input_contents"),
    BY_CERTNAME,
    {state: sql.replace("n.", "i.") for state, sql in OF_NODES.items()},
)

REPORT_ENTITIES = (
    REPORTS, EVENTS, _part_of_report("logs"), _part_of_report("metrics"), CATALOG_INPUTS, CATALOG_INPUT_CONTENTS,
)  # fmt: skip
