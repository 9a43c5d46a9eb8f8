"""Reads a query out of JSON: lists whose first element is an operator become the values of ``ast``.

What can be wrong without knowing the entity is told here, in the words of PuppetDB, which people look for.
"""

from __future__ import annotations

from collections.abc import Callable

from ingest.core.query import ast
from ingest.core.query.ast import BadQuery
from ingest.core.query.paging import is_paging, operator, shown, with_paging
from ingest.core.query.paths import read_field

DEPTH_MAX = 100  # nested operators: people write ten, and PostgreSQL's and Python's stacks have room for more
NODES_MAX = 10_000  # operators in one query; longer lists belong into ["array", [...]]

BINARY = ("=", ">", "<", ">=", "<=", "~", "~>")
FUNCTIONS = ("sum", "avg", "min", "max", "count", "to_string", "jsonb_typeof")
_PAIRS = ("parameter", "fact", "node")


def read_query(given: object) -> ast.Query:
    """The query that ``["from", ENTITY, ...]`` asks for. Raises BadQuery."""
    return _Reader().query(given)


def read_filter(given: object) -> ast.Query:
    """What an endpoint for one entity is given: a filter or an extract, for an entity still to be named."""
    reader = _Reader()
    if given is None:
        return ast.Query("")
    if not isinstance(given, list):
        raise BadQuery(f"{shown(given)} is not a query: it must be a JSON array")
    return reader.body("", given, 1)


