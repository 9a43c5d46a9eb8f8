"""PQL to AST: the same lists that a client would have sent as JSON, so that all that follows is one way."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from itertools import accumulate
from typing import Any

from lark import (
    Lark,
    Token,
    Transformer,
    UnexpectedCharacters,
    UnexpectedEOF,
    UnexpectedInput,
    UnexpectedToken,
)

from ingest.core.query.ast import BadQuery

# Those that PuppetDB's grammar has; the others can be asked for in AST.
ENTITIES = (
    "facts", "reports", "catalogs", "packages", "package_inventory", "resources", "nodes", "environments", "factsets",
    "fact_paths", "fact_contents", "inventory", "edges", "events",
)  # fmt: skip
LENGTH_MAX = 1_000_000  # characters; a list of 20 000 certnames has less
SHOWN_MAX = 1000  # characters of the line in which a query stopped making sense
DEPTH_MAX = 150  # brackets within brackets; those of lists count too

_STRING = re.compile(r"""\"(?:[^"\\]|\\.)*(?:"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)""", re.DOTALL)
_NO_BRACKET = re.compile(r"[^\[\](){}]+")

# What people call a token that could have stood there.
_SHOWN = {
    "NAME": "a name", "PATH": "a path such as facts.os.name", "OP": "= != ~ !~ < <= > >=", "PATH_OP": "~>",
    "IS_NULL": "is null", "IS_NOT_NULL": "is not null", "_IN": "in", "_AND": "and", "_OR": "or", "_LIMIT": "limit",
    "_OFFSET": "offset", "_ORDER_BY": "order by", "_GROUP_BY": "group by", "DIRECTION": "asc or desc",
    "BOOLEAN": "true or false", "REAL": "a number", "INTEGER": "a whole number", "DOUBLE_QUOTED": '"a string"',
    "SINGLE_QUOTED": "'a string'", "LSQB": "[", "RSQB": "]", "LBRACE": "{", "RBRACE": "}", "LPAR": "(", "RPAR": ")",
    "COMMA": ",", "BANG": "!", "$END": "the end",
}  # fmt: skip


def parse_pql(text: str) -> list[Any]:
    """The AST of a query in PQL. Raises BadQuery, which shows where it stopped making sense."""
    if len(text) > LENGTH_MAX:
        raise BadQuery(f"the query has more than {LENGTH_MAX} characters")
    _require_shallow(text)
    try:
        tree: Any = _parser().parse(text)
    except UnexpectedInput as error:
        raise BadQuery(_explain(error, text)) from error
    assert isinstance(tree, list)
    return tree


@cache
def _parser() -> Lark:
    grammar = files(__package__).joinpath("pql.lark").read_text(encoding="utf-8")
    # The transformer goes along with the parser: no tree, and so no recursion.
    return Lark(
        grammar,
        start="query",
        parser="lalr",
        lexer="contextual",
        maybe_placeholders=False,
        transformer=_ToAst(),
    )


def _require_shallow(text: str) -> None:
    signs = _NO_BRACKET.sub("", _STRING.sub("", text))
    if max(accumulate(1 if sign in "([{" else -1 for sign in signs), default=0) > DEPTH_MAX:
        raise BadQuery(f"the query is nested more than {DEPTH_MAX} levels deep")


def _explain(error: UnexpectedInput, text: str) -> str:
    line, column = error.line, error.column
    if isinstance(error, UnexpectedEOF) or (
        isinstance(error, UnexpectedToken) and error.token.type == "$END"
    ):
        line = text.count("\n") + 1
        column = len(text) - (text.rfind("\n") + 1) + 1
    if isinstance(error, UnexpectedCharacters):
        expected = set(error.allowed or ())
    elif isinstance(error, UnexpectedToken):
        expected = set(error.accepts or error.expected)
    else:
        expected = set(error.expected)  # type: ignore[attr-defined]
    shown, place = _around(text.split("\n")[line - 1], column - 1)
    words = sorted({_SHOWN.get(name, name) for name in expected})
    return (
        f"PQL parse error at line {line}, column {column}:\n\n{shown}\n{' ' * place}^\n\n"
        + ("Expected one of:\n\n" if len(words) > 1 else "Expected:\n")
        + "".join(f"{word}\n" for word in words)
    )


