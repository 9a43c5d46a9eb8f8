"""Prints a value of Puppet's language as Puppet and Ruby print it: alone, inside another, and inside a hash's key.

Sources: Puppet's ``TypeFormatter`` (what ``to_s`` of types, objects and Deferred is), and Ruby's ``inspect`` (what
``to_s`` of an array or a hash is). Nothing is quoted twice, so the printed form grows as its JSON does; it is counted
all the same while it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from io import StringIO
from typing import NamedTuple

from ingest.core.catalog.model import Json
from ingest.core.catalog.rich_types import Raw, Type, data_type
from ingest.core.catalog.rich_value import Rich, pairs_of, rich_value
from ingest.core.catalog.ruby_text import inspected_regexp, number, puppet_string, regexp, ruby_string
from ingest.core.catalog.sensitive_kind import kind_of
from ingest.errors import Rejected

# What the terminus writes has an object id in it that differs from run to run; this has not.
SENSITIVE = "Sensitive [value redacted]"
# Of a resource's JSON. Ruby makes up to six characters of one byte (DEL in a hash's key); what Puppet's language is
# used for stays below two.
PRINTED_PER_BYTE_MAX = 4
PRINTED_FREE = 64 * 1024  # what is small need not be told from what is strange

_PLAIN_SYMBOL = re.compile(r"[^\W\d]\w*[?!=]?")
_QUOTED = ("Timestamp", "Timespan", "SemVer", "SemVerRange")
_URI_CLASSES = {
    "http": "HTTP", "https": "HTTPS", "ftp": "FTP", "ldap": "LDAP", "ldaps": "LDAPS", "file": "File", "mailto": "MailTo",
    "ws": "WS",
}  # fmt: skip


class Mode(Enum):
    PUPPET = 1  # as Puppet prints a value inside another
    EXPANDED = 2  # the same, and types with what their names stand for
    RUBY = 3  # as Ruby prints a value inside an array or a hash


_ARROW = {Mode.PUPPET: Raw(" => "), Mode.EXPANDED: Raw(" => "), Mode.RUBY: Raw("=>")}
_COMMA = Raw(", ")
_BEGIN_LIST, _END_LIST, _EMPTY_LIST = Raw("["), Raw("]"), Raw("[]")
_BEGIN_HASH, _END_HASH, _EMPTY_HASH = Raw("{"), Raw("}"), Raw("{}")


class In(NamedTuple):
    """A value that is printed in another way than what it stands in."""

    mode: Mode
    value: Json


class Writer:
    """Prints what one resource has to be printed of, in no more than ``characters_max`` characters."""

    __slots__ = ("_left",)

    def __init__(self, characters_max: int) -> None:
        self._left = characters_max

    def text(self, value: Json) -> str | None:
        """``to_s``; None of the one thing that has none, a type without a name."""
        if isinstance(value, str):
            return value
        if value is None:
            return ""
        if isinstance(value, list):
            return self._printed(In(Mode.RUBY, value))
        rich = rich_value(value) if isinstance(value, dict) else None
        if rich is None or rich.type == "Hash":
            return self._printed(In(Mode.RUBY, value))
        if rich.data_type == "Object" and not data_type(rich).name:
            return None
        return self._printed(_alone(value, rich))

    def _printed(self, first: In) -> str:
        page = StringIO()
        # A stack of iterators, not of calls, and nothing is made in advance: a value may be as deep and as long as a
        # message may be.
        stack: list[tuple[Mode, Iterator[Json]]] = [(first.mode, iter((first.value,)))]
        while stack:
            mode, tokens = stack[-1]
            for token in tokens:
                if isinstance(token, In):
                    stack.append((token.mode, iter((token.value,))))
                    break
                found = token if isinstance(token, Raw) else _tokens(token, mode)
                if not isinstance(found, str):
                    stack.append((mode, found))
                    break
                self._left -= len(found)
                if self._left < 0:
                    raise Rejected(
                        "too_large_when_printed", "rich data would be many times its size when printed"
                    )
                page.write(found)
            else:
                stack.pop()
        return page.getvalue()


def _alone(value: Json, rich: Rich) -> In:
    if rich.type == "Sensitive":
        return In(Mode.PUPPET, Raw(SENSITIVE))
    if rich.data_type == "TypeAlias":
        return In(Mode.EXPANDED, value)
    if rich.has_value and rich.type not in ("Default", "Regexp"):
        return In(Mode.PUPPET, Raw(rich.value))
    return In(Mode.PUPPET, value)


def _tokens(value: Json, mode: Mode) -> str | Iterator[Json]:
    """The text of a value, or what it is made of: texts (Raw) and values in turn."""
    if isinstance(value, str):
        return ruby_string(value) if mode is Mode.RUBY else puppet_string(value)
    if isinstance(value, list):
        return _list(value)
    if isinstance(value, dict):
        rich = rich_value(value)
        if rich is None or rich.type == "Hash":
            return _hash(value.items() if rich is None else pairs_of(rich), _ARROW[mode])
        return _ruby(value, rich) if mode is Mode.RUBY else _puppet(rich, mode)
    if value is None:
        return "nil" if mode is Mode.RUBY else "undef"
    return _scalar(value)


def _list(items: list[Json]) -> Iterator[Json]:
    separator = _BEGIN_LIST
    for item in items:
        yield separator
        yield item
        separator = _COMMA
    yield _END_LIST if items else _EMPTY_LIST


def _hash(pairs: Iterable[tuple[Json, Json]], arrow: Raw) -> Iterator[Json]:
    separator = _BEGIN_HASH
    for key, item in pairs:
        yield separator
        yield key
        yield arrow
        yield item
        separator = _COMMA
    yield _END_HASH if separator is _COMMA else _EMPTY_HASH


def _puppet(rich: Rich, mode: Mode) -> str | Iterator[Json]:
    if rich.has_value:
        return _inside(rich)
    if rich.data_type is not None:
        return _type(data_type(rich), mode)
    return iter((Raw(rich.type), Raw("("), rich.members, Raw(")")))


def _type(type_: Type, mode: Mode) -> Iterator[Json]:
    if mode is Mode.EXPANDED and type_.definition is not None:
        # What a definition names is printed by its name.
        return iter((Raw("Object["), In(Mode.PUPPET, type_.definition), _END_LIST))
    name = Raw(type_.name or "Object")
    if mode is Mode.EXPANDED and type_.resolved is not None:
        return iter((name, Raw(" = "), type_.resolved))
    return iter((name, type_.arguments) if type_.arguments else (name,))


def _ruby(value: Json, rich: Rich) -> str | Iterator[Json]:
    if rich.has_value and (found := _inspected(rich)) is not None:
        return found
    # Ruby would print addresses, which no two runs share.
    return iter((Raw("#<"), In(Mode.PUPPET, value), Raw(">")))


def _inspected(rich: Rich) -> str | None:
    """What is one value, as Ruby prints it inside another; None where that would be an address."""
    text = str(rich.value)
    if rich.type == "Default":
        return ":default"
    if rich.type == "Regexp":
        return inspected_regexp(text)
    if rich.type == "Symbol":
        return f":{text}" if _PLAIN_SYMBOL.fullmatch(text) else f":{ruby_string(text)}"
    if rich.type in ("SemVer", "SemVerRange"):
        return text
    if rich.type == "URI":
        return f"#<URI::{_URI_CLASSES.get(text.partition(':')[0].lower(), 'Generic')} {text}>"
    return f"#<{SENSITIVE}>" if rich.type == "Sensitive" else None


def _inside(rich: Rich) -> str:
    """What is one value, as Puppet prints it inside another."""
    text = str(rich.value)
    if rich.type in _QUOTED:
        return f"'{text}'"
    if rich.type == "Regexp":
        return regexp(text)
    if rich.type == "Default":
        return "default"
    if rich.type == "Symbol":
        return text
    if rich.type == "URI":
        return f"URI({puppet_string(text)})"
    if rich.type == "Sensitive":
        return f"Instance of Sensitive[{kind_of(rich.value)}]"
    if rich.type == "Binary":
        return "Instance of Binary"
    return puppet_string(text)


def _scalar(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return number(value)
