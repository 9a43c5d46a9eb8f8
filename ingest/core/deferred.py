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

_CALL = re.compile(r"'name' => '([^']{0,200})', 'arguments' => \[")
_CALLED = re.compile(r"'([^']{0,200})'(?:, )?")
_PIECE = re.compile(
    r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|([\[({])|([\])}])|(,)|[^'"\[\](){},]++|.""", re.DOTALL
)
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


def secret_arguments(text: str) -> int | None:
    """Where such arguments begin in what the terminus prints; None: there are none."""
    for call in _CALL.finditer(text):
        if _is_maker(call[1]):
            return call.end()
        name, at = _plain(call[1]), call.end()
        if name == "call" and (called := _CALLED.match(text, at)):
            name, at = _plain(called[1]), called.end()
            if _is_maker(name):
                return at
        if name == "new" and _WORD.search(text, at, end := _end_of_argument(text, at)):
            return end
    return None


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


def _end_of_argument(text: str, start: int) -> int:
    """Behind the comma and the space that end it, or where the list does."""
    depth, at = 0, start
    until = min(len(text), start + _ARGUMENT_CHARACTERS)
    while at < until and (piece := _PIECE.match(text, at)):
        depth += (piece[1] is not None) - (piece[2] is not None)
        if depth < 0:
            return at
        at = piece.end()
        if piece[3] and not depth:
            return at + (text[at : at + 1] == " ")
    return min(at, until)