class _Reader:
    def __init__(self) -> None:
        self._nodes = 0
        self._readers: dict[str, Callable[[str, list[object], int], ast.Node]] = {
            "and": self._junction,
            "or": self._junction,
            "not": self._not,
            "null?": _is_null,
            "in": self._in,
            "subquery": self._related,
        }

    def query(self, given: object, depth: int = 0) -> ast.Query:
        if not (
            isinstance(given, list)
            and len(given) >= 2
            and operator(given) == "from"
            and isinstance(given[1], str)
        ):
            raise BadQuery(
                'Your initial query must be of the form: ["from",<entity>,(<optional-query>)]. '
                "Check your query and try again."
            )
        entity, rest = given[1], given[2:]
        body: object = None
        if rest and not is_paging(rest[0]):
            body, rest = rest[0], rest[1:]
        if not all(map(is_paging, rest)):
            raise BadQuery(
                "Your `from` query accepts an optional query only as a second argument. "
                "Check your query and try again."
            )
        found = self.body(entity.replace("-", "_"), body, depth + 1)
        return with_paging(found, rest)

    def body(self, entity: str, given: object, depth: int) -> ast.Query:
        """A filter, or an extract around one."""
        if given is None:
            return ast.Query(entity)
        if isinstance(given, list) and operator(given) == "extract":
            return self._extract(entity, given, depth)
        return ast.Query(entity, where=self.node(given, depth))

    def _extract(self, entity: str, given: list[object], depth: int) -> ast.Query:
        if not 2 <= len(given) <= 4:
            raise BadQuery(
                f"extract takes columns, a query and a group_by, but {len(given) - 1} were supplied"
            )
        columns, rest = self._columns(given[1]), [part for part in given[2:] if part is not None]
        group_by: tuple[ast.Column, ...] = ()
        if rest and isinstance(rest[-1], list) and operator(rest[-1]) == "group_by":
            group_by = self._columns(list(rest[-1][1:]))
            rest.pop()
        if len(rest) > 1:
            raise BadQuery(f'{shown(rest[1])} is not a valid expression for "extract"')
        where = self.node(rest[0], depth + 1) if rest else None
        return ast.Query(entity, columns or None, where, group_by)

    def _columns(self, given: object) -> tuple[ast.Column, ...]:
        if isinstance(given, str):
            return (read_field(given),)
        if not isinstance(given, list):
            raise BadQuery(f"{shown(given)} names no columns to extract")
        if not given:
            return ()
        if given[0] == "function":
            return (self._function(given),)
        self._count(len(given))
        return tuple(self._function(one) if isinstance(one, list) else read_field(one) for one in given)

    def node(self, given: object, depth: int) -> ast.Node:
        if depth > DEPTH_MAX:
            raise BadQuery(f"the query is nested more than {DEPTH_MAX} levels deep")
        if not isinstance(given, list):
            raise BadQuery(
                f"{shown(given)} is not well-formed: an operator and its arguments in an array are expected"
            )
        if not given:
            raise BadQuery("[] is not well-formed: queries must contain at least one operator")
        self._count(1)
        op, arguments = operator(given), given[1:]
        if op in BINARY:
            return self._compare(op, arguments)
        read = self._readers.get(op)
        if read is not None:
            return read(op, arguments, depth)
        if op in ("extract", "from"):
            raise BadQuery(f"'{op}' is not allowed here: it begins a query, or stands behind 'in'")
        raise BadQuery(f"{shown(given)} is not well-formed: {shown(given[0])} is not an operator")

    def _not(self, op: str, arguments: list[object], depth: int) -> ast.Node:
        if len(arguments) != 1:
            raise BadQuery(f"'not' takes exactly one argument, but {len(arguments)} were supplied")
        return ast.Not(self.node(arguments[0], depth + 1))

    def _junction(self, op: str, arguments: list[object], depth: int) -> ast.Node:
        if not arguments:
            raise BadQuery(f"'{op}' takes at least one argument, but none were supplied")
        parts = tuple(self.node(part, depth + 1) for part in arguments)
        return ast.And(parts) if op == "and" else ast.Or(parts)

    def _compare(self, op: str, arguments: list[object]) -> ast.Node:
        if len(arguments) != 2:
            raise BadQuery(f"{op} requires exactly two arguments")
        subject, value = arguments
        if (isinstance(value, dict) and op != "=") or (isinstance(value, list) and op not in ("=", "~>")):
            raise BadQuery(f"Invalid {op} clause")
        return ast.Compare(op, self._subject(subject), value)

    def _subject(self, given: object) -> ast.Field | ast.Function | ast.Pair:
        if not isinstance(given, list):
            return _named(given)
        if given and given[0] == "function":
            return self._function(given)
        if len(given) == 2 and given[0] in _PAIRS and isinstance(given[1], str):
            return ast.Pair(given[0], given[1])
        raise BadQuery(f"{shown(given)} is not a queryable object")

    def _function(self, given: object) -> ast.Function:
        if not (isinstance(given, list) and len(given) >= 2 and given[0] == "function"):
            raise BadQuery(f"{shown(given)} is not a valid function")
        name, arguments = given[1], given[2:]
        if name not in FUNCTIONS:
            raise BadQuery(f"{shown(name)} is not a valid function")
        allowed = {"count": (0, 1), "to_string": (2,)}.get(name, (1,))
        if len(arguments) not in allowed:
            raise BadQuery(f"wrong number of arguments ({len(arguments)}) provided for function {name}")
        self._count(1)
        if name == "to_string" and not isinstance(arguments[1], str):
            raise BadQuery(f"the format of to_string must be a string, not {shown(arguments[1])}")
        return ast.Function(
            name,
            read_field(arguments[0]) if arguments else None,
            arguments[1] if name == "to_string" else None,
        )

    def _in(self, op: str, arguments: list[object], depth: int) -> ast.Node:
        if len(arguments) != 2:
            raise BadQuery("in requires exactly two arguments")
        subject, source = arguments
        if not (isinstance(source, list) and source):
            raise BadQuery(
                f"{shown(source)} is not a subquery, and not an array either: 'in' takes one of them"
            )
        kind = operator(source)
        if kind == "array":
            return self._in_array(subject, source)
        fields = tuple(read_field(name) for name in (subject if isinstance(subject, list) else [subject]))
        if kind == "from":
            query = self.query(source, depth + 1)
        elif kind == "extract":
            query = self._extract_from(source, depth + 1)
        else:
            raise BadQuery(f"Unsupported subquery `{source[0]}`")
        if query.columns is None or len(query.columns) != len(fields):
            raise BadQuery(
                f"'in' compares {len(fields)} fields with {len(query.columns or ())} columns of its subquery: "
                "extract as many"
            )
        return ast.InQuery(fields, query)

    def _in_array(self, subject: object, source: list[object]) -> ast.Node:
        if len(source) != 2 or not isinstance(source[1], list):
            raise BadQuery("Operator 'array' requires a vector argument")
        found = self._subject(subject[0] if isinstance(subject, list) and len(subject) == 1 else subject)
        if isinstance(found, ast.Function):
            raise BadQuery("'in' takes a field, not a function")
        return ast.InArray(found, tuple(source[1]))

    def _extract_from(self, given: list[object], depth: int) -> ast.Query:
        """``["extract", COLUMNS, ["select_ENTITY", FILTER]]``, the older form of a subquery."""
        if len(given) != 3 or not (isinstance(given[2], list) and given[2] and isinstance(given[2][0], str)):
            raise BadQuery('a subquery is of the form: ["extract",<columns>,["select_<entity>",<query>]]')
        name, rest = given[2][0], given[2][1:]
        hint = name.replace("-", "_")
        if not name.startswith("select_") or hint != name:
            known = f" - did you mean `{hint}`?" if hint.startswith("select_") else ""
            raise BadQuery(f"Unsupported subquery `{name}`{known}")
        body = rest.pop(0) if rest and not is_paging(rest[0]) else None
        where = None if body is None or body == [] else self.node(body, depth + 1)
        if not all(map(is_paging, rest)):
            raise BadQuery(f"Unsupported subquery `{name}`: it takes one query")
        return with_paging(ast.Query(name.removeprefix("select_"), self._columns(given[1]), where), rest)

    def _related(self, op: str, arguments: list[object], depth: int) -> ast.Node:
        if not 1 <= len(arguments) <= 2 or not isinstance(arguments[0], str):
            raise BadQuery('a subquery is of the form: ["subquery",<entity>,<query>]')
        filtered = len(arguments) == 2 and arguments[1] not in (None, [])
        where = self.node(arguments[1], depth + 1) if filtered else None
        return ast.Related(arguments[0].replace("-", "_"), where)

    def _count(self, more: int) -> None:
        self._nodes += more
        if self._nodes > NODES_MAX:
            raise BadQuery(f"the query has more than {NODES_MAX} operators")


def _named(given: object) -> ast.Field:
    """What is no name is told by the entity, which lists those that it has."""
    try:
        return read_field(given)
    except BadQuery:
        if isinstance(given, str) and "." in given:
            raise
    name = given if isinstance(given, str) else shown(given)
    return ast.Field(name, (), (), name)


def _is_null(op: str, arguments: list[object], depth: int) -> ast.Node:
    if len(arguments) != 2:
        raise BadQuery("null? requires exactly two arguments")
    name, wanted = arguments
    if not isinstance(wanted, bool):
        raise BadQuery(f"null? takes true or false as its second argument, not {shown(wanted)}")
    return ast.IsNull(read_field(name), wanted)
