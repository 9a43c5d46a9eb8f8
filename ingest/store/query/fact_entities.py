"""The entities that come from facts and package inventories."""

from __future__ import annotations

from ingest.core.query import ast
from ingest.store.query.catalog_entities import (
    BY_CERTNAME,
    BY_ENVIRONMENT,
    BY_PRODUCER,
    conjuncts,
    names_nodes,
)  # fmt: skip
from ingest.store.query.entity import (
    OF_FACTS,
    OF_NODES,
    Entity,
    EntityField,
    Relation,
    Source,
    Type,
    always,
    embedded,
    subselect,
)  # fmt: skip

_OF_PACKAGES = {state: sql.replace("n.", "v.") for state, sql in OF_NODES.items()}
PARTS_MAX = 100  # of a path that is looked up: each is an operator of the statement
_NAME = ast.Field("name", (), (), "name")
_IN_PLACE = subselect("fact_in_place", **OF_FACTS)


def _facts_source(where: ast.Node | None) -> Source:
    """By way of the nodes where the query says which, else by what they share; there, names of facts are looked for first."""
    parts = conjuncts(where)
    if any(map(names_nodes, parts)):
        return Source("from_facts")
    content = tuple(part for part in parts if _is_about_names(part))
    if content:
        return Source("from_facts_by_base", ast.And(content))
    return Source("from_facts" if any(map(_is_about_nodes, parts)) else "from_facts_by_base")


def _contents_source(where: ast.Node | None) -> Source:
    """A path begins with the name of its fact: no other fact is taken apart. One path of all nodes is looked up."""
    parts = conjuncts(where)
    names = ast.And(tuple(name for part in parts if (name := _names_in(part)) is not None))
    path = next(filter(None, map(_path_of, parts)), ())
    if not path or any(map(names_nodes, parts)):
        return Source("from_fact_contents", names)
    return Source("from_fact_contents_at_path", names, path)


def _paths_source(where: ast.Node | None) -> Source:
    parts = conjuncts(where)
    names = (_names_in(part, whole=True) for part in parts)
    return Source("from_fact_paths", ast.And(tuple(name for name in names if name is not None)))


def _path_of(part: ast.Node) -> tuple[str | int, ...]:
    """The whole path that a condition names, if it can be looked up."""
    match part:
        case ast.Compare("=", ast.Field(text="path"), [str(first), *rest]) if len(rest) < PARTS_MAX:
            steps = [one for one in rest if isinstance(one, str) or (type(one) is int and 0 <= one < 2**31)]
            return (first, *steps) if len(steps) == len(rest) else ()
    return ()


def _names_in(part: ast.Node, *, whole: bool = False) -> ast.Node | None:
    """What a condition says of the fact's name. ``whole``: a pattern for a part of a path is one for all of it."""
    match part:
        case ast.Or(parts):
            found = [_names_in(one, whole=whole) for one in parts]
            return ast.Or(tuple(one for one in found if one is not None)) if None not in found else None
        case ast.Compare("=", ast.Field(text="path"), [str(first), *_]):
            return ast.equals("name", first)
        case ast.Compare("~>", ast.Field(text="path"), [str(first), *_]):
            return ast.Compare("~", _NAME, f"^(?:{first})$" if whole else first)
        case ast.InArray(ast.Field(text="path"), values) if all(
            isinstance(one, list) and one for one in values
        ):
            firsts = tuple(one[0] for one in values if isinstance(one, list))
            return ast.InArray(_NAME, firsts) if all(isinstance(one, str) for one in firsts) else None
    return part if _is_about_names(part) else None


def _is_about_names(part: ast.Node) -> bool:
    match part:
        case ast.And(parts) | ast.Or(parts):
            return all(map(_is_about_names, parts))
        case ast.Not(inner):
            return _is_about_names(inner)
        case ast.Compare(_, ast.Field(text="name")) | ast.InArray(ast.Field(text="name")):
            return True
        case ast.IsNull(field):
            return field.text == "name"
        case _:
            return False


def _is_about_nodes(part: ast.Node) -> bool:
    """They may be few then."""
    return not ast.is_node_state(part) and any(map(_is_of_certname, ast.walk(part)))


def _is_of_certname(part: ast.Node) -> bool:
    match part:
        case ast.Compare(_, ast.Field(text="certname")) | ast.InArray(ast.Field(text="certname")):
            return True
        case ast.Related() | ast.Compare(_, ast.Pair()) | ast.InArray(ast.Pair()):
            return True
        case ast.InQuery(fields):
            return any(field.text == "certname" for field in fields)
        case _:
            return False


