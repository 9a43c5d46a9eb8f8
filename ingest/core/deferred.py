"""What of a call's arguments is secret, because the agent is to make a Sensitive of them: Deferred('new', [Sensitive, ...]).

As rich data, and as the terminus prints it. A type may stand inside others (Optional[Sensitive]), behind another name, or
somewhere else in the document (LocalRef): where it cannot be told, it counts as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ingest.core.catalog.model import Json

# Rich data's key for the type: Puppet 5.0 - 5.5 and 4.10 had the second one.
TYPE_KEYS = ("__ptype", "__pcore_type__")
# Type's name, its namespace and its parameters: what a Sensitive may be called, but not the type Pcore::SensitiveType.
_NAME = re.compile(r"\s*(?:\w*::)*[Ss]ensitive\s*(?:\[.*)?", re.DOTALL)
_WORD = re.compile(r"(?<![a-z])[Ss]ensitive(?![a-z])")

# What is a Sensitive, in what the terminus prints of a Deferred.
_SECRET = re.compile(r"""(?<!\w)Sensitive(?:\.new)?\s*\(|__p(?:core_)?type(?:__)?['"]\s?=>\s?['"]Sensitive""")
_CALL = re.compile(r"'name' => '([^']{0,200})', 'arguments' => \[")
MAKES = "'new', 'arguments' => ["  # stands in every call that makes something
_CALLED = re.compile(r"'([^']{0,200})'(?:, )?")
_QUOTED_TEXT = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|/(?:[^/\\]|\\.)*+/"""
_FLAT = rf"""{_QUOTED_TEXT}|[^'"/\[\](){{}},]++"""
_NESTED = rf"(?:{_FLAT}|,)*+"
for _ in range(6):  # no type that somebody writes is deeper
    _NESTED = rf"(?:{_FLAT}|,|[\[({{]{_NESTED}[\])}}])*+"
# The first argument, up to what follows it.
_FIRST = re.compile(rf"((?:{_FLAT}|[\[({{]{_NESTED}[\])}}])*+)(?:, ?|(?=[\])}}]))", re.DOTALL)
_INSPECTED = re.compile(r'@name="([^"]{0,200})", @arguments=\[')
_INSPECTED_CHARACTERS = 1000
_QUOTED = re.compile(_QUOTED_TEXT, re.DOTALL)
_TYPE_NAME = re.compile(r"(?<!\w)[A-Z]\w*(?:::\w+)*")
_BUILT_IN = frozenset((
    "Any", "Array", "Binary", "Boolean", "Callable", "CatalogEntry", "Class", "Collection", "Data", "Default", "Enum",
    "Float", "Hash", "Init", "Integer", "Iterable", "Iterator", "NotUndef", "Numeric", "Object", "Optional", "Pattern",
    "Regexp", "Resource", "RichData", "Runtime", "Scalar", "ScalarData", "SemVer", "SemVerRange", "String", "Struct",
    "Timespan", "Timestamp", "Tuple", "Type", "URI", "Undef", "Unit", "Variant",
))  # fmt: skip
_ARGUMENT_CHARACTERS = 300  # no type that somebody writes is longer,
_PARTS_MAX = 1000  # nor has more parts


def is_sensitive(type_: Json) -> bool:
    if isinstance(type_, str):
        return _NAME.fullmatch(type_) is not None
    return isinstance(type_, dict | list) and _names_sensitive(type_)  # a type that is an object itself


def without_secret_arguments(deferred: Mapping[str, Json]) -> list[Json] | None:
    """What may stay of the arguments; None: no Sensitive is made of the others."""
    name, given = deferred.get("name"), deferred.get("arguments")
    if not given:
        return None
    if not isinstance(name, str) or not isinstance(given, list):
        return [] if _names_sensitive([name, given]) else None
    if _is_maker(name):
        return []
    # What is made stands first; ``call`` has the name of the function there, as it may be called itself.
    is_called = _plain(name) == "call" and isinstance(given[0], str)
    place = int(is_called)
    if is_called and _is_maker(given[0]):
        return given[:1]
    if _plain(given[0] if is_called else name) != "new" or len(given) < place + 2:
        return None
    return given[: place + 1] if _may_be_sensitive(given[place]) else None


def printed_secret(text: str) -> int | None:
    """Where what is secret begins in a text that the terminus has printed; None: nothing is. It prints a Deferred as itself, also
    within an object, and in the key of a hash as Ruby shows any object."""
    begins = [_in_deferred(text, at)] if (at := text.find("Deferred({")) >= 0 else []
    if "@arguments=[" in text:
        begins.append(_in_inspected(text))
    return min((begin for begin in begins if begin is not None), default=None)


def _in_deferred(text: str, start: int) -> int | None:
    found = _SECRET.search(text, start)
    last = len(text) if found is None else found.end()
    for call in _CALL.finditer(text, start, last):
        if _is_maker(call[1]):
            return call.end()
        name, at = _plain(call[1]), call.end()
        if name == "call" and (called := _CALLED.match(text, at)):
            name, at = _plain(called[1]), called.end()
            if _is_maker(name):
                return at
        if name == "new":
            first = _FIRST.match(text[at : at + _ARGUMENT_CHARACTERS])
            if first is None:
                return at
            if _prints_sensitive(first[1]):
                return at + first.end()
    return found and found.end()


def _in_inspected(text: str) -> int | None:
    for call in _INSPECTED.finditer(text):
        name, at = _plain(call[1]), call.end()
        if name == "call" and text.startswith('"new", ', at):
            name, at = "new", at + len('"new", ')
        end = text.find('"', at, at + _INSPECTED_CHARACTERS)
        if name == "new" and end == at:  # a type by its name
            end = text.find('"', at + 1, at + _INSPECTED_CHARACTERS)
        end = at + _INSPECTED_CHARACTERS if end < 0 else end
        if _is_maker(name) or (name == "new" and text.find("ensitive", at, end) >= 0):
            return at
    return None


def _prints_sensitive(type_: str) -> bool:
    """Whether a type that is printed is one of secrets, or has a name that only the site knows: then nobody can tell."""
    if _WORD.search(type_):
        return True
    names = _TYPE_NAME.findall(_QUOTED.sub("", type_))
    return any(name not in _BUILT_IN for name in names)


def _is_maker(name: Json) -> bool:
    return isinstance(name, str) and is_sensitive(name.removesuffix(".new"))


def _plain(name: Json) -> Json:
    return name.removeprefix("::") if isinstance(name, str) else name


def _may_be_sensitive(what: Json) -> bool:
    if isinstance(what, str):
        return _WORD.search(what) is not None
    if isinstance(what, dict) and "LocalRef" in (what.get(key) for key in TYPE_KEYS):
        return True
    return isinstance(what, dict | list) and _names_sensitive(what)


def _names_sensitive(type_: Json) -> bool:
    """Whether that occurs anywhere in it. Of what has more parts than a type has, the answer is yes: types may lie in each
    other, and who looked through each to its end would look at the innermost a hundred times."""
    parts = [type_]
    for _ in range(_PARTS_MAX):
        if not parts:
            return False
        part = parts.pop()
        if isinstance(part, str) and "ensitive" in part[:_ARGUMENT_CHARACTERS]:
            return True
        if isinstance(part, dict | list):
            if len(part) > _PARTS_MAX:
                return True
            parts += [*part, *part.values()] if isinstance(part, dict) else part
    return True
