"""What an entity of PuppetDB's queries is to the compiler: its fields in SQL, where its rows come from, what belongs to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import cache
from typing import NamedTuple

from ingest.core.query.ast import Node
from ingest.store.queries import query


class Type(Enum):
    """Decides which operators a field has, and what they mean. The words are PuppetDB's."""

    STRING = auto()
    NUMERIC = auto()
    BOOLEAN = auto()
    TIMESTAMP = auto()
    ARRAY = auto()  # text[]
    TAGS = auto()  # integer[], the ids of tags
    SCALAR = auto()  # jsonb: a fact's value
    ENCODED = auto()  # jsonb that PuppetDB keeps as the text of its JSON: an event's values
    DOCUMENT = auto()  # jsonb, with dotted paths into it
    PATH = auto()  # jsonb array: the path of a fact
    PATH_TEXT = (
        auto()
    )  # the same of fact paths, which PuppetDB keeps as texts: there a pattern finds whole parts alone
    HASH = auto()  # bytea, shown and asked for in hexadecimal digits
    JSON = auto()  # only to be shown
    JSON_TEXT = auto()  # JSON that is text: no field's, but what a row shows


class EntityField(NamedTuple):
    sql: str  # an expression over the aliases of the entity's source
    type: Type = Type.STRING
    queryable: bool = True
    projectable: bool = True
    shown: str | None = None  # the expression that makes JSON of it, where it is not the same
    json: str | None = None  # its JSON as text, where that is cheaper than to make it of the value
    # Of a document: the statement that is joined for what stands under a name, where that is cheaper than to make the whole.
    by_name: str | None = None


class Source(NamedTuple):
    """A statement of ``entities.sql``, and what goes into the middle of it: a condition, a path into a fact.

    ``joins``: by their aliases, statements that are joined where a select names those.
    """

    name: str
    content: Node | None = None
    path: tuple[str | int, ...] = ()
    joins: tuple[tuple[str, str], ...] = ()


class Relation(NamedTuple):
    """The fields by which rows of another entity belong together with one's own."""

    local: tuple[str, ...]
    foreign: tuple[str, ...]


class Entity(NamedTuple):
    name: str
    fields: Mapping[str, EntityField]
    source: Callable[[Node | None], Source]
    relations: Mapping[str, Relation] = {}
    # By state: a condition on the rows of nodes in that state. Without one it is asked of ``certname``.
    states: Mapping[str, str] = {}
    latest: str | None = None  # the condition that a row is of the newest report
    has_kinds: bool = False  # of reports: those of agents alone unless ``type`` is asked for
    distinct: bool = False
    has_large_rows: bool = False  # megabytes, of a catalog with thousands of resources
    counting: str = "count(*)"  # how many rows there are
    bare: str | None = None  # rows are not objects, but this field's values

    def __hash__(self) -> int:
        return id(self)  # there are few of them

    def queryable(self) -> list[str]:
        return sorted(name for name, field in self.fields.items() if field.queryable)

    def projectable(self) -> list[str]:
        return sorted(name for name, field in self.fields.items() if field.projectable)


def always(name: str) -> Callable[[Node | None], Source]:
    """The same source, whatever is asked."""
    return lambda where: Source(name)


# Nodes of a state, as an expression over the nodes n. Those inactive for longer than that are about to be purged.
PURGE_TTL = "%(node_purge_ttl)s::interval"  # the compiler puts a parameter there
ACTIVE = "(n.deactivated IS NULL AND n.expired IS NULL)"
INACTIVE = f"(n.deactivated > statement_timestamp() - {PURGE_TTL} OR n.expired > statement_timestamp() - {PURGE_TTL})"
OF_NODES = {"active": ACTIVE, "inactive": INACTIVE}


# Where a statement of ``entities.sql`` stands within others, and the columns that its parameters are there.
_WITHIN = re.compile(r"SELECT NULL::text AS json /\* (\w+) \*/")
OF_FACTS = {
    "template": "v.template",
    "leaves": "v.leaves",
    "first_place": "v.first_place",
    "next_place": "v.next_place",
    "number": "v.number",
    "shared": "shared.json",
    "places": "f.places",
    "moving": "f.moving",
    "own_facts": "o.facts",
    "own_leaves": "o.leaves",
}


@cache
def statement(name: str) -> str:
    """One of ``entities.sql``, without its comments and with those that stand within it."""
    lines = query(name).as_string().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--")).strip()
    return _WITHIN.sub(lambda found: _with_columns(found[1], OF_FACTS), text)


def join(statement_name: str, name: str, alias: str) -> str:
    """A statement of ``entities.sql`` that joins what is found by a name (a placeholder) as the column ``value`` of ``alias``."""
    text = _without_first_line(_with_columns(statement_name, {"name": name}))
    return text.replace("this_base", f"base_of_{alias}").replace("this_fact", alias)


def join_plainly(statement_name: str) -> str:
    """One that joins what needs no name."""
    return _without_first_line(statement(statement_name))


def subselect(statement_name: str, **columns: str) -> str:
    """A statement of ``entities.sql`` with columns of a row where its parameters are."""
    return f"({_with_columns(statement_name, columns)})"


def embedded(data: str, href: str) -> EntityField:
    """A part of a row as ``{data, href}``, both of them texts: the first is JSON."""
    text = f"""('{{"data":' || {data} || ',"href":' || to_json({href}) || '}}')"""
    return EntityField(f"{text}::json", Type.JSON, queryable=False, json=text)


def _with_columns(name: str, columns: Mapping[str, str]) -> str:
    text = statement(name)
    for parameter, column in columns.items():
        text = text.replace(f"%({parameter})s", column)
    return text


def _without_first_line(text: str) -> str:
    """What a statement joins to the tables of that line."""
    _, end, joined = text.partition("\n")
    return end + joined
