"""What an operator is in SQL, by the type of the field: PuppetDB's meaning, its treatment of what is missing included.

``["not", X]`` is SQL's NOT: where X is neither true nor false, it finds nothing. So each condition here is NULL where
PuppetDB's is.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingest.core.query import ast
from ingest.core.query.paging import plain
from ingest.store.query import values
from ingest.store.query.entity import EntityField, Type
from ingest.store.query.values import Parameters

ORDERED = (">", "<", ">=", "<=")


def compare(parameters: Parameters, op: str, field: ast.Field, found: EntityField, value: object) -> str:
    """A comparison as a condition. Raises BadQuery."""
    if not field.parts:
        parameters.heavy(found.sql)
    if op == "=" and value is None and found.type is not Type.ENCODED:
        return is_null(parameters, field, found, True)
    if found.type is Type.DOCUMENT:
        return _document(parameters, op, field, found, value)
    if op == "=":
        return _equals(parameters, field, found, value)
    if op == "~":
        return _matches(parameters, field, found, value)
    if op == "~>":
        if found.type not in (Type.PATH, Type.PATH_TEXT):
            raise ast.BadQuery(f"Query operator ~> is not allowed on field {field.text}")
        return _path_matches(parameters, found, value)
    return _ordered(parameters, op, field, found, value)


def _equals(parameters: Parameters, field: ast.Field, found: EntityField, value: object) -> str:
    if found.type is Type.TAGS:
        lowered = value.lower() if field.name == "tag" and isinstance(value, str) else value
        digest = values.tag_digest(parameters, lowered, field.text)
        return f"({found.sql} && ARRAY(SELECT t.id FROM tags t WHERE t.digest = {digest}))"
    placeholder = values.one(parameters, found.type, value, field.text)
    if found.type is Type.ARRAY:
        return f"({found.sql} @> ARRAY[{placeholder}])"
    return f"({found.sql} = {placeholder})"


def _matches(parameters: Parameters, field: ast.Field, found: EntityField, value: object) -> str:
    if field.name == "tag" and isinstance(value, str):
        value = value.lower()
    if found.type is Type.ENCODED:
        return matches_encoded(parameters, found.sql, value)
    placeholder = values.pattern(parameters, value, field.text)
    match found.type:
        case Type.STRING:
            return f"({found.sql} ~ {placeholder} AND {found.sql} IS NOT NULL)"
        case Type.HASH:
            return f"(encode({found.sql}, 'hex') ~ {placeholder} AND {found.sql} IS NOT NULL)"
        case Type.TAGS:
            return f"({found.sql} && ARRAY(SELECT t.id FROM tags t WHERE t.name ~ {placeholder}))"
        case Type.ARRAY:
            return f"EXISTS (SELECT FROM unnest({found.sql}) AS element (value) WHERE element.value ~ {placeholder})"
        case Type.SCALAR:
            return f"(({found.sql} #>> '{{}}') ~ {placeholder})"
        case Type.PATH_TEXT:
            return f"(fact_path_text({found.sql}) ~ {placeholder})"
    raise ast.BadQuery(f"Query operator ~ is not allowed on field {field.text}")


def matches_encoded(parameters: Parameters, sql: str, value: object) -> str:
    """The pattern is looked for in the value's JSON, and has quotes around it like a string there."""
    return f"coalesce(({sql})::text ~ {parameters.text(values.to_json(value))}, false)"


def _ordered(parameters: Parameters, op: str, field: ast.Field, found: EntityField, value: object) -> str:
    if found.type not in (Type.NUMERIC, Type.TIMESTAMP, Type.SCALAR):
        raise ast.BadQuery(f"Query operators >,>=,<,<= are not allowed on field {field.text}")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if found.type is not Type.TIMESTAMP and not is_number:
        raise ast.BadQuery(f'Argument "{plain(value)}" and operator "{op}" have incompatible types.')
    placeholder = values.one(parameters, found.type, value, field.text)
    condition = f"({found.sql} {op} {placeholder})"
    if found.type is Type.SCALAR:  # of jsonb, every boolean is more than every number
        return f"(jsonb_typeof({found.sql}) = 'number' AND {condition})"
    return condition


def is_null(parameters: Parameters, field: ast.Field, found: EntityField, wanted: bool) -> str:
    """Whether it is missing; within JSON, whether null stands there."""
    if field.name == "tag" or found.type is Type.ENCODED:
        return f"({found.sql} IS NULL)"  # whatever is wanted: as PuppetDB has it
    if found.type is Type.DOCUMENT or found.type is Type.SCALAR:
        # Whatever place in an array is named: whether there is one at all, as PuppetDB has it.
        inside = _inside(parameters, found, field.literal_names())
        return f"(jsonb_typeof({inside}) {'=' if wanted else '<>'} 'null')"
    return f"({found.sql} IS {'' if wanted else 'NOT '}NULL)"


def in_array(parameters: Parameters, field: ast.Field, found: EntityField, wanted: tuple[object, ...]) -> str:
    """One of them."""
    if found.type in (Type.ARRAY, Type.TAGS, Type.ENCODED):
        raise ast.BadQuery("Operator in...array is not supported on array types")
    placeholder = values.many(parameters, found.type, wanted, field.text)
    if found.type is Type.DOCUMENT:
        return _unknown_share(f"{_inside(parameters, found, field.parts)} = ANY ({placeholder})")
    return f"({parameters.heavy(found.sql)} = ANY ({placeholder}))"


def inside(parameters: Parameters, found: EntityField, field: ast.Field) -> str:
    """What stands at a path, as jsonb. Raises BadQuery for one with match()."""
    return _inside(parameters, found, field.parts)


