"""What a row of a query shows, and how it becomes JSON."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import NamedTuple

from ingest.core.query import ast
from ingest.store.query import operators
from ingest.store.query.entity import Entity, EntityField, Type
from ingest.store.query.lookups import unknown_column
from ingest.store.query.values import Parameters

ROWS_MAX = 128  # that are remembered: every entity's whole one, and what is extracted often
COLUMNS_MAX = 50  # of a row; no entity has more than half of them
_PLAIN = re.compile(r"[a-z_0-9?]+\Z")  # a name of ours
TIME_FORMAT = '\'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"\''


class Shown(NamedTuple):
    key: str
    sql: str
    type: Type


def columns(parameters: Parameters, entity: Entity, query: ast.Query) -> list[Shown]:
    """What a row of the outermost query shows."""
    if query.columns is None:
        return list(_all_of(entity))
    if len(query.columns) > COLUMNS_MAX:
        raise ast.BadQuery(f"more than {COLUMNS_MAX} columns to extract")
    is_grouped = bool(query.group_by)
    return _numbered([column_of(parameters, entity, column, is_grouped) for column in query.columns])


@lru_cache(ROWS_MAX)
def _all_of(entity: Entity) -> tuple[Shown, ...]:
    return tuple(_whole(name, entity.fields[name]) for name in entity.projectable())


def is_large(entity: Entity, shown: Shown) -> bool:
    """Whether it may be a whole document."""
    found = entity.fields.get(shown.key)
    return found is not None and found.type in (Type.JSON, Type.DOCUMENT)


def _whole(name: str, field: EntityField) -> Shown:
    if field.json is not None:
        return Shown(name, field.json, Type.JSON_TEXT)
    return Shown(name, field.shown or field.sql, field.type)


def _numbered(shown: list[Shown]) -> list[Shown]:
    """What is asked for again is shown again: PuppetDB calls it name_2."""
    times: dict[str, int] = {}
    found = []
    for one in shown:
        times[one.key] = times.get(one.key, 0) + 1
        found.append(one if times[one.key] == 1 else one._replace(key=f"{one.key}_{times[one.key]}"))
    return found


def column_of(parameters: Parameters, entity: Entity, column: ast.Column, is_grouped: bool = True) -> Shown:
    """Groups are of equal values, and the JSON of two equal values may differ."""
    if isinstance(column, ast.Function):
        return call(parameters, entity, column)
    found = entity.fields.get(column.name)
    is_path = bool(column.parts)
    if found is None or not found.projectable or (is_path and found.type is not Type.DOCUMENT):
        raise ast.BadQuery(unknown_column(entity, column.text))
    if is_path:
        if len(column.text.encode("utf-8", "replace")) > 63:
            raise ast.BadQuery(
                f"Projected field name '{column.text[:200]}' exceeds current maximum length of 63 characters"
            )
        return Shown(column.text, operators.inside(parameters, found, column), Type.JSON)
    return _whole(column.name, found._replace(json=None) if is_grouped else found)


def call(parameters: Parameters, entity: Entity, function: ast.Function) -> Shown:
    if function.field is None:
        return Shown("count", entity.counting, Type.NUMERIC)
    found = entity.fields.get(function.field.name)
    if found is None or not found.queryable:
        raise ast.BadQuery(unknown_column(entity, function.field.text))
    sql = operators.inside(parameters, found, function.field) if function.field.parts else found.sql
    type_ = Type.NUMERIC
    if function.name in ("avg", "sum", "min", "max") and found.type in (Type.SCALAR, Type.DOCUMENT):
        sql = f"CASE jsonb_typeof({sql}) WHEN 'number' THEN ({sql} #>> '{{}}')::numeric END"
    elif function.name in ("min", "max"):
        type_ = found.type
    if function.name == "to_string":
        return Shown("to_string", f"to_char({sql}, {parameters.text(function.format or '')})", Type.STRING)
    if function.name == "jsonb_typeof":
        return Shown("jsonb_typeof", f"jsonb_typeof({sql})", Type.STRING)
    cast = "::float8" if function.name == "avg" else ""
    return Shown(function.name, f"{function.name}({sql}){cast}", type_)


def row(parameters: Parameters, entity: Entity, shown: list[Shown]) -> str:
    """The row as JSON text, from the columns c0, c1, ... of the inner select.

    Put together from texts: json_build_object takes twice as long, and would read again what is JSON already.
    """
    if entity.bare is not None and [one.key for one in shown] == [entity.bare]:
        return _json_text("found.c0", shown[0].type)
    names = tuple(_name(parameters, one.key, number) for number, one in enumerate(shown))
    return _joined(names, tuple(one.type for one in shown))


@lru_cache(ROWS_MAX)
def _joined(names: tuple[str, ...], types: tuple[Type, ...]) -> str:
    texts = (_json_text(f"found.c{number}", type_) for number, type_ in enumerate(types))
    made = [part for pair in zip(names, texts, strict=True) for part in pair]
    return " || ".join((*made, "'}'")) if made else "'{}'"


def _name(parameters: Parameters, key: str, number: int) -> str:
    """With what stands before it in the row."""
    before = "," if number else "{"
    if _PLAIN.match(key):
        return f"'{before}\"{key}\":'"
    return parameters.text(f"{before}{json.dumps(key, ensure_ascii=False)}:")


def _json_text(value: str, type_: Type) -> str:
    match type_:
        case Type.TIMESTAMP:
            text = f"'\"' || to_char({value} AT TIME ZONE 'UTC', {TIME_FORMAT}) || '\"'"
        case Type.HASH:
            text = f"'\"' || encode({value}, 'hex') || '\"'"
        case Type.JSON_TEXT:
            text = value
        case Type.BOOLEAN:
            text = f"{value}::text"
        case _:
            text = f"to_json({value})::text"
    return f"coalesce({text}, 'null')"
