"""What a resource's own parameters say about its names and about other resources, as PuppetDB's terminus understands it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ingest.core.catalog.edges import Relation, parse_reference
from ingest.core.catalog.model import Json, Ref, scalar_text
from ingest.core.catalog.namevars import COMPOSITE, NAMEVARS, NOT_ISOMORPHIC
from ingest.errors import Rejected

# (metaparameter, its relationship, whether the resource is the edge's source)
RELATIONSHIP_PARAMETERS = (
    ("before", "before", True),
    ("require", "required-by", False),
    ("notify", "notifies", True),
    ("subscribe", "subscription-of", False),
)
UNORDERED_METAPARAMETERS = ("alias", "audit", "before", "check", "notify", "require", "subscribe", "tag")
_RELATION_TARGET = re.compile(r"^[A-Z][a-z0-9_]*(::[A-Z][a-z0-9_]*)*\[.*\]", re.DOTALL)
_NUMBER = re.compile(r"\A\d+\Z")


def add_aliases(type_: str, title: str, parameters: dict[str, Json], known: Any) -> tuple[str, ...]:
    """Puts the namevar's value among ``alias`` where it differs from the title; returns all aliases.

    ``known``: all of them, from who knows the types; None: find them.
    """
    given = parameters.get("alias")
    aliases = [a for a in (given if isinstance(given, list) else [given]) if a is not None]
    if known is not None:
        if not isinstance(known, list):
            raise Rejected("invalid", f"the aliases of {Ref(type_, title).short} are not a list")
        if known:
            parameters["alias"] = aliases = list(known)
    elif type_ not in COMPOSITE:
        if type_ not in NOT_ISOMORPHIC:
            name = _name(type_, title, parameters)
            if name is not None and name not in aliases:
                aliases.append(name)
        if aliases:
            parameters["alias"] = aliases
    return tuple(alias for alias in aliases if isinstance(alias, str))


def _name(type_: str, title: str, parameters: dict[str, Json]) -> Json:
    """The namevar's value where it is another name than the title."""
    name = parameters.get(NAMEVARS.get(type_, "name"))
    if name is None and type_ == "File" and title.endswith("/"):
        name = title.rstrip("/") or None  # File's title pattern drops trailing slashes
    # Puppet keeps some titles as what no string equals: the main class's and stage's as a symbol, that of
    # `listen { 443: }` as a number. Real catalogs have both; a quoted '443' cannot be told from it here.
    is_no_string = (title == "main" and type_ in ("Class", "Stage")) or _NUMBER.match(title)
    return name if name != title or is_no_string else None


def sort_metaparameters(parameters: dict[str, Json]) -> None:
    for name in UNORDERED_METAPARAMETERS:
        value = parameters.get(name)
        if isinstance(value, list) and len(value) > 1:
            parameters[name] = sorted(value, key=scalar_text)


def relations(ref: Ref, parameters: dict[str, Json]) -> Iterable[Relation]:
    for name, relationship, forward in RELATIONSHIP_PARAMETERS:
        for other in _flat(parameters.get(name)):
            if not isinstance(other, str) or not _RELATION_TARGET.match(other):
                raise Rejected("invalid_relationship", f"{ref.short} has a {name} that is not a reference")
            target = parse_reference(other)
            if target.type == "File" and target.title.endswith("/"):
                target = Ref("File", target.title.rstrip("/"))
            yield Relation(relationship, forward, target)


def _flat(value: Json) -> Iterable[Json]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif value is not None and value is not False:
        yield value
