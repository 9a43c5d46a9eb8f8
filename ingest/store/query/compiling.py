"""One query, one statement: from the values of ``core/query`` and the table of entities to SQL with parameters.

Whatever a client wrote becomes a parameter; SQL comes from the table of entities and from here alone. Within a statement
every entity's aliases are its own subselect's, so the fixed names never meet.
"""

from __future__ import annotations

from typing import NamedTuple

from ingest.core.query import ast
from ingest.core.query.paths import read_field
from ingest.store.query import columns, operators, values
from ingest.store.query.columns import Shown
from ingest.store.query.entities import entity_for, entity_of
from ingest.store.query.entity import (
    PURGE_TTL,
    Entity,
    EntityField,
    Source,
    Type,
    join,
    join_plainly,
    statement,
)
from ingest.store.query.lookups import (
    cast,
    fact_path,
    latest,
    matchable,
    ordered,
    queryable,
    state_condition,
    unknown_column,
    with_agents,
)  # fmt: skip
from ingest.store.query.values import Parameters

CONTENT_HERE = "true /* content */"
PATH_HERE, LEAF_HERE = "'[]'::jsonb /* path */", "fact.value /* leaf */"
AGGREGATES = frozenset({"count", "avg", "sum", "min", "max"})


class Compiled(NamedTuple):
    """A statement for the rows, each one JSON; ``total`` says how many there would be without a limit."""

    rows: str
    total: str
    parameters: dict[str, object]
    has_large_rows: bool = False


def compile_query(query: ast.Query, node_purge_ttl_s: float = 0.0) -> Compiled:
    """Raises BadQuery."""
    return Compiler(node_purge_ttl_s).compile(entity_for(query), query)


