"""Which rows a path below /pdb/query/v4 means: its entity, and the conditions that stand in the path itself."""

from __future__ import annotations

from typing import NamedTuple

from ingest.core.query.ast import Node, equals

GLOBAL = frozenset(
    {
        "optimize_drop_unused_joins",
        "include_facts_expiration",
        "include_package_inventory",
        "explain",
        "origin",
        "timeout",
    }
)
TYPICAL = GLOBAL | {"query", "limit", "offset", "order_by", "include_total", "pretty"}
DISTINCT = frozenset({"distinct_resources", "distinct_start_time", "distinct_end_time"})
COUNTS = frozenset({"summarize_by", "count_by", "counts_filter"}) | DISTINCT


class Target(NamedTuple):
    entity: str  # "": the query names it
    allowed: frozenset[str] = TYPICAL
    required: tuple[str, ...] = ()
    filters: tuple[Node, ...] = ()
    only_active: bool = False  # nodes, unless the query says something of their state
    parent: tuple[str, str] | None = None  # what must be known: 404 otherwise
    single: tuple[str, str] | None = None  # one row, not in an array: 404 where there is none
    is_first_value: bool = False  # the only column of the first row is all of the answer


_ACTIVE = (
    "nodes", "facts", "resources", "inventory", "factsets", "edges", "fact-contents", "package-inventory",
    "catalog-inputs", "catalog-input-contents",
)  # fmt: skip
_ANY = ("environments", "producers", "packages", "fact-names", "fact-paths", "reports", "catalogs")
_ROOT = Target("", TYPICAL | {"ast_only"}, ("query",))
_CHILDREN = {
    "nodes": ("node", "certname", ("facts", "resources")),
    "environments": ("environment", "environment", ("facts", "resources", "reports", "events")),
    "producers": ("producer", "producer", ("factsets", "catalogs", "reports")),
    "catalogs": ("catalog", "certname", ("edges", "resources")),
}
_ONE = {
    "nodes": ("node", "certname"), "catalogs": ("catalog", "certname"), "factsets": ("factset", "certname"),
    "environments": ("environment", "name"), "producers": ("producer", "name"),
}  # fmt: skip


def find_target(parts: list[str]) -> Target | None:
    """``parts`` of the path, decoded; None: there is no such path."""
    if parts in ([], [""]):
        return _ROOT
    name = parts[0]
    if len(parts) == 1:
        return _list(name)
    if len(parts) == 2 and name in _ONE:
        kind, field = _ONE[name]
        allowed = GLOBAL | {"pretty"} if name in ("environments", "producers") else TYPICAL
        return Target(name, allowed, filters=(equals(field, parts[1]),), single=(kind, parts[1]))
    if name in _CHILDREN:
        return _child(name, parts)
    return _narrowed(parts)


def _list(name: str) -> Target | None:
    if name in _ACTIVE or name in _ANY:
        return Target(name.replace("-", "_"), only_active=name in _ACTIVE)
    if name == "events":
        return Target("events", TYPICAL | DISTINCT)
    if name == "event-counts":
        return Target("event_counts", TYPICAL | COUNTS, ("summarize_by",))
    if name == "aggregate-event-counts":
        return Target("aggregate_event_counts", GLOBAL | COUNTS | {"query", "pretty"}, ("summarize_by",))
    return None


def _child(name: str, parts: list[str]) -> Target | None:
    kind, field, children = _CHILDREN[name]
    if parts[2] not in children:
        return None
    found = find_target(parts[2:]) if len(parts) == 3 else _narrowed(parts[2:])
    if found is None or found.single is not None:
        return None
    return found._replace(filters=(*found.filters, equals(field, parts[1])), parent=(kind, parts[1]))


def _narrowed(parts: list[str]) -> Target | None:
    """By name or type, and then by value or title."""
    match parts:
        case ["facts", name]:
            return Target("facts", filters=(equals("name", name),), only_active=True)
        case ["facts", name, value]:
            filters = (equals("name", name), equals("value", value))
            return Target("facts", filters=filters, only_active=True)
        case ["resources", type_]:
            return Target("resources", filters=(equals("type", type_),), only_active=True)
        case ["resources", type_, title]:
            filters = (equals("type", type_), equals("title", title))
            return Target("resources", filters=filters, only_active=True)
        case ["package-inventory", node]:
            return Target("package_inventory", filters=(equals("certname", node),))
        case ["factsets", node, "facts"]:
            return Target("factsets", filters=(equals("certname", node),), parent=("factset", node))
        case ["reports", hash_, "events"]:
            return Target(
                "events", TYPICAL | DISTINCT, filters=(equals("report", hash_),), parent=("report", hash_)
            )
        case ["reports", hash_, ("metrics" | "logs") as what]:
            return Target(
                f"report_{what}",
                GLOBAL | {"pretty"},
                filters=(equals("hash", hash_), equals("type", "any")),
                parent=("report", hash_),
                is_first_value=True,
            )
    return None
