"""The data types of Puppet's language as values: how each is called, and with which arguments.

Source: Puppet's ``TypeFormatter``. A type arrives as an object of the members that are not their default; one whose
members are not what Puppet would write is printed as far as it goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ingest.core.catalog.model import Json
from ingest.core.catalog.rich_members import is_any, is_type, listed, literal, text_of, type_in
from ingest.core.catalog.rich_value import TYPE_KEY, VALUE_KEY, Rich, rich_value
from ingest.core.catalog.ruby_text import regexp_of

Members = dict[str, Json]


class Raw(str):
    """A text that is printed without quotes."""

    __slots__ = ()


class Type(NamedTuple):
    name: str
    arguments: list[Json]
    resolved: Json = None  # what an alias is another name of
    definition: Json = None  # of an object type


def data_type(rich: Rich) -> Type:
    """How the type is printed. ``rich`` is one."""
    name, members = rich.data_type or "", rich.members
    if name in _NAMED:
        return _NAMED[name](members)
    arguments = _ARGUMENTS.get(name, _unknown)
    return Type(name, arguments(members))


def _unknown(members: Members) -> list[Json]:
    return list(members.values())


def _none(_: Members) -> list[Json]:
    return []


def _range(members: Members) -> list[Json]:
    """The bounds of an Integer or a Float: the lower one also where only the upper one is given."""
    low, high = members.get("from"), members.get("to")
    if low is None and high is None:
        return []
    return [Raw("default") if low is None else low] + ([] if high is None else [high])


def _moments(members: Members) -> list[Json]:
    """The bounds of a Timestamp or a Timespan: one where both are the same."""
    bounds = _range(members)
    return bounds[:1] if bounds[:1] == bounds[1:] else bounds


def _size(members: Members, name: str = "size_type") -> list[Json]:
    found = type_in(members.get(name))
    return _range(found.members) if found else []


def _array(members: Members) -> list[Json]:
    return _container(members, [members.get("element_type", members.get("type"))])


def _hash(members: Members) -> list[Json]:
    return _container(members, [members.get("key_type"), members.get("value_type")])


def _container(members: Members, elements: list[Json]) -> list[Json]:
    size = _size(members)
    if size == [0, 0]:
        return size
    if not size and all(is_any(element) for element in elements):
        return []
    return [Raw("Any") if element is None else element for element in elements] + size


def _tuple(members: Members) -> list[Json]:
    types = listed(members.get("types"))
    return [*types, *_size(members)] if types else []


def _callable(members: Members) -> list[Json]:
    parameters, returned = members.get("param_types"), members.get("return_type")
    found = type_in(parameters)
    arguments = _parameters(found, members.get("block_type")) if found else []
    if returned is None:
        return arguments
    return [arguments, returned]


def _parameters(parameters: Rich, block: Json) -> list[Json]:
    types = listed(parameters.members.get("types"))
    # A Unit stands for parameters of which only the number is given.
    shown = [type_ for type_ in types if not is_type(type_, "Unit")]
    size = _size(parameters.members) if types else [0, 0]
    return [*shown, *size] + ([] if block is None else [block])


def _struct(members: Members) -> list[Json]:
    pairs: list[Json] = []
    for element in listed(members.get("elements")):
        found = rich_value(element) if isinstance(element, dict) else None
        if found:
            pairs += _element(found.members.get("key_type"), found.members.get("value_type"))
    return [{TYPE_KEY: "Hash", VALUE_KEY: pairs}] if pairs else []


def _element(key: Json, value: Json) -> list[Json]:
    """A key says what its value leaves open: that it must be there, or need not."""
    can_be_undef = _accepts_undef(value)
    if is_type(key, "Optional"):
        found = type_in(key)
        return [literal(found.members.get("type")) if found and can_be_undef else key, value]
    name = literal(key)
    return [{TYPE_KEY: "Pcore::NotUndefType", "type": key} if can_be_undef else name, value]


def _accepts_undef(type_: Json) -> bool:
    found = type_in(type_)
    if found is None:
        return False
    name, members = found.data_type, found.members
    if name in ("Any", "Undef", "Optional", "Unit"):
        return True
    if name == "Variant":
        return any(_accepts_undef(one) for one in listed(members.get("types")))
    if name == "TypeAlias":
        return members.get("name") in _ALIASES_OF_ANYTHING or _accepts_undef(members.get("resolved_type"))
    if name == "Init":
        inner = members.get("type")
        return inner is None or _is_made_of_undef(inner, bool(members.get("init_args")))
    return False


_ALIASES_OF_ANYTHING = ("Data", "RichData")


def _is_made_of_undef(type_: Json, has_arguments: bool) -> bool:
    """Whether one can be made of undef, alone or with more arguments: by the signatures of the type's ``new``."""
    found = type_in(type_)
    if found is None:
        return False
    if found.data_type == "TypeAlias":
        return _is_made_of_undef(found.members.get("resolved_type"), has_arguments)
    return found.data_type in (_MADE_OF_UNDEF_AND_MORE if has_arguments else _MADE_OF_UNDEF)