def _around(line: str, place: int) -> tuple[str, int]:
    """The part of a line that a person would look at, and where in it the place is."""
    if len(line) <= SHOWN_MAX:
        return line, place
    begins = max(0, min(place - SHOWN_MAX // 2, len(line) - SHOWN_MAX))
    return line[begins : begins + SHOWN_MAX], place - begins


class _ToAst(Transformer[Token, Any]):
    """A method for each rule; what a rule made of its parts are the ``found``."""

    def query(self, found: list[Any]) -> list[Any]:
        entity, *clauses = found
        return ["from", _entity(entity), *_joined(clauses)]

    def extract(self, found: list[Any]) -> tuple[str, list[Any]]:
        return "extract", found[0] if found else []

    def columns(self, found: list[Any]) -> list[Any]:
        return found

    def function(self, found: list[Any]) -> list[Any]:
        return ["function", str(found[0]), *found[1:]]

    def where(self, found: list[Any]) -> tuple[str, list[Any]]:
        return "where", found

    def or_(self, found: list[Any]) -> Any:
        return found[0] if len(found) == 1 else ["or", *found]

    def and_(self, found: list[Any]) -> Any:
        return found[0] if len(found) == 1 else ["and", *found]

    def not_(self, found: list[Any]) -> Any:
        return found[0]

    def negation(self, found: list[Any]) -> list[Any]:
        return ["not", found[0]]

    def subquery(self, found: list[Any]) -> list[Any]:
        entity, (_, clauses) = found
        return ["subquery", _entity(entity), *clauses]

    def comparison(self, found: list[Any]) -> list[Any]:
        field, op, value = found
        if op in ("!=", "!~"):
            return ["not", [op[1], field, value]]
        return [str(op), field, value]

    def is_null(self, found: list[Any]) -> list[Any]:
        return ["null?", found[0], found[1].type == "IS_NULL"]

    def inclusion(self, found: list[Any]) -> list[Any]:
        subject, source = found
        return ["in", subject, source if source and source[0] == "from" else ["array", source]]

    def fields(self, found: list[Any]) -> list[Any]:
        return list(found[0])

    def literals(self, found: list[Any]) -> list[Any]:
        return found

    def strings(self, found: list[Any]) -> list[Any]:
        return found

    def group_by(self, found: list[Any]) -> list[Any]:
        return ["group_by", *found[0]]

    def limit(self, found: list[Any]) -> list[Any]:
        return ["limit", int(found[0])]

    def offset(self, found: list[Any]) -> list[Any]:
        return ["offset", int(found[0])]

    def order_by(self, found: list[Any]) -> list[Any]:
        return ["order_by", found]

    def order(self, found: list[Any]) -> Any:
        return found[0] if len(found) == 1 else [found[0], str(found[1])]

    def field(self, found: list[Any]) -> str:
        return str(found[0])

    def literal(self, found: list[Any]) -> Any:
        value = found[0]
        return value == "true" if isinstance(value, Token) else value

    def string(self, found: list[Any]) -> str:
        token = found[0]
        if token.type == "SINGLE_QUOTED":
            return str(token[1:-1].replace("\\'", "'"))
        try:
            text: str = json.loads(token, strict=False)
        except ValueError as error:
            raise BadQuery(f"PQL parse error at line {token.line}, column {token.column}: {error}") from error
        return text

    def number(self, found: list[Any]) -> int | float:
        text = found[0]
        if text.type == "REAL":
            return float(text)
        if len(text) > 19:
            raise BadQuery(f"the number at line {text.line}, column {text.column} has more than 64 bits")
        return int(text)


def _entity(name: str) -> str:
    if name not in ENTITIES:
        raise BadQuery(
            f"PQL parse error: {name} is not an entity. Known entities are {', '.join(sorted(ENTITIES))}"
        )
    return str(name)


def _joined(clauses: list[Any]) -> list[Any]:
    """Filter, group_by and columns become one extract; what limits and orders stands beside it."""
    columns = next((found for kind, found in clauses if kind == "extract"), None)
    inside = next(found for kind, found in clauses if kind == "where")
    paging = [one for one in inside if one[0] in ("limit", "offset", "order_by")]
    rest = [one for one in inside if one[0] not in ("limit", "offset", "order_by")]
    return [["extract", columns, *rest], *paging] if columns is not None else [*rest, *paging]
