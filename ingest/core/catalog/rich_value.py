"""Tells a value of Puppet's language from a hash: how Puppet puts into JSON what JSON does not know."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

from ingest.core.catalog.model import Json
from ingest.errors import Rejected

TYPE_KEY, VALUE_KEY = "__ptype", "__pvalue"
PCORE_TYPE_KEY, PCORE_VALUE_KEY, OLD_VALUE_KEY = "__pcore_type__", "__pcore_value__", "value"

# What Puppet 4 writes as one value. An object of another type may have a member that is called "value".
_WITH_VALUE = frozenset(
    (
        "Hash", "Sensitive", "Symbol", "LocalRef", "Binary", "Regexp", "Timestamp", "Timespan", "SemVer", "SemVerRange",
        "URI",
    )
)  # fmt: skip
_TYPE = re.compile(r"Pcore::(\w+)Type\Z")


class Rich(NamedTuple):
    type: str
    value: Json
    has_value: bool  # else it is an object, and has members
    members: dict[str, Json]

    @property
    def data_type(self) -> str | None:
        """The name of the data type that it is (``Integer``), not one that it has."""
        found = _TYPE.match(self.type)
        return found[1] if found else None


def rich_value(value: dict[str, Json]) -> Rich | None:
    """What the hash stands for; None where it is nothing but a hash."""
    if TYPE_KEY in value:
        key, value_key = TYPE_KEY, VALUE_KEY
    elif PCORE_TYPE_KEY in value:
        key, value_key = PCORE_TYPE_KEY, PCORE_VALUE_KEY
    else:
        return None
    type_ = _name_of(value[key])
    if type_ is None:
        return None
    if key == PCORE_TYPE_KEY and value_key not in value and type_ in _WITH_VALUE:
        value_key = OLD_VALUE_KEY
    inner = value.get(value_key)
    if isinstance(inner, str) or type_ in ("Hash", "Sensitive", "Default"):
        return Rich(type_, inner, True, {})
    return Rich(type_, None, False, {name: item for name, item in value.items() if name != key})


def pairs_of(rich: Rich) -> Iterable[tuple[Json, Json]]:
    """The keys and values of a hash that has keys which are not strings."""
    flat = rich.value or []
    if not isinstance(flat, list):
        raise Rejected("invalid", "a rich hash is not a list of keys and values")
    return zip_longest(flat[0::2], flat[1::2])  # as Puppet: what has no value has none


def _name_of(type_: Json) -> str | None:
    """The name of a type, which may stand there itself instead."""
    if isinstance(type_, dict):
        members = type_.get("_pcore_init_hash")
        type_ = (members if isinstance(members, dict) else type_).get("name")
    return type_ if isinstance(type_, str) else None