class Compiler:
    """Of one statement: it hands out the parameters."""

    def __init__(self, node_purge_ttl_s: float) -> None:
        self.parameters = Parameters()
        self._ttl = f"{node_purge_ttl_s or 10**9} seconds"  # 0: never purged

    def compile(self, entity: Entity, query: ast.Query) -> Compiled:
        """The whole statement. Raises BadQuery."""
        shown = columns.columns(self.parameters, entity, query)
        inner = self.select(entity, query, shown)
        paging = self.paging(entity, query)
        row = columns.row(self.parameters, entity, shown)
        # The rows are made JSON outside, after they have been limited.
        return Compiled(
            f"SELECT {row} FROM ({inner}{paging}) AS found",
            f"SELECT count(*) FROM ({inner}) AS found",
            self.parameters.values,
            entity.has_large_rows and any(columns.is_large(entity, one) for one in shown),
        )

    # The select

    def select(self, entity: Entity, query: ast.Query, shown: list[Shown]) -> str:
        where = with_agents(entity, query.where)
        condition = self.condition(entity, where)
        selected = ", ".join(f"{one.sql} AS c{number}" for number, one in enumerate(shown))
        distinct = "DISTINCT " if entity.distinct else ""
        behind = f" WHERE {condition}" if condition is not None else ""
        if query.group_by:
            behind += " GROUP BY " + ", ".join(
                self._group(entity, column, shown) for column in query.group_by
            )
        source = entity.source(query.where)
        ordered_by = self.paging(entity, query) if source.joins else ""
        joins = self._joins(entity, source, selected + behind + ordered_by)
        return f"SELECT {distinct}{selected}{self._source(entity, source)}{joins}{behind}"

    def _joins(self, entity: Entity, source: Source, text: str) -> str:
        """What the select that has this text mentions by name."""
        found = "".join(join_plainly(name) for alias, name in source.joins if f"{alias}." in text)
        statements = {field.by_name for field in entity.fields.values() if field.by_name is not None}
        return found + "".join(
            "\n" + self.parameters.heavy(join(statement_name, self.parameters.text(name), alias))
            for statement_name in statements
            for name, alias in self.parameters.joins.items()
            if f"{alias}.value" in text
        )

    def _source(self, entity: Entity, source: Source) -> str:
        text = " " + statement(source.name).removeprefix("SELECT ")
        if source.content is not None:
            text = text.replace(CONTENT_HERE, self.condition(entity, source.content) or "true")
        if source.path:
            text = text.replace(PATH_HERE, self.parameters.json(list(source.path)))
            text = text.replace(LEAF_HERE, operators.below(self.parameters, "fact.value", source.path[1:]))
        return self.parameters.heavy(text, is_source=True)

    def _group(self, entity: Entity, column: ast.Column, shown: list[Shown]) -> str:
        """By its place where it is shown: two parameters of the same text are two expressions to PostgreSQL."""
        key = column.name if isinstance(column, ast.Function) else column.text
        for number, one in enumerate(shown):
            if one.key == key:
                return str(number + 1)
        if isinstance(column, ast.Function) or column.parts:
            return columns.column_of(self.parameters, entity, column).sql
        found = entity.fields.get(column.name)
        if found is None or not found.queryable:
            raise ast.BadQuery(f'"{key}" is neither a valid column name nor function name')
        return found.sql

    def paging(self, entity: Entity, query: ast.Query) -> str:
        text = ""
        if query.order_by:
            text += " ORDER BY " + ", ".join(ordered(entity, order) for order in query.order_by)
        if query.limit is not None:
            text += f" LIMIT {query.limit:d}"
        if query.offset is not None:
            text += f" OFFSET {query.offset:d}"
        return text

    # Conditions. None: there is none (``["=", "node_state", "any"]``), as if it had not been written.

    def condition(self, entity: Entity, node: ast.Node | None) -> str | None:
        match node:
            case None:
                return None
            case ast.And(parts):
                return self._junction(entity, " AND ", parts)
            case ast.Or(parts):
                return self._junction(entity, " OR ", parts)
            case ast.Not(part):
                inner = self.condition(entity, part)
                return None if inner is None else f"(NOT {inner})"
            case ast.Compare():
                return self._compare(entity, node)
            case _:
                return self._test(entity, node)

    def _test(self, entity: Entity, node: ast.IsNull | ast.InArray | ast.InQuery | ast.Related) -> str:
        match node:
            case ast.IsNull(field, wanted):
                found = queryable(entity, field, shown_is_enough=True)
                return operators.is_null(self.parameters, field, found, wanted)
            case ast.InArray(subject, wanted_values):
                return self._in_array(entity, subject, wanted_values)
            case ast.InQuery(fields, query):
                return self._in_query(entity, fields, query)
            case ast.Related(name, where):
                return self._related(entity, name, where)

    def _junction(self, entity: Entity, operator: str, parts: tuple[ast.Node, ...]) -> str | None:
        made = [one for part in parts if (one := self.condition(entity, part)) is not None]
        return f"({operator.join(made)})" if made else None

    def _compare(self, entity: Entity, node: ast.Compare) -> str | None:
        subject, op = node.subject, node.op
        if ast.is_node_state(node):
            return self._state(entity, node)
        if isinstance(subject, ast.Function):
            return self._compare_call(entity, op, subject, node.value)
        if isinstance(subject, ast.Pair):
            return self._compare_pair(entity, op, subject, node.value)
        if entity.has_kinds and subject.text == "type" and op == "=" and node.value == "any":
            return None
        if subject.text == "latest_report?":
            return latest(entity, op, node.value)
        return operators.compare(self.parameters, op, subject, queryable(entity, subject), node.value)

    def _state(self, entity: Entity, node: ast.Compare) -> str | None:
        wanted = node.value
        if isinstance(node.subject, ast.Pair):
            if not isinstance(wanted, bool):
                raise ast.BadQuery('["node", "active"] is compared with true or false')
            wanted = "active" if wanted else "inactive"
        state = str(wanted).lower()
        if state == "any" or "certname" not in entity.fields:
            return None
        if state not in ("active", "inactive"):
            raise ast.BadQuery(f"node_state is one of active, inactive and any, not '{state[:200]}'")
        condition = state_condition(entity, state)
        if PURGE_TTL in condition:
            condition = condition.replace(PURGE_TTL, self.parameters.add(self._ttl, "interval"))
        return condition

    def _compare_call(self, entity: Entity, op: str, call: ast.Function, value: object) -> str:
        if call.name in AGGREGATES:
            raise ast.BadQuery(f"{call.name} is no condition on a row: extract it, with group_by")
        found = columns.call(self.parameters, entity, call)
        if op == "~":
            return f"({found.sql} ~ {values.pattern(self.parameters, value, call.name)})"
        if op == "~>" or not isinstance(value, str):
            raise ast.BadQuery(f"{call.name} is compared with a string, by =, ~, >, <, >= or <=")
        return f"({found.sql} {op} {self.parameters.text(value)})"

    def _compare_pair(self, entity: Entity, op: str, subject: ast.Pair, value: object) -> str:
        if subject.kind == "fact":
            return self._compare_fact(entity, op, subject.name, value)
        if subject.kind != "parameter" or "parameters" not in entity.fields:
            raise ast.BadQuery(
                f'["{subject.kind}", "{subject.name}"] is not a queryable object for {entity.name}'
            )
        inside = f"({entity.fields['parameters'].sql} -> {self.parameters.text(subject.name)})"
        if op == "=":
            return f"coalesce({inside} = {self.parameters.json(value)}, false)"
        if op == "~":
            return operators.matches_encoded(self.parameters, inside, value)
        raise ast.BadQuery(f"Operator '{op}' is not allowed on a parameter: = and ~ are")

    def _compare_fact(self, entity: Entity, op: str, name: str, value: object) -> str:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if op == "~>" or not (is_number or (op in ("=", "~") and isinstance(value, str | bool))):
            raise ast.BadQuery(f"Operator '{op}' not allowed on value '{value}'")
        if op == "~" and isinstance(value, bool):
            value = str(value).lower()
        certname = (read_field("certname"),)
        return self._in_query(
            entity, certname, ast.Query("inventory", certname, ast.Compare(op, fact_path(name), value))
        )

    def _in_array(self, entity: Entity, subject: ast.Field | ast.Pair, wanted: tuple[object, ...]) -> str:
        if isinstance(subject, ast.Pair):
            if subject.kind != "fact":
                raise ast.BadQuery(f'["{subject.kind}", ...] is not allowed on the left of in')
            if len({type(value) for value in wanted}) != 1:
                raise ast.BadQuery("All values in 'array' must be the same type.")
            where = ast.And((ast.equals("name", subject.name), ast.InArray(read_field("value"), wanted)))
            certname = (read_field("certname"),)
            return self._in_query(entity, certname, ast.Query("facts", certname, where))
        return operators.in_array(self.parameters, subject, queryable(entity, subject), wanted)

    def _in_query(self, entity: Entity, fields: tuple[ast.Field, ...], query: ast.Query) -> str:
        other = entity_of(query.entity)
        assert query.columns is not None
        local = [matchable(entity, field) for field in fields]
        foreign = [self._foreign(other, column) for column in query.columns]
        shown = [Shown("", one.sql, one.type) for one in foreign]
        inner = self.select(other, query, shown) + self.paging(other, query)
        compared = ", ".join(
            cast(f"sub.c{number}", one.type, mine.type, field)
            for number, (one, mine, field) in enumerate(zip(foreign, local, fields, strict=True))
        )
        left = ", ".join(one.sql for one in local)
        return f"(({left}) IN (SELECT {compared} FROM ({inner}) AS sub))"

    def _foreign(self, other: Entity, column: ast.Column) -> EntityField:
        if isinstance(column, ast.Function):
            shown = columns.call(self.parameters, other, column)
            return EntityField(shown.sql, shown.type)
        found = other.fields.get(column.name)
        if found is None or not found.queryable or (column.parts and found.type is not Type.DOCUMENT):
            raise ast.BadQuery(unknown_column(other, column.text))
        if column.parts:
            return EntityField(operators.inside(self.parameters, found, column), Type.SCALAR)
        return found

    def _related(self, entity: Entity, name: str, where: ast.Node | None) -> str:
        relation = entity.relations.get(name)
        if relation is None:
            raise ast.BadQuery(f"No implicit relationship for entity '{name}'")
        foreign = tuple(map(read_field, relation.foreign))
        return self._in_query(entity, tuple(map(read_field, relation.local)), ast.Query(name, foreign, where))
