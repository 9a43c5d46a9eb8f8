"""Finds a query's fields in the table of entities; what is not there is told in the words of PuppetDB."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.core.query import ast
from ingest.core.query.paths import read_field
from ingest.store.query.entity import INACTIVE, Entity, EntityField, Type

NOT_ACTIVE = "SELECT n.certname FROM nodes n WHERE n.deactivated IS NOT NULL OR n.expired IS NOT NULL"

# How a column of a subquery becomes comparable with a field of another type.
_CASTS = {
    (Type.STRING, Type.NUMERIC): "({0})::numeric", (Type.STRING, Type.BOOLEAN): "({0})::boolean",
    (Type.STRING, Type.TIMESTAMP): "({0})::timestamptz", (Type.STRING, Type.SCALAR): "to_jsonb({0})",
    (Type.SCALAR, Type.NUMERIC): "({0} #>> '{{}}')::numeric", (Type.SCALAR, Type.STRING): "({0} #>> '{{}}')",
    (Type.SCALAR, Type.BOOLEAN): "({0} #>> '{{}}')::boolean", (Type.BOOLEAN, Type.STRING): "({0})::text",
    (Type.ENCODED, Type.STRING): "({0})::text", (Type.ENCODED, Type.SCALAR): "{0}", (Type.SCALAR, Type.ENCODED): "{0}",
    (Type.STRING, Type.ENCODED): "to_jsonb({0})",
    (Type.HASH, Type.STRING): "encode({0}, 'hex')",
    (Type.PATH, Type.PATH_TEXT): "{0}",
    (Type.PATH_TEXT, Type.PATH): "{0}",
    (Type.NUMERIC, Type.STRING): "({0})::text", (Type.TIMESTAMP, Type.STRING): "({0})::text",
}  # fmt: skip


def queryable(entity: Entity, field: ast.Field, *, shown_is_enough: bool = False) -> EntityField:
    """A field that a condition may be about. Raises BadQuery."""
    found = entity.fields.get(field.name)
    if (
        found is None
        or not (found.queryable or shown_is_enough)
        or (field.parts and found.type is not Type.DOCUMENT)
    ):
        raise ast.BadQuery(
            f"'{field.text}' is not a queryable object for {entity.name}. "
            f"Known queryable objects are {listed(entity.queryable())}"
        )
    return found


def matchable(entity: Entity, field: ast.Field) -> EntityField:
    """One that may stand on the left of ``in``. Raises BadQuery."""
    found = entity.fields.get(field.text)
    if found is None or not found.queryable:
        raise ast.BadQuery(
            f"Can't match on unknown '{entity.name}' field '{field.text}' for 'in'. "
            f"Acceptable fields are {listed(entity.queryable())}"
        )
    return found


def unknown_column(entity: Entity, text: str) -> str:
    return f"Can't extract unknown '{entity.name}' field '{text}'. Acceptable fields are {listed(entity.projectable())}"


def listed(names: Sequence[str]) -> str:
    """'a', 'b', and 'c'."""
    quoted = [f"'{name}'" for name in names]
    return ", ".join((*quoted[:-1], f"and {quoted[-1]}")) if len(quoted) > 2 else " and ".join(quoted)


def cast(sql: str, inner: Type, outer: Type, field: ast.Field) -> str:
    """A subquery's column as what it is compared with. Raises BadQuery."""
    if inner is outer:
        return sql
    if (inner, outer) not in _CASTS:
        raise ast.BadQuery(
            f"'in' cannot compare field '{field.text}' with what its subquery extracts: the types differ"
        )
    return _CASTS[inner, outer].format(sql)


def ordered(entity: Entity, order: ast.Order) -> str:
    """An element of ORDER BY. Raises BadQuery."""
    found = entity.fields.get(order.field)
    if found is None or not found.queryable:
        quote_between = "', '"
        raise ast.BadQuery(
            f"Unrecognized column '{order.field}' specified in :order_by; "
            f"Supported columns are '{quote_between.join(entity.queryable())}'"
        )
    sql = f"fact_path_text({found.sql})" if found.type is Type.PATH_TEXT else found.shown or found.sql
    return f"{sql}{' DESC' if order.descending else ''}"


def latest(entity: Entity, op: str, value: object) -> str:
    """``latest_report?``. Raises BadQuery."""
    if entity.latest is None:
        queryable(entity, read_field("latest_report?"))
        raise ast.BadQuery(f"Field 'latest_report?' not supported on endpoint '{entity.name}'")
    if op != "=" or not isinstance(value, bool):
        raise ast.BadQuery("latest_report? is compared with true or false, by =")
    return entity.latest if value else f"(NOT {entity.latest})"


def state_condition(entity: Entity, state: str) -> str:
    """``active`` or ``inactive``, as a condition on the entity's rows."""
    if state in entity.states:
        return entity.states[state]
    certname = entity.fields["certname"].sql
    if state == "active":
        return f"({certname} NOT IN ({NOT_ACTIVE}))"
    return f"({certname} IN (SELECT n.certname FROM nodes n WHERE {INACTIVE}))"


def with_agents(entity: Entity, where: ast.Node | None) -> ast.Node | None:
    """Reports of agents alone, unless the query says something of their type."""
    if not entity.has_kinds or (where is not None and _mentions_type(where)):
        return where
    agent = ast.equals("type", "agent")
    return agent if where is None else ast.And((where, agent))


def _mentions_type(node: ast.Node) -> bool:
    match node:
        case ast.And(parts) | ast.Or(parts):
            return any(map(_mentions_type, parts))
        case ast.Not(part):
            return _mentions_type(part)
        case (
            ast.Compare(_, ast.Field(text="type"))
            | ast.IsNull(ast.Field(text="type"))
            | ast.InArray(ast.Field(text="type"))
        ):
            return True
    return False


def fact_path(name: str) -> ast.Field:
    """Where ``["fact", NAME]`` is looked for: a name with dots is a path, as PuppetDB has it."""
    try:
        return read_field(f"facts.{name}")
    except ast.BadQuery:
        return ast.Field("facts", (name,), (name,), f"facts.{name}")
