"""The entities that come from catalogs: nodes, catalogs, resources, edges, environments, producers."""

from __future__ import annotations

from ingest.core.query import ast
from ingest.store.query.entity import (
    OF_NODES,
    Entity,
    EntityField,
    Relation,
    Source,
    Type,
    always,
    embedded,
    subselect,
)

_SAME = ("certname",)
BY_CERTNAME = {
    name: Relation(_SAME, _SAME)
    for name in (
        "factsets", "reports", "package_inventory", "inventory", "catalogs", "catalog_inputs", "catalog_input_contents",
        "nodes", "facts", "fact_contents", "events", "edges", "resources",
    )
}  # fmt: skip
BY_ENVIRONMENT = {"environments": Relation(("environment",), ("name",))}
BY_PRODUCER = {"producers": Relation(("producer",), ("name",))}

_CERTNAME = EntityField("n.certname")
_ENVIRONMENT = EntityField("e.name")


def _time(sql: str) -> EntityField:
    return EntityField(sql, Type.TIMESTAMP)


NODES = Entity(
    "nodes",
    {
        "certname": _CERTNAME,
        "deactivated": _time("n.deactivated"),
        "expired": _time("n.expired"),
        "catalog_timestamp": _time("c.received_at"),
        "catalog_environment": _ENVIRONMENT,
        "facts_timestamp": _time("f.received_at"),
        "facts_environment": EntityField("fe.name"),
        "report_timestamp": _time("l.end_time"),
        "report_environment": EntityField("l.environment"),
        "latest_report_hash": EntityField("l.hash", Type.HASH),
        "latest_report_noop": EntityField("l.noop", Type.BOOLEAN),
        "latest_report_noop_pending": EntityField("l.noop_pending", Type.BOOLEAN),
        "latest_report_status": EntityField("l.status"),
        "latest_report_corrective_change": EntityField("l.corrective_change", Type.BOOLEAN),
        "latest_report_job_id": EntityField("l.job_id"),
        "cached_catalog_status": EntityField("l.cached_catalog_status"),
    },
    always("from_nodes"),
    BY_CERTNAME,
    OF_NODES,
)

# With include_facts_expiration.
NODES_WITH_EXPIRATION = NODES._replace(
    name="nodes_with_expiration",
    fields={
        **NODES.fields,
        "expires_facts": EntityField("coalesce(x.expires, true)", Type.BOOLEAN),
        "expires_facts_updated": _time("x.producer_timestamp"),
    },
    source=always("from_nodes_with_expiration"),
)


def _part(name: str, href: str) -> EntityField:
    """A part of a catalog as ``{data, href}``, for the nodes n and catalogs c of a row."""
    text = subselect(name, node_id="n.id", position_set_id="c.position_set_id", edge_set_id="c.edge_set_id")
    return embedded(text, f"'/pdb/query/v4/catalogs/' || n.certname || '/{href}'")


CATALOGS = Entity(
    "catalogs",
    {
        "certname": _CERTNAME,
        "version": EntityField("c.version"),
        "hash": EntityField("encode(c.content_digest, 'hex')"),
        "transaction_uuid": EntityField("c.transaction_uuid::text"),
        "catalog_uuid": EntityField("c.catalog_uuid::text"),
        "code_id": EntityField("c.code_id"),
        "job_id": EntityField("c.job_id"),
        "environment": _ENVIRONMENT,
        "producer_timestamp": _time("c.producer_timestamp"),
        "producer": EntityField("pr.name"),
        "resources": _part("catalog_resources_json", "resources"),
        "edges": _part("catalog_edges_json", "edges"),
    },
    always("from_catalogs"),
    BY_CERTNAME | BY_ENVIRONMENT | BY_PRODUCER,
    OF_NODES,
    has_large_rows=True,
)

# What a resource has whatever node it is on: conditions on these need no node.
CONTENT = frozenset({"type", "title", "exported", "tag", "tags", "parameters", "resource"})


_OF_EXPORTED = (("p", "join_position"), ("texts", "join_exported_text"))


def _resources_source(where: ast.Node | None) -> Source:
    parts = conjuncts(where)
    if any(map(names_nodes, parts)):
        return Source("from_resources")
    content = tuple(part for part in parts if _is_content(part))
    if any(map(_is_exported, parts)):
        return Source("from_resources_exported", ast.And(content), joins=_OF_EXPORTED)
    return Source("from_resources_by_content", ast.And(content)) if content else Source("from_resources")


def _is_exported(part: ast.Node) -> bool:
    return (
        isinstance(part, ast.Compare) and part.op == "=" and _name(part) == "exported" and part.value is True
    )


def conjuncts(where: ast.Node | None) -> list[ast.Node]:
    if where is None:
        return []
    return [one for part in where.parts for one in conjuncts(part)] if isinstance(where, ast.And) else [where]


