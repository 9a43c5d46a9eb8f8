"""The entities that come from facts and package inventories."""

from __future__ import annotations

from ingest.store.query.catalog_entities import BY_CERTNAME, BY_ENVIRONMENT, BY_PRODUCER
from ingest.store.query.entity import OF_NODES, Entity, EntityField, Relation, Type, always, subselect

_OF_VALUES = {state: sql.replace("n.", "v.") for state, sql in OF_NODES.items()}
_OF_FACTSETS = {state: sql.replace("n.", "f.") for state, sql in OF_NODES.items()}


FACTS = Entity(
    "facts",
    {
        "certname": EntityField("v.certname"),
        "environment": EntityField("e.name"),
        "name": EntityField("v.name"),
        "value": EntityField("v.value", Type.SCALAR),
    },
    always("from_facts"),
    BY_CERTNAME | BY_ENVIRONMENT | {"fact_contents": Relation(("certname", "name"), ("certname", "name"))},
    _OF_VALUES,
)

FACT_CONTENTS = Entity(
    "fact_contents",
    {
        "certname": EntityField("v.certname"),
        "environment": EntityField("e.name"),
        "path": EntityField("leaf.path", Type.PATH),
        "name": EntityField("v.name"),
        "value": EntityField("leaf.value", Type.SCALAR),
    },
    always("from_fact_contents"),
    BY_CERTNAME | BY_ENVIRONMENT | {"facts": Relation(("certname", "name"), ("certname", "name"))},
    _OF_VALUES,
)

_HREF = "'/pdb/query/v4/factsets/' || f.certname || '/facts'"
FACTSETS = Entity(
    "factsets",
    {
        "certname": EntityField("f.certname"),
        "timestamp": EntityField("f.timestamp", Type.TIMESTAMP),
        "producer_timestamp": EntityField("f.producer_timestamp", Type.TIMESTAMP),
        "producer": EntityField("f.producer"),
        "environment": EntityField("f.environment"),
        "hash": EntityField("f.hash"),
        "facts": EntityField(
            f"json_build_object('data', {subselect('factset_json', node_id='f.node_id')}, 'href', {_HREF})",
            Type.JSON,
            queryable=False,
        ),
    },
    always("from_factsets"),
    BY_CERTNAME | BY_ENVIRONMENT | BY_PRODUCER,
    _OF_FACTSETS,
)

_BY_NAME = subselect("fact_by_name", node_id="f.node_id", name="{name}")
_TRUSTED = subselect("fact_by_name", node_id="f.node_id", name="'trusted'")
INVENTORY = Entity(
    "inventory",
    {
        "certname": EntityField("f.certname"),
        "timestamp": EntityField("f.timestamp", Type.TIMESTAMP),
        "environment": EntityField("f.environment"),
        "facts": EntityField("f.facts", Type.DOCUMENT, by_name=_BY_NAME),
        "trusted": EntityField(_TRUSTED, Type.DOCUMENT),
    },
    always("from_factsets"),
    BY_CERTNAME,
    _OF_FACTSETS,
)

FACT_PATHS = Entity(
    "fact_paths",
    {
        "name": EntityField("fp.name"),
        "path": EntityField("fp.path_array", Type.PATH_TEXT),
        "type": EntityField("fp.type"),
        "depth": EntityField("fp.depth", Type.NUMERIC, projectable=False),
    },
    always("from_fact_paths"),
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
    _OF_VALUES,
)

FACT_ENTITIES = (
    FACTS, FACT_CONTENTS, FACTSETS, INVENTORY, FACT_PATHS, FACT_NAMES, PACKAGES, PACKAGE_INVENTORY,
)  # fmt: skip
