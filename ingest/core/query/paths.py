"""Reads the name of a field: ``certname``, or a path into JSON such as ``facts.os."a.b".release[0].match("x.*")``."""

from __future__ import annotations

import re

from ingest.core.query.ast import BadQuery, Field, Match
from ingest.core.query.paging import shown

PARTS_MAX = 100  # deeper than any fact; each part is an operator of the statement

_TOP = re.compile(r"[a-zA-Z][_0-9a-zA-Z]*\??(?=\.|\Z)")
# The three forms of a part, in this order. A part that contains a dot must be quoted, and then cannot end in a backslash.
_MATCH = re.compile(r'match\("(.*?[^\\])"\)(?=\.|\Z)', re.DOTALL)
_QUOTED = re.compile(r'"(.*?[^\\])"(?=\.|\Z)', re.DOTALL)
_PLAIN = re.compile(r"[^.]+(?=\.|\Z)", re.DOTALL)
_INDEXED = re.compile(r"(.+)\[([0-9]{1,9})\]", re.DOTALL)


def read_field(text: object) -> Field:
    """Raises BadQuery."""
    if not isinstance(text, str):
        raise BadQuery(f"{shown(text)} is not the name of a field")
    top = _TOP.match(text)
    if top is None:
        if not text:
            raise BadQuery("Empty AST field")
        raise BadQuery(f'First component of AST field is invalid: "{text}"')
    parts: list[str | int | Match] = []
    literal: list[str] = []
    at = top.end()
    while at < len(text):
        at = _read_part(text, at + 1, parts, literal)
        if len(parts) > PARTS_MAX:
            raise BadQuery(f"the path of a field has more than {PARTS_MAX} components")
    return Field(top[0], tuple(parts), tuple(literal), text)


def _read_part(text: str, at: int, parts: list[str | int | Match], literal: list[str]) -> int:
    if text.startswith('""', at):
        raise BadQuery(f'Empty AST field component at character {at}: "{text}"')
    if found := _MATCH.match(text, at):
        parts.append(Match(found[1]))
        literal.append(found[0])
        return found.end()
    found = _QUOTED.match(text, at) or _PLAIN.match(text, at)
    if found is None:
        raise BadQuery(f'Don\'t recognize AST field component at character {at}: "{text}"')
    name = found[1] if found.re is _QUOTED else found[0]
    literal.append(name)
    if indexed := _INDEXED.fullmatch(name):
        parts.extend((indexed[1], int(indexed[2])))
    else:
        parts.append(name)
    return found.end()
