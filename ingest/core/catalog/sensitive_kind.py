"""What Puppet says of a secret inside another value that it prints: the type that it has, in general terms.

Source: Puppet's ``TypeCalculator#infer``, generalised. Where that says more of a secret than what it is made of (the
expression of a regular one, the length of strings, the type that a type is), this says less.
"""

from __future__ import annotations

import re
from typing import Any

from ingest.core.catalog.model import Json
from ingest.core.catalog.rich_value import TYPE_KEY, VALUE_KEY, pairs_of, rich_value

# The name of a type, or that of a container with the kinds of what is in it.
Kind = str | tuple[Any, ...]

_EMPTY = "Unit"
_NAME = re.compile(r"[A-Z]\w{0,99}(?:::[A-Z]\w{0,99}){0,9}")  # of a type; anything else may be what is secret
_SCALAR_DATA = frozenset(("String", "Integer", "Float", "Numeric", "Boolean", "ScalarData"))
_SCALAR = _SCALAR_DATA | {"Regexp", "SemVer", "Timespan", "Timestamp", "Scalar"}


class _KindAlone(dict[str, Json]):
    """Of a class of its own, because any hash may be what somebody sent."""


def kind_alone(secret: Json) -> Json:
    """Of a Sensitive value one that has its kind and nothing else."""
    rich = rich_value(secret) if isinstance(secret, dict) else None
    if rich is None or rich.type != "Sensitive":
        return {TYPE_KEY: "Sensitive"}
    return {TYPE_KEY: "Sensitive", VALUE_KEY: _KindAlone(kind=kind_of(rich.value))}


def kind_of(value: Json) -> str:
    return _printed(_kind(value))


def _kind(value: Json) -> Kind:
    if isinstance(value, dict):
        if isinstance(value, _KindAlone):
            return str(value["kind"])
        rich = rich_value(value)
        if rich is None or rich.type == "Hash":
            pairs = list(value.items() if rich is None else pairs_of(rich))
            return ("Hash", _common([key for key, _ in pairs]), _common([item for _, item in pairs]))
        if rich.type == "Sensitive":
            return ("Sensitive", _kind(rich.value))
        if rich.data_type:
            return "Type"
        return rich.type if _NAME.fullmatch(rich.type) else "Any"
    if isinstance(value, list):
        return ("Array", _common(value))
    if isinstance(value, bool):
        return "Boolean"
    return {str: "String", int: "Integer", float: "Float"}.get(type(value), "Undef")


def _common(values: list[Json]) -> Kind:
    found: Kind = _EMPTY
    for value in values:
        found = _merged(found, _kind(value))
    return found


def _merged(one: Kind, other: Kind) -> Kind:
    if one == other or other in (_EMPTY, "Undef"):
        return one if one != _EMPTY else other
    if one in (_EMPTY, "Undef"):
        return other
    if isinstance(one, tuple) and isinstance(other, tuple) and one[0] == other[0] != "Sensitive":
        return (one[0], *(_merged(a, b) for a, b in zip(one[1:], other[1:], strict=True)))
    if {one, other} <= {"Integer", "Float", "Numeric"}:
        return "Numeric"
    if {one, other} <= _SCALAR_DATA:
        return "ScalarData"
    if {one, other} <= _SCALAR:
        return "Scalar"
    return "Data" if _is_data(one) and _is_data(other) else "RichData"


def _is_data(kind: Kind) -> bool:
    if isinstance(kind, tuple):
        return (kind[0] == "Array" or (kind[0] == "Hash" and kind[1] in ("String", _EMPTY))) and _is_data(
            kind[-1]
        )
    return kind in _SCALAR_DATA or kind in ("Data", "Undef", _EMPTY)


def _printed(kind: Kind) -> str:
    if isinstance(kind, str):
        return kind
    if kind == ("Hash", _EMPTY, _EMPTY):
        return "Hash[0, 0]"
    return f"{kind[0]}[{', '.join(_printed(inner) for inner in kind[1:])}]"