_MADE_OF_UNDEF = ("String", "Hash", "Struct", "Sensitive")
_MADE_OF_UNDEF_AND_MORE = ("String", "Array", "Tuple")


def _pattern(members: Members) -> list[Json]:
    found = [type_in(pattern) for pattern in listed(members.get("patterns"))]
    return [Raw(regexp_of(text_of(one.members.get("pattern")))) for one in found if one]


def _regexp(members: Members) -> list[Json]:
    pattern = members.get("pattern")
    return [] if pattern is None else [Raw(regexp_of(text_of(pattern)))]


def _enum(members: Members) -> list[Json]:
    values = listed(members.get("values"))
    return [*values, True] if values and members.get("case_insensitive") is True else values


def _contained(members: Members) -> list[Json]:
    found = members.get("type", members.get("element_type"))
    return [] if found is None else [literal(found)]


def _not_any(members: Members) -> list[Json]:
    return [] if is_any(members.get("type")) else _contained(members)


def _init(members: Members) -> list[Json]:
    type_ = members.get("type")
    return [] if type_ is None else [type_, *listed(members.get("init_args"))]


def _runtime(members: Members) -> list[Json]:
    runtime, name = members.get("runtime"), members.get("name_or_pattern")
    if runtime is None and name is None:
        return []
    return [Raw(runtime) if isinstance(runtime, str) else runtime, name]


def _if_given(name: str) -> Callable[[Members], list[Json]]:
    return lambda members: [] if members.get(name) is None else [members[name]]


def _listed(name: str) -> Callable[[Members], list[Json]]:
    return lambda members: listed(members.get(name))


def _class(members: Members) -> list[Json]:
    name = members.get("class_name")
    return [] if name is None else [Raw(text_of(name))]


_ARGUMENTS: dict[str, Callable[[Members], list[Json]]] = {
    "Array": _array,
    "Boolean": _if_given("value"),
    "Callable": _callable,
    "Class": _class,
    "Collection": _size,
    "Enum": _enum,
    "Float": _range,
    "Hash": _hash,
    "Init": _init,
    "Integer": _range,
    "Iterable": _contained,
    "Iterator": _contained,
    "NotUndef": _not_any,
    "Optional": _contained,
    "Pattern": _pattern,
    "Regexp": _regexp,
    "Runtime": _runtime,
    "SemVer": _listed("ranges"),
    "SemVerRange": _none,
    "Sensitive": _not_any,
    "String": lambda members: _size(members, "size_type_or_value"),
    "Struct": _struct,
    "Timespan": _moments,
    "Timestamp": _moments,
    "Tuple": _tuple,
    "Type": _if_given("type"),
    "TypeReference": _listed("type_string"),
    "URI": _if_given("parameters"),
    "Variant": _listed("types"),
}


def _resource(members: Members) -> Type:
    name, title = text_of(members.get("type_name")), members.get("title")
    if not name:
        return Type("Resource", [])
    if not ("A" <= name[0] <= "Z"):
        name = "::".join(segment.capitalize() for segment in name.split("::"))
    return Type(name, [] if title is None else [title])


# What Puppet itself calls so is not told what it is.
_BUILT_IN_ALIASES = ("Data", "RichDataKey", "RichData", "Puppet::LookupKey", "Puppet::LookupValue")


def _alias(members: Members) -> Type:
    name = text_of(members.get("name"))
    return Type(name, [], None if name in _BUILT_IN_ALIASES else members.get("resolved_type"))


def _object(members: Members) -> Type:
    definition = members.get("_pcore_init_hash")
    if not isinstance(definition, dict):
        definition = members
    return Type(text_of(definition.get("name")), [], definition=_definition(definition))


def _extension(members: Members) -> Type:
    """An object type with parameters: a list of them, or a hash where there are more than two."""
    base, parameters = type_in(members.get("base_type")), members.get("init_parameters")
    name = _object(base.members).name if base else ""
    return Type(name, parameters if isinstance(parameters, list) else [parameters])


def _definition(members: Members) -> Json:
    """What an object type is defined by, in the words of the definition."""
    pairs: list[Json] = []
    for key, value in members.items():
        if key in ("attributes", "functions") and isinstance(value, dict):
            value = {name: _feature(one) for name, one in value.items()}
        pairs += [Raw(key), value]
    return {TYPE_KEY: "Hash", VALUE_KEY: pairs}


def _feature(members: Json) -> Json:
    if not isinstance(members, dict) or rich_value(members):
        return members
    pairs: list[Json] = []
    for key, value in members.items():
        pairs += [Raw(key), Raw(value) if key == "kind" and isinstance(value, str) else value]
    return {TYPE_KEY: "Hash", VALUE_KEY: pairs}


_NAMED: dict[str, Callable[[Members], Type]] = {
    "Resource": _resource,
    "TypeAlias": _alias,
    "Object": _object,
    "ObjectTypeExten": _extension,
}