FACTS = Entity(
    "facts",
    {
        "certname": EntityField("n.certname", json="texts.certname"),
        "environment": EntityField("e.name", json="texts.environment"),
        "name": EntityField("v.name", json="texts.name"),
        "value": EntityField(f"{_IN_PLACE}::jsonb", Type.SCALAR, json=_IN_PLACE),
    },
    _facts_source,
    BY_CERTNAME | BY_ENVIRONMENT | {"fact_contents": Relation(("certname", "name"), ("certname", "name"))},
    OF_NODES,
)

FACT_CONTENTS = Entity(
    "fact_contents",
    {
        "certname": EntityField("n.certname"),
        "environment": EntityField("e.name"),
        "path": EntityField("leaf.path", Type.PATH),
        "name": EntityField("v.name"),
        "value": EntityField("leaf.value", Type.SCALAR),
    },
    _contents_source,
    BY_CERTNAME | BY_ENVIRONMENT | {"facts": Relation(("certname", "name"), ("certname", "name"))},
    OF_NODES,
)

_OF_NODE = {"node_id": "f.node_id", "base_id": "f.base_id"}
_HREF = "'/pdb/query/v4/factsets/' || n.certname || '/facts'"
_FACTSET = {
    "certname": EntityField("n.certname"),
    "timestamp": EntityField("f.received_at", Type.TIMESTAMP),
    "environment": EntityField("e.name"),
}
FACTSETS = Entity(
    "factsets",
    {
        **_FACTSET,
        "producer_timestamp": EntityField("f.producer_timestamp", Type.TIMESTAMP),
        "producer": EntityField("pr.name"),
        "hash": EntityField("encode(f.content_digest, 'hex')"),
        "facts": embedded(subselect("factset_json", **_OF_NODE), _HREF),
    },
    always("from_factsets"),
    BY_CERTNAME | BY_ENVIRONMENT | BY_PRODUCER,
    OF_NODES,
    has_large_rows=True,
)

_PACKAGES = subselect("packages_json", node_id="f.node_id")
# With include_package_inventory.
FACTSETS_WITH_PACKAGES = FACTSETS._replace(
    name="factsets_with_packages",
    fields={
        **FACTSETS.fields,
        # As PuppetDB has it: none is null to a condition, and shown as an empty list.
        "package_inventory": EntityField(
            f"{_PACKAGES}::json", Type.JSON, queryable=False, json=f"coalesce({_PACKAGES}, '[]')"
        ),
    },
)

_OBJECT = subselect("factset_object", **_OF_NODE)
_TRUSTED = subselect("fact_by_name", **_OF_NODE, name="'trusted'")
INVENTORY = Entity(
    "inventory",
    {
        **_FACTSET,
        "facts": EntityField(f"{_OBJECT}::jsonb", Type.DOCUMENT, json=_OBJECT, by_name="join_fact"),
        "trusted": EntityField(_TRUSTED, Type.DOCUMENT),
    },
    always("from_inventory"),
    BY_CERTNAME,
    OF_NODES,
    has_large_rows=True,
)

FACT_PATHS = Entity(
    "fact_paths",
    {
        "name": EntityField("fp.name"),
        "path": EntityField("fp.path_array", Type.PATH_TEXT),
        "type": EntityField("fp.type"),
        "depth": EntityField("(jsonb_array_length(fp.path_array) - 1)", Type.NUMERIC, projectable=False),
    },
    _paths_source,
    {"facts": Relation(("name",), ("name",)), "fact_contents": Relation(("path",), ("path",))},
)

FACT_NAMES = Entity(
    "fact_names", {"name": EntityField("fp.name")}, always("from_fact_names"), distinct=True, bare="name"
)

_PACKAGE = {
    "package_name": EntityField("v.package_name"),
    "version": EntityField("v.version"),
    "provider": EntityField("v.provider"),
}
PACKAGES = Entity("packages", _PACKAGE, always("from_packages"))
PACKAGE_INVENTORY = Entity(
    "package_inventory",
    {"certname": EntityField("v.certname"), **_PACKAGE},
    always("from_package_inventory"),
    BY_CERTNAME,
    _OF_PACKAGES,
)

FACT_ENTITIES = (
    FACTS, FACT_CONTENTS, FACTSETS, FACTSETS_WITH_PACKAGES, INVENTORY, FACT_PATHS, FACT_NAMES, PACKAGES, PACKAGE_INVENTORY,
)  # fmt: skip
