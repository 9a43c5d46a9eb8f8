"""One catalog as the engine understands it, whatever form it arrived in.

The shapes follow PuppetDB's wire format for ``replace catalog`` version 9: a native or a legacy catalog
becomes the same values that its PuppetDB form would give.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

Json = Any  # None | bool | int | float | str | list[Json] | dict[str, Json]


class Ref(NamedTuple):
    """What names a resource inside one catalog."""

    type: str
    title: str

    def __str__(self) -> str:
        return f"{self.type}[{self.title}]"

    @property
    def short(self) -> str:
        """For a person's line: titles may be longer than one."""
        text = str(self)
        return text if len(text) <= 200 else text[:200] + "..."


def scalar_text(value: Json) -> str:
    """A title or an element as Ruby's ``to_s`` writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


# The order is part of the stored form of an edge: append, never insert.
RELATIONSHIPS = ("contains", "before", "required-by", "notifies", "subscription-of")


class Resource(msgspec.Struct, frozen=True):
    """One resource. ``file`` and ``line`` are its position: not part of its content."""

    type: str
    title: str
    exported: bool
    tags: tuple[str, ...]  # sorted, each once
    parameters: dict[str, Json]  # sensitive values already removed
    kind: str | None = None
    file: str | None = None
    line: int | None = None
    extra: dict[str, Json] | None = None  # members that no column knows, kept as they came

    @property
    def ref(self) -> Ref:
        return Ref(self.type, self.title)


class Edge(NamedTuple):
    """``source`` contains, comes before or notifies ``target``; relationship is one of RELATIONSHIPS."""

    source: Ref
    target: Ref
    relationship: str


class Header(msgspec.Struct, frozen=True):
    """What changes with every run of a node although its catalog does not."""

    certname: str
    producer_timestamp: datetime  # aware, UTC
    version: str
    environment: str | None = None
    producer: str | None = None
    transaction_uuid: str | None = None
    catalog_uuid: str | None = None
    code_id: str | None = None
    job_id: str | None = None


class Catalog(msgspec.Struct, frozen=True):
    """A whole catalog: resources sorted by (type, title), edges sorted, nothing twice."""

    header: Header
    resources: tuple[Resource, ...]
    edges: tuple[Edge, ...]