def _named(parameters: Parameters, found: EntityField, name: str) -> str:
    """What stands under a name of a document itself."""
    if found.by_name is not None:
        return f"{parameters.joined(name)}.value"
    return f"({parameters.heavy(found.sql)} -> {parameters.text(name)})"


def _inside(parameters: Parameters, found: EntityField, parts: tuple[str | int | ast.Match, ...]) -> str:
    if not parts:
        return parameters.heavy(found.sql)
    if any(isinstance(part, ast.Match) for part in parts):
        raise ast.BadQuery("match() is understood on the left of =, ~, >, <, >= and <= alone")
    return below(parameters, _named(parameters, found, str(parts[0])), parts[1:])


def below(parameters: Parameters, sql: str, parts: Sequence[str | int | ast.Match]) -> str:
    """What stands at a path within it: names are an object's, numbers places in an array."""
    for part in parts:
        sql += f" -> {part}" if isinstance(part, int) else f" -> {parameters.text(str(part))}"
    return f"({sql})"


def _document(parameters: Parameters, op: str, field: ast.Field, found: EntityField, value: object) -> str:
    if op == "~>":
        raise ast.BadQuery(f"Query operator ~> is not allowed on field {field.text}")
    parts = field.parts
    if any(isinstance(part, ast.Match) for part in parts):
        return _walk(parameters, op, field, found, value)
    if not parts:
        if op != "=":
            raise ast.BadQuery(
                f"Query operator {op} is not allowed on field {field.text}: name what in it is meant"
            )
        return f"({found.sql} @> {parameters.json(value)})"
    if op == "=" and not any(isinstance(part, int) for part in parts):
        return _contains(parameters, field.literal, found, value)
    # Where nothing stands at the path it is neither true nor false: so ``not`` finds nothing there either, as in PuppetDB.
    return _leaf(parameters, op, _inside(parameters, found, parts), value, field.text)


def _leaf(parameters: Parameters, op: str, sql: str, value: object, text: str) -> str:
    if op == "~":
        return _unknown_share(f"({sql} #>> '{{}}') ~ {values.pattern(parameters, value, text)}")
    return _unknown_share(f"{sql} {op} {parameters.json(value)}")


def _unknown_share(condition: str) -> str:
    """As an expression of its own the planner takes it for true of half of the rows, and joins so that it is no harm if it is
    true of all; else it believes in one row of a hundred, and compares each with all others when most are found."""
    return f"(SELECT {condition})"


def _contains(parameters: Parameters, names: tuple[str, ...], found: EntityField, value: object) -> str:
    first, rest = names[0], names[1:]
    if any(name.isascii() and name.isdigit() for name in names):
        # It may be the place in an array, of which @> knows nothing.
        path = parameters.add([values.clean(name) for name in rest], "text[]")
        return _unknown_share(f"{_named(parameters, found, first)} #> {path} = {parameters.json(value)}")
    for name in reversed(names):
        value = {name: value}
    if found.by_name is None:
        return f"({found.sql} @> {parameters.json(value)})"
    # Put back into a document: by itself, an array contains what is one of its elements.
    document = f"jsonb_build_object({parameters.text(first)}, {_named(parameters, found, first)})"
    return _unknown_share(f"{document} @> {parameters.json(value)}")


_CHILDREN = (
    "LATERAL (SELECT each.key, each.value FROM jsonb_each(CASE jsonb_typeof({value}) WHEN 'object' THEN {value} END) AS each"
    " UNION ALL SELECT (element.place - 1)::text, element.value FROM jsonb_array_elements("
    "CASE jsonb_typeof({value}) WHEN 'array' THEN {value} END) WITH ORDINALITY AS element (value, place)) AS {level}"
)


def _walk(parameters: Parameters, op: str, field: ast.Field, found: EntityField, value: object) -> str:
    """Some path of which every part is what was named, or is found by its pattern."""
    parts, above = list(field.parts), found.sql
    if found.by_name is not None and isinstance(parts[0], str):
        above = _named(parameters, found, str(parts.pop(0)))
    else:
        parameters.heavy(above)
    tables, conditions = [], []
    for number, part in enumerate(parts):
        level = f"level{number}"
        tables.append(_CHILDREN.format(value=above, level=level))
        sign = "~" if isinstance(part, ast.Match) else "="
        wanted = part.pattern if isinstance(part, ast.Match) else str(part)
        conditions.append(f"{level}.key {sign} {parameters.text(wanted)}")
        above = f"{level}.value"
    conditions.append(_leaf(parameters, op, above, value, field.text))
    return f"EXISTS (SELECT FROM {', '.join(tables)} WHERE {' AND '.join(conditions)})"


def _path_matches(parameters: Parameters, found: EntityField, value: object) -> str:
    """Every part of the path is found by the pattern in its place; a number stands for a place in an array, and a string
    of digits for a name."""
    if not (isinstance(value, list) and all(isinstance(part, str | int) for part in value)):
        raise ast.BadQuery("~> takes an array of regular expressions and array indexes")
    sql, is_text = found.sql, found.type is Type.PATH_TEXT
    conditions = [f"jsonb_array_length({sql}) = {len(value)}"]
    for place, part in enumerate(value):
        if isinstance(part, int):
            conditions.append(f"{sql} -> {place} = {parameters.json(part)}")
            continue
        if part.isascii() and part.isdigit():
            conditions.append(f"jsonb_typeof({sql} -> {place}) = 'string'")
        pattern = f"^(?:{part})$" if is_text else part
        conditions.append(f"({sql} ->> {place}) ~ {parameters.text(pattern)}")
    return f"({' AND '.join(conditions)})"
