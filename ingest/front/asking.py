"""Reads a request: parameters from the address, a form or a JSON body; from them what is asked for, and how."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ingest.core.nesting import require_shallow
from ingest.core.query import ast
from ingest.core.query.ast import BadQuery
from ingest.core.query.paging import orders, shown, whole_number
from ingest.core.query.pql import parse_pql
from ingest.core.query.reading import read_filter, read_query
from ingest.errors import Rejected
from ingest.front.paths import Target
from ingest.front.refusal import Refusal

FORM = "application/x-www-form-urlencoded"
PARAMETERS_MAX = 100
_BOOLEANS = ("ast_only", "include_total", "pretty", "distinct_resources")
_WIDER = {
    "nodes": ("include_facts_expiration", "nodes_with_expiration"),
    "factsets": ("include_package_inventory", "factsets_with_packages"),
}
_NO_CERTNAME = ("fact_paths", "environments", "packages")


class Asked(msgspec.Struct, frozen=True):
    """What a request wants to know."""

    query: ast.Query
    given: object = None  # the query as it was given, as JSON
    include_total: bool = False
    pretty: bool = False
    ast_only: bool = False
    explain: bool = False
    timeout_s: float | None = None
    counts: dict[str, Any] = {}


def parameters_of(method: str, address: str, content_type: str, body: bytes) -> dict[str, Any]:
    """``address``: what stands behind its question mark. Raises Refusal or BadQuery."""
    found = read_pairs(address)
    if method not in ("GET", "POST"):
        raise BadQuery("PuppetDB queries must be made via GET/POST")
    kind = content_type.partition(";")[0].strip().lower()
    if method == "POST":
        if kind and kind != "application/json":
            raise Refusal(415, f"content type {kind} not supported")
        return _json_object(body)
    if body and kind == FORM:  # as PuppetDB's own examples and its Ruby client do it
        found |= read_pairs(body.decode("latin-1"))
    return found


def read_pairs(text: str) -> dict[str, Any]:
    """The parameters of an address or a form. Raises BadQuery."""
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, encoding="utf-8", errors="replace", max_num_fields=PARAMETERS_MAX
        )
    except ValueError as error:
        raise BadQuery(f"more than {PARAMETERS_MAX} parameters") from error
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadQuery(f"the parameter '{name[:200]}' is given twice")
        found[name] = value
    return found


def _json_object(body: bytes) -> dict[str, Any]:
    found = parse_json(body.decode("utf-8", "replace")) if body else {}
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise BadQuery('the body of a POST is a JSON object, such as {"query": ...}')
    return found


def parse_json(text: str) -> Any:
    """Raises BadQuery, which shows the place."""
    try:
        require_shallow(text.encode("utf-8", "replace"))
        return json.loads(text)
    except Rejected as error:
        raise BadQuery(str(error)) from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise BadQuery(
                f"Only one query may be sent in a request. Found JSON {text[error.pos :][:200]} after the query"
            ) from error
        line = (text.split("\n") or [""])[error.lineno - 1][:2000]
        raise BadQuery(
            f"Json parse error at line {error.lineno}, column {error.colno}:\n\n{line}\n"
            f"{' ' * (error.colno - 1)}^\n\n{error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of ten thousand digits
        raise BadQuery(f"Json parse error: {error}") from error


def understand(target: Target, parameters: dict[str, Any]) -> Asked:
    """What is asked for. Raises BadQuery."""
    for name in target.required:
        if parameters.get(name) is None:
            raise BadQuery(f"Missing required query parameter '{name}'")
    for name in parameters:
        if name not in target.allowed:
            raise BadQuery(f"Unsupported query parameter '{name[:200]}'")
    given = parameters.get("query")
    flags = {name: _boolean(parameters.get(name)) for name in _BOOLEANS}
    if target.entity:
        query, given = _of_entity(target, given)
    else:
        query, given = _of_root(given, restrict=not flags["ast_only"])
    query = _wider(target, query, parameters)
    paged = _with_parameters(query, parameters)
    return Asked(
        paged if target.single is None else query,
        given,
        include_total=flags["include_total"],
        pretty=flags["pretty"],
        ast_only=flags["ast_only"],
        explain=_explain(parameters.get("explain")),
        timeout_s=_timeout(parameters.get("timeout")),
        counts=_counts(parameters, distinct=flags["distinct_resources"]),
    )


def _of_root(given: object, *, restrict: bool) -> tuple[ast.Query, object]:
    tree = given
    if isinstance(given, str):
        tree = parse_json(given) if given.lstrip().startswith("[") else parse_pql(given)
    query = read_query(tree)
    if restrict and query.entity not in _NO_CERTNAME:
        query = _active_only(query)
    return query, tree


def _of_entity(target: Target, given: object) -> tuple[ast.Query, object]:
    tree = (parse_json(given) if given.strip() else None) if isinstance(given, str) else given
    if target.single is None:
        query = msgspec.structs.replace(read_filter(tree), entity=target.entity)
    else:
        query = ast.Query(target.entity)  # the path says it all
    if target.only_active:
        query = _active_only(query)
    for condition in target.filters:
        query = query.restricted(condition)
    return query, tree


def _active_only(query: ast.Query) -> ast.Query:
    if any(map(ast.is_node_state, ast.walk(query.where))):
        return query
    return query.restricted(ast.equals("node_state", "active"))


def _wider(target: Target, query: ast.Query, parameters: dict[str, Any]) -> ast.Query:
    """With what a parameter adds to an entity. PuppetDB adds no packages to a single factset."""
    parameter, entity = _WIDER.get(query.entity, ("", ""))
    if not _boolean(parameters.get(parameter)) or (target.single and query.entity != "nodes"):
        return query
    return msgspec.structs.replace(query, entity=entity)


def _with_parameters(query: ast.Query, parameters: dict[str, Any]) -> ast.Query:
    """Those of the request count before what the query itself says."""
    changes: dict[str, Any] = {}
    if (limit := parameters.get("limit")) is not None:
        changes["limit"] = whole_number("limit", limit, 1)
    if (offset := parameters.get("offset")) is not None:
        changes["offset"] = whole_number("offset", offset, 0)
    if pairs := _order_pairs(parameters.get("order_by")):
        changes["order_by"] = orders(pairs)
    return msgspec.structs.replace(query, **changes)


def _order_pairs(given: object) -> list[list[str]]:
    if isinstance(given, str) and given:
        text, given = given, None
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadQuery(
                f"Illegal value '{text[:200]}' for :order_by; expected a JSON array of maps."
            ) from error
    if given in (None, [], "", {}):
        return []
    if not (isinstance(given, list) and all(isinstance(one, dict) for one in given)):
        raise BadQuery(f"Illegal value '{shown(given)}' for :order_by; expected an array of maps.")
    return [_order_pair(one) for one in given]


def _order_pair(given: dict[str, Any]) -> list[str]:
    if extra := [name for name in given if name not in ("field", "order")]:
        raise BadQuery(f"Illegal value '{shown(given)}' in :order_by; unknown key '{extra[0]}'.")
    if not isinstance(given.get("field"), str):
        raise BadQuery(f"Illegal value '{shown(given)}' in :order_by; missing required key 'field'.")
    order = given.get("order")
    direction = "asc" if order is None else str(order).lower()
    if direction not in ("asc", "desc"):
        raise BadQuery(f"Illegal value '{shown(given)}' in :order_by; 'order' must be either 'asc' or 'desc'")
    return [given["field"], direction]


def _boolean(given: object) -> bool:
    return given if isinstance(given, bool) else str(given).lower() == "true"


def _explain(given: object) -> bool:
    if given not in (None, "analyze"):
        raise BadQuery(f"Illegal value '{str(given)[:200]}' for :explain; expected `analyze`.")
    return given is not None


def _timeout(given: object) -> float | None:
    """PuppetDB 8's parameter: seconds, never longer than the setting."""
    if given is None:
        return None
    try:
        seconds = float(str(given))
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise BadQuery(f"Illegal value '{str(given)[:200]}' for :timeout; expected seconds")
    return seconds or None


def _counts(parameters: dict[str, Any], *, distinct: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: parameters[name] for name in ("summarize_by", "count_by", "counts_filter") if name in parameters
    }
    if isinstance(found.get("counts_filter"), str):
        found["counts_filter"] = parse_json(found["counts_filter"])
    times: dict[str, Any] = {
        name: parameters[name] for name in ("distinct_start_time", "distinct_end_time") if name in parameters
    }
    if "distinct_resources" in parameters:
        if len(times) != 2:
            raise BadQuery(
                "'distinct_resources' query parameter requires accompanying parameters "
                "'distinct_start_time' and 'distinct_end_time'"
            )
        found |= times
        found["distinct_resources"] = distinct
    elif times:
        raise BadQuery(
            "'distinct_resources' query parameter must accompany parameters "
            "'distinct_start_time' and 'distinct_end_time'"
        )
    return found
