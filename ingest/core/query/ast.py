"""A query as values: PuppetDB's AST, version 4, read and checked, in whatever form it was asked.

A node of the tree says nothing yet about an entity's fields: ``store/query`` knows those.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ingest.errors import IngestError

Scalar = str | int | float | bool | None
Value = object  # what JSON can be


class BadQuery(IngestError):
    """The one who asks must change the query: tell him what is wrong with it, in a text that names the part."""


class Match(msgspec.Struct, frozen=True):
    """``match("...")`` within a path: any part that the pattern finds."""

    pattern: str


class Field(msgspec.Struct, frozen=True):
    """A field, or a path into one that holds JSON: ``facts.os.release[0]``."""

    name: str
    parts: tuple[str | int | Match, ...]
    literal: tuple[str, ...]  # the same parts with an index still in its name
    text: str  # as it was asked for

    def literal_names(self) -> tuple[str, ...]:
        """The parts but for places in arrays; ``match()`` is a name as well."""
        named = [part for part in self.parts if not isinstance(part, int)]
        return tuple(
            text if isinstance(part, Match) else part for part, text in zip(named, self.literal, strict=True)
        )


class Function(msgspec.Struct, frozen=True):
    """``["function", "count", ...]``."""

    name: str
    field: Field | None = None
    format: str | None = None  # to_string's


class Pair(msgspec.Struct, frozen=True):
    """``["parameter", "ensure"]``, ``["fact", "kernel"]``, ``["node", "active"]``."""

    kind: str
    name: str


class Compare(msgspec.Struct, frozen=True):
    op: str  # = ~ ~> > < >= <=
    subject: Field | Function | Pair
    value: Value


class IsNull(msgspec.Struct, frozen=True):
    field: Field
    is_null: bool


class InArray(msgspec.Struct, frozen=True):
    subject: Field | Pair
    values: tuple[Value, ...]


class InQuery(msgspec.Struct, frozen=True):
    fields: tuple[Field, ...]
    query: Query


class Related(msgspec.Struct, frozen=True):
    """``["subquery", "facts", ...]``: rows of another entity that belong together with this one's."""

    entity: str
    where: Node | None


class And(msgspec.Struct, frozen=True):
    parts: tuple[Node, ...]


class Or(msgspec.Struct, frozen=True):
    parts: tuple[Node, ...]


class Not(msgspec.Struct, frozen=True):
    part: Node


Node = Compare | IsNull | InArray | InQuery | Related | And | Or | Not
Column = Field | Function


class Order(msgspec.Struct, frozen=True):
    field: str
    descending: bool = False


class Query(msgspec.Struct, frozen=True):
    """What is asked of one entity."""

    entity: str  # with underscores
    columns: tuple[Column, ...] | None = None  # None: all
    where: Node | None = None
    group_by: tuple[Column, ...] = ()
    order_by: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int | None = None

    def restricted(self, more: Node | None) -> Query:
        """The same where that holds as well."""
        if more is None:
            return self
        return msgspec.structs.replace(self, where=more if self.where is None else And((self.where, more)))


def walk(node: Node | None) -> Iterator[Node]:
    """Every node below this one, those of subqueries included."""
    pending = [] if node is None else [node]
    while pending:
        found = pending.pop()
        yield found
        match found:
            case And(parts) | Or(parts):
                pending.extend(parts)
            case Not(part):
                pending.append(part)
            case InQuery(_, query):
                pending.extend(() if query.where is None else (query.where,))
            case Related(_, where):
                pending.extend(() if where is None else (where,))


def is_node_state(node: Node) -> bool:
    """Whether it asks for nodes by their state."""
    return (
        isinstance(node, Compare)
        and node.op == "="
        and (
            node.subject == Pair("node", "active")
            or (isinstance(node.subject, Field) and node.subject.text == "node_state")
        )
    )


def equals(name: str, value: Value) -> Compare:
    """``["=", name, value]``."""
    return Compare("=", Field(name, (), (), name), value)
