"""Checks what a field is compared with, and hands it to the statement as a parameter of the field's type."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from ingest.core.pgcopy import name_digest
from ingest.core.query.ast import BadQuery
from ingest.core.times import parse_time
from ingest.errors import Rejected
from ingest.store.query.entity import Type

NUL, REPLACEMENT = (
    "\0",
    "\ufffd",
)  # neither text nor jsonb holds the first; what is stored has the second in its place


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# Of one statement: each takes PostgreSQL 1 to 2.5 MB and 3 to 10 ms to plan, a fact of a node as much as the rows of an entity.
# Three thousand of them took 20 GB.
PLACES_MAX = 200
HEAVY_LENGTH = 1000  # characters of an expression that is more than a column


class Parameters:
    """Of one statement, named p0, p1, ... in the order in which they were asked for."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self._places = 0
        self.joins: dict[str, str] = {}  # aliases by the names that stand for them

    def joined(self, name: str) -> str:
        """The alias of what a document has under a name, in every select that mentions it."""
        return self.joins.setdefault(name, f"fact_{len(self.joins)}")

    def heavy(self, sql: str, *, is_source: bool = False) -> str:
        """The same. Raises BadQuery for one place too many."""
        self._places += is_source or len(sql) > HEAVY_LENGTH
        if self._places > PLACES_MAX:
            raise BadQuery(
                f"the query looks for facts, or for other entities, in more than {PLACES_MAX} places: "
                'longer lists belong into ["array", [...]]'
            )
        return sql

    def add(self, value: object, type_: str) -> str:
        """The placeholder, with a cast: the server shall not guess."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"%({name})s::{type_}"

    def text(self, value: str) -> str:
        return self.add(clean(value), "text")

    def json(self, value: object) -> str:
        return self.add(to_json(value), "jsonb")


def clean(text: str) -> str:
    """Lone surrogates are no text to PostgreSQL either."""
    return text.replace(NUL, REPLACEMENT).encode("utf-8", "replace").decode()


def to_json(value: object) -> str:
    """As jsonb can be read from it."""
    return clean(json.dumps(value, ensure_ascii=False, sort_keys=True)).replace("\\u0000", REPLACEMENT)


def one(parameters: Parameters, type_: Type, value: object, field: str) -> str:
    """A value to compare a field of that type with. Raises BadQuery for one that it cannot be compared with."""
    match type_:
        case Type.STRING if isinstance(value, str):
            return parameters.text(value)
        case Type.HASH if isinstance(value, str):
            return parameters.add(_digest(value), "bytea")
        case Type.ARRAY if isinstance(value, str | int | float):
            return parameters.text(_word(value))
        case Type.NUMERIC if isinstance(value, int | float) and not isinstance(value, bool):
            return parameters.add(str(value), "numeric")
        case Type.NUMERIC:
            raise BadQuery(f'Argument "{value}" is incompatible with numeric field "{field}".')
        case Type.BOOLEAN if (found := _boolean(value)) is not None:
            return parameters.add(found, "boolean")
        case Type.TIMESTAMP:
            return parameters.add(timestamp(value), "timestamptz")
        case Type.PATH | Type.PATH_TEXT:
            return parameters.json(_path(value))
        case Type.SCALAR | Type.ENCODED | Type.DOCUMENT:
            return parameters.json(value)
    raise BadQuery(f"Argument {json.dumps(value)[:200]} is incompatible with field {field!r}.")


def tag_digest(parameters: Parameters, value: object, field: str) -> str:
    """What a tag of that name is found by: names have no index, and there are as many as resources. Raises BadQuery."""
    if not isinstance(value, str | int | float):
        raise BadQuery(f"Argument {json.dumps(value)[:200]} is incompatible with field {field!r}.")
    return parameters.add(name_digest(clean(_word(value))), "bytea")


def many(parameters: Parameters, type_: Type, values: tuple[object, ...], field: str) -> str:
    """An array of them."""
    match type_:
        case Type.STRING:
            return parameters.add(
                [clean(value if isinstance(value, str) else _plain(value)) for value in values], "text[]"
            )
        case Type.HASH:
            return parameters.add([_digest(value) for value in values], "bytea[]")
        case Type.NUMERIC:
            for value in values:
                one(Parameters(), type_, value, field)
            return parameters.add([str(value) for value in values], "numeric[]")
        case Type.BOOLEAN:
            found = [_boolean(value) for value in values]
            if None not in found:
                return parameters.add(found, "boolean[]")
        case Type.TIMESTAMP:
            return parameters.add([timestamp(value) for value in values], "timestamptz[]")
        case Type.PATH | Type.PATH_TEXT:
            return parameters.add([to_json(_path(value)) for value in values], "jsonb[]")
        case Type.SCALAR | Type.ENCODED | Type.DOCUMENT:
            return parameters.add([to_json(value) for value in values], "jsonb[]")
    raise BadQuery(f"'in' with an array is not supported on field {field!r}")


def timestamp(value: object) -> datetime:
    """Of text, of a year alone, of milliseconds since 1970. Raises BadQuery."""
    try:
        if isinstance(value, str):
            is_year = len(value) == 4 and value.isascii() and value.isdigit()
            return parse_time(f"{value}-01-01" if is_year else value, "timestamp")
        if isinstance(value, int) and not isinstance(value, bool):
            return EPOCH + timedelta(milliseconds=value)
    except (Rejected, OverflowError):
        pass
    raise BadQuery(f"'{str(value)[:200]}' is not a valid timestamp value")


def pattern(parameters: Parameters, value: object, field: str) -> str:
    """A regular expression of PostgreSQL's."""
    if not isinstance(value, str):
        raise BadQuery(
            f"~ takes a regular expression as a string, but field {field!r} was given {json.dumps(value)[:200]}"
        )
    return parameters.text(value)


def _path(value: object) -> object:
    if not (isinstance(value, list) and all(isinstance(part, str | int) for part in value)):
        raise BadQuery("Path array element wasnt string or integer: a path is an array of names and indexes")
    return value


def _digest(value: object) -> bytes:
    """What are no hexadecimal digits is the hash of nothing: of no bytes, which no hash has."""
    try:
        return bytes.fromhex(value) if isinstance(value, str) and value == value.strip().lower() else b""
    except ValueError:
        return b""


def _boolean(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None


def _word(value: str | float) -> str:
    return value if isinstance(value, str) else _plain(value)


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
