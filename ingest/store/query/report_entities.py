"""The entities that come from reports: reports, their events, logs and metrics, and what catalogs were compiled from."""

from __future__ import annotations

from ingest.store.query.catalog_entities import BY_CERTNAME, BY_ENVIRONMENT, BY_PRODUCER
from ingest.store.query.entity import Entity, EntityField, Relation, Type, always

_HREF = "'/pdb/query/v4/reports/' || r.hash || '/{0}'"


def _embedded(name: str) -> EntityField:
    """A part of a report as ``{data, href}``."""
    href = _HREF.format({"resource_events": "events"}.get(name, name))
    return EntityField(f"json_build_object('data', r.{name}, 'href', {href})", Type.JSON, queryable=False)


def _texts(alias: str, *names: str) -> dict[str, EntityField]:
    return {name: EntityField(f"{alias}.{name}") for name in names}


def _times(alias: str, *names: str) -> dict[str, EntityField]:
    return {name: EntityField(f"{alias}.{name}", Type.TIMESTAMP) for name in names}


def _flags(alias: str, *names: str) -> dict[str, EntityField]:
    return {name: EntityField(f"{alias}.{name}", Type.BOOLEAN) for name in names}


REPORTS = Entity(
    "reports",
    {
        **_texts(
            "r", "hash", "certname", "puppet_version", "configuration_version", "producer", "transaction_uuid",
            "catalog_uuid", "code_id", "job_id", "cached_catalog_status", "environment", "status", "type",
        ),
        **_times("r", "start_time", "end_time", "producer_timestamp", "receive_time"),
        **_flags("r", "noop", "noop_pending", "corrective_change"),
        "report_format": EntityField("r.report_format", Type.NUMERIC),
        "latest_report?": EntityField("r.hash", Type.BOOLEAN, projectable=False),
        "resource_events": _embedded("resource_events"),
        "metrics": _embedded("metrics"),
        "logs": _embedded("logs"),
    },
    always("from_reports"),
    BY_CERTNAME | BY_ENVIRONMENT | BY_PRODUCER | {"events": Relation(("hash",), ("report",))},
    latest="(r.hash IN (SELECT NULL::text))",
    has_kinds=True,
)  # fmt: skip


def _part_of_report(name: str) -> Entity:
    """The only column of the only row of /reports/HASH/logs and /metrics."""
    fields = {
        name: EntityField(f"r.{name}", Type.JSON, queryable=False),
        "hash": EntityField("r.hash", projectable=False),
        "type": EntityField("r.type", projectable=False),
    }
    return Entity(f"report_{name}", fields, always("from_reports"), has_kinds=True)


EVENTS = Entity(
    "events",
    {
        **_texts(
            "ev", "certname", "configuration_version", "report", "status", "resource_type", "resource_title", "property",
            "message", "file", "containing_class", "environment", "name",
        ),
        **_times("ev", "run_start_time", "run_end_time", "report_receive_time", "timestamp"),
        "corrective_change": EntityField("ev.corrective_change", Type.BOOLEAN),
        "new_value": EntityField("ev.new_value", Type.SCALAR),
        "old_value": EntityField("ev.old_value", Type.SCALAR),
        "line": EntityField("ev.line", Type.NUMERIC),
        "containment_path": EntityField("ev.containment_path", Type.ARRAY),
        "latest_report?": EntityField("ev.report", Type.BOOLEAN, projectable=False),
    },
    always("from_events"),
    BY_CERTNAME | BY_ENVIRONMENT | {"reports": Relation(("report",), ("hash",))},
    latest="(ev.report IN (SELECT NULL::text))",
)  # fmt: skip
# The newest event of each resource's property, within a time; the condition of a query is looked for in those.
DISTINCT_EVENTS = EVENTS._replace(source=always("from_distinct_events"))

CATALOG_INPUTS = Entity(
    "catalog_inputs",
    {
        **_texts("ci", "certname", "catalog_uuid"),
        **_times("ci", "producer_timestamp"),
        "inputs": EntityField("ci.inputs", Type.JSON, queryable=False),
    },
    always("from_catalog_inputs"),
    BY_CERTNAME,
)
CATALOG_INPUT_CONTENTS = Entity(
    "catalog_input_contents",
    {**_texts("ci", "certname", "catalog_uuid", "type", "name"), **_times("ci", "producer_timestamp")},
    always("from_catalog_input_contents"),
    BY_CERTNAME,
)

REPORT_ENTITIES = (
    REPORTS, EVENTS, _part_of_report("logs"), _part_of_report("metrics"), CATALOG_INPUTS, CATALOG_INPUT_CONTENTS,
)  # fmt: skip
