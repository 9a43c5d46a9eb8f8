"""Named SQL statements: each ``-- name: NAME`` in ``sql/*.sql`` starts one, Python calls it by that name.

They are written without a schema and sent with one: whatever the session's search_path finds first, ``nodes`` is the
table of the schema that ``connect()`` found ours in.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from psycopg.abc import AdaptContext
from psycopg.sql import SQL, Identifier

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_CREATED = re.compile(
    r"^CREATE (?:UNLOGGED )?(TABLE|VIEW|FUNCTION)(?: IF NOT EXISTS)? (\w+)\b(?!\.)", re.MULTILINE
)
_CTE = re.compile(r"(?:\bWITH|\bRECURSIVE|\),)\s+(\w+)\s+AS\s+(?:(?:NOT\s+)?MATERIALIZED\s+)?\(")


class NamedQuery(SQL):
    """A statement that names the tables and functions of this program with the connection's own schema."""

    def __init__(self, text: str) -> None:
        super().__init__(text)  # from this program's own files
        self._sent: dict[str | None, bytes] = {}

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        home = getattr(context.connection, "home", None) if context is not None else None
        sent = self._sent.get(home)
        if sent is None:
            sent = self._sent[home] = self.as_string(context).encode()
        return sent

    def as_string(self, context: AdaptContext | None = None) -> str:
        return self.in_schema_of(getattr(context.connection, "home", None) if context is not None else None)

    def in_schema_of(self, home: str | None) -> str:
        """Its text, where our tables are in that schema."""
        return self._obj if home is None else in_schema(self._obj, Identifier(home).as_string())


def query(name: str) -> NamedQuery:
    """The statement of that name. Raises KeyError for a name that no file has."""
    return _all()[name]


def in_schema(text: str, schema: str) -> str:
    """The statement with our tables, views and functions in that schema, which is quoted already.

    A relation stands behind one of a few words, a function before a parenthesis; columns, aliases and what is qualified
    already stay as they are.
    """
    relation, function = _patterns()
    text = relation.sub(lambda found: f"{found[1]}{schema}.{found[2]}", text)
    return function.sub(lambda found: f"{schema}.{found[1]}", text)


@cache
def names_queries() -> tuple[str, ...]:
    """The name of every statement."""
    return tuple(_all())


@cache
def our_names() -> tuple[frozenset[str], frozenset[str]]:
    """(tables and views, functions) that the migrations create in our schema."""
    relations: set[str] = {"schema_migrations"}
    functions: set[str] = set()
    for file in files(__package__).joinpath("migrations").iterdir():
        if file.name.endswith(".sql"):
            for kind, name in _CREATED.findall(file.read_text(encoding="utf-8")):
                (functions if kind == "FUNCTION" else relations).add(name)
    return frozenset(relations), frozenset(functions)


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    relations, functions = our_names()
    return (
        re.compile(
            r"\b((?:FROM|JOIN|INTO|UPDATE|USING|LOCK TABLE)\s+)("
            + "|".join(sorted(relations))
            + r")\b(?!\s*\.)"
        ),
        re.compile(r"(?<![\w.])(" + "|".join(sorted(functions)) + r")(?=\()"),
    )


@cache
def _all() -> dict[str, NamedQuery]:
    found: dict[str, NamedQuery] = {}
    relations, _ = our_names()
    for file in sorted(files(__package__).joinpath("sql").iterdir(), key=lambda f: f.name):
        parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[1::2], parts[2::2], strict=True):
            if name in found:
                raise KeyError(f"two statements are named {name}")
            if taken := relations.intersection(_CTE.findall(text)):
                raise KeyError(f"{name} calls a part of it as a table is called: {', '.join(taken)}")
            found[name] = NamedQuery(text.strip())
    return found
