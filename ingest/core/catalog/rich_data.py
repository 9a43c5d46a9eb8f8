"""Rich data as PuppetDB's terminus writes it: every value that JSON does not know becomes a string.

Source: Puppet's ``Puppet::Pops::Serialization::ToStringifiedConverter``, and the ``__ptype`` encoding of its
``ToDataConverter``.
"""

from __future__ import annotations

from collections.abc import Callable

from ingest.core.catalog.model import Json
from ingest.errors import Rejected

TYPE_KEY, VALUE_KEY = "__ptype", "__pvalue"
# What the terminus writes has an object id in it that differs from run to run; this has not.
SENSITIVE = "Sensitive [value redacted]"


def stringify(value: Json) -> Json:
    """The value with rich data as strings. Plain values are returned as they are, not copied."""
    if isinstance(value, dict):
        if TYPE_KEY in value:
            return _rich(value)
        changed = {key: new for key, item in value.items() if (new := stringify(item)) is not item}
        return value | changed if changed else value
    if isinstance(value, list):
        items = [stringify(item) for item in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


def _rich(value: dict[str, Json]) -> Json:
    type_ = value[TYPE_KEY]
    if type_ == "Hash":
        flat = value.get(VALUE_KEY) or []
        if not isinstance(flat, list):
            raise Rejected("invalid", "a rich hash is no list of keys and values")
        return {_key(k): stringify(v) for k, v in zip(flat[0::2], flat[1::2], strict=False)}
    if type_ in ("Sensitive", "Default", "Regexp"):
        return _SIMPLE[type_](value.get(VALUE_KEY))
    if VALUE_KEY in value:
        inner = value[VALUE_KEY]
        return inner if isinstance(inner, str) else stringify(inner)
    return _object(str(type_), {k: v for k, v in value.items() if k != TYPE_KEY})


_SIMPLE: dict[str, Callable[[Json], str]] = {
    "Sensitive": lambda _: SENSITIVE,
    "Default": lambda _: "default",
    "Regexp": lambda source: "/" + str(source).replace("\\/", "/").replace("/", "\\/") + "/",
}


def _key(key: Json) -> str:
    text = stringify(key)
    if isinstance(text, str):
        # The reserved keys of the encoding itself.
        return f"reserved key: {text}" if text in (TYPE_KEY, VALUE_KEY) else text
    return "" if text is None else _print(text, top=True)


def _object(type_: str, members: dict[str, Json]) -> str:
    """An object without a value of its own: a Pcore type, or something with named attributes."""
    if type_.startswith("Pcore::") and type_.endswith("Type"):
        name = type_.removeprefix("Pcore::").removesuffix("Type")
        inner = ", ".join(_print(stringify(item)) for item in members.values())
        return f"{name}[{inner}]" if inner else name
    return f"{type_}({_print(stringify(members))})"


def _print(value: Json, *, top: bool = False) -> str:
    """As Puppet prints a value inside another."""
    if value is None:
        return "undef"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if top else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ", ".join(_print(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_print(k)} => {_print(v)}" for k, v in value.items()) + "}"
    return str(value)
