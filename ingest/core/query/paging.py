"""The clauses that limit and order a result, of the AST and of a request's parameters; and how a query's parts are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from ingest.core.query import ast
from ingest.core.query.ast import BadQuery

PAGING = ("limit", "offset", "order_by")
WHOLE_NUMBER_MAX = 2**63 - 1
ORDERS_MAX = 100  # fields by which a result is ordered; no entity has that many


def operator(given: Sequence[object]) -> str:
    """Operators may be written in capitals."""
    return given[0].lower() if given and isinstance(given[0], str) else ""


def is_paging(given: object) -> bool:
    return isinstance(given, list) and operator(given) in PAGING


def with_paging(query: ast.Query, clauses: Sequence[object]) -> ast.Query:
    found: dict[str, object] = {}
    for clause in clauses:
        assert isinstance(clause, list)
        name = operator(clause)
        if name in found:
            raise BadQuery(f"Multiple '{name}' clauses are not permitted")
        if len(clause) < 2 or clause[1] is None:
            raise BadQuery(f"Received '{name}' clause without an argument")
        found[name] = clause[1]
    changes: dict[str, object] = {}
    if "limit" in found:
        changes["limit"] = whole_number("limit", found["limit"], 1)
    if "offset" in found:
        changes["offset"] = whole_number("offset", found["offset"], 0)
    if "order_by" in found:
        changes["order_by"] = orders(found["order_by"])
    return msgspec.structs.replace(query, **changes)


def whole_number(name: str, given: object, least: int) -> int:
    """Of ``limit`` and ``offset``; text may hold the digits. Raises BadQuery."""
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 20:
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= WHOLE_NUMBER_MAX:
        kind = "positive non-zero" if least else "non-negative"
        raise BadQuery(f"Illegal value '{plain(given)}' for :{name}; expected a {kind} integer.")
    return given


def orders(given: object) -> tuple[ast.Order, ...]:
    if not isinstance(given, list) or len(given) > ORDERS_MAX:
        raise BadQuery(f"order_by takes an array of at most {ORDERS_MAX} fields")
    found = []
    for one in given:
        name, direction = one if isinstance(one, list) and len(one) == 2 else (one, "asc")
        if isinstance(one, list) and len(one) == 1:
            name = one[0]
        if not isinstance(name, str) or direction not in ("asc", "desc"):
            raise BadQuery(
                f"Illegal value '{plain(one)}' in order_by; 'order' must be either 'asc' or 'desc'"
            )
        found.append(ast.Order(name, direction == "desc"))
    return tuple(found)


def shown(given: object) -> str:
    """Enough of it to find it by."""
    text = json.dumps(given, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:200] + "..."


def plain(given: object) -> str:
    return given[:200] if isinstance(given, str) else shown(given)