def _name(part: ast.Compare | ast.InArray) -> str:
    return part.subject.name if isinstance(part.subject, ast.Field) else ""


def names_nodes(part: ast.Node) -> bool:
    """Few of them: ["=", "certname", ...] or a list. A subquery is no more than a list in the middle of a statement."""
    return (isinstance(part, ast.Compare) and part.op == "=" and _name(part) == "certname") or (
        isinstance(part, ast.InArray) and _name(part) == "certname"
    )


def _is_content(part: ast.Node) -> bool:
    match part:
        case ast.And(parts) | ast.Or(parts):
            return all(map(_is_content, parts))
        case ast.Not(inner):
            return _is_content(inner)
        case ast.Compare(_, ast.Pair(kind="parameter")):
            return True
        case ast.Compare() | ast.InArray():
            return _name(part) in CONTENT
        case ast.IsNull(field):
            return field.name in CONTENT
        case ast.InQuery(fields):
            return all(field.name in CONTENT for field in fields)
        case _:
            return False


_TAG_NAMES = 'ARRAY(SELECT t.name FROM tags t WHERE t.id = ANY (r.tag_ids) ORDER BY t.name COLLATE "C")'

RESOURCES = Entity(
    "resources",
    {
        "certname": _CERTNAME,
        "environment": _ENVIRONMENT,
        "resource": EntityField("encode(r.digest, 'hex')"),
        "type": EntityField("r.type"),
        "title": EntityField("r.title"),
        "tag": EntityField("r.tag_ids", Type.TAGS, projectable=False),
        "tags": EntityField(
            "r.tag_ids",
            Type.TAGS,
            shown=_TAG_NAMES,
            json=f"coalesce(texts.tags, to_json({_TAG_NAMES})::text)",
        ),
        "exported": EntityField("r.exported", Type.BOOLEAN),
        "file": EntityField("p.file"),
        "line": EntityField("p.line", Type.NUMERIC),
        "parameters": EntityField(
            "r.parameters", Type.DOCUMENT, json="coalesce(texts.parameters, r.parameters::text)"
        ),
    },
    _resources_source,
    {
        "catalogs": Relation(_SAME, _SAME),
        "nodes": Relation(_SAME, _SAME),
        **BY_ENVIRONMENT,
    },
    OF_NODES,
)

RESOURCES_COUNTED = RESOURCES._replace(
    fields={"certname": _CERTNAME, "environment": _ENVIRONMENT},
    source=always("from_resources_counted"),
    counting="coalesce(sum(cardinality(cr.resource_ids)), 0)",
)


def are_only_counted(query: ast.Query) -> bool:
    """Whether a query for resources asks for nothing of any of them."""
    columns = query.columns or ()
    return (
        any(map(_is_count, columns))
        and all(_is_count(one) or _is_of_node(one) for one in (*columns, *query.group_by))
        and all(order.field in RESOURCES_COUNTED.fields for order in query.order_by)
        and all(map(_is_about_nodes, conjuncts(query.where)))
    )


def _is_count(column: ast.Column) -> bool:
    return isinstance(column, ast.Function) and column.name == "count" and column.field is None


def _is_of_node(column: ast.Column | ast.Pair) -> bool:
    return isinstance(column, ast.Field) and column.text in RESOURCES_COUNTED.fields


def _is_about_nodes(part: ast.Node) -> bool:
    match part:
        case ast.And(parts) | ast.Or(parts):
            return all(map(_is_about_nodes, parts))
        case ast.Not(inner):
            return _is_about_nodes(inner)
        case ast.Compare("=" | "~", subject) | ast.InArray(subject):
            return ast.is_node_state(part) or (not isinstance(subject, ast.Function) and _is_of_node(subject))
    return False


EDGES = Entity(
    "edges",
    {
        "certname": _CERTNAME,
        "relationship": EntityField("relationship_name(d.relationship)"),
        "source_title": EntityField("s.title"),
        "source_type": EntityField("s.type"),
        "target_title": EntityField("t.title"),
        "target_type": EntityField("t.type"),
    },
    always("from_edges"),
    BY_CERTNAME,
    OF_NODES,
)

_IN_ENVIRONMENT = Relation(("name",), ("environment",))
ENVIRONMENTS = Entity(
    "environments",
    {"name": EntityField("e.name")},
    always("from_environments"),
    dict.fromkeys(
        ("inventory", "factsets", "catalogs", "reports", "facts", "fact_contents", "events", "resources"),
        _IN_ENVIRONMENT,
    ),
)

PRODUCERS = Entity(
    "producers",
    {"name": EntityField("pr.name")},
    always("from_producers"),
    {name: Relation(("name",), ("producer",)) for name in ("factsets", "catalogs", "reports")},
)

CATALOG_ENTITIES = (NODES, NODES_WITH_EXPIRATION, CATALOGS, RESOURCES, EDGES, ENVIRONMENTS, PRODUCERS)
