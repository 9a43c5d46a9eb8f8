"""Every entity by its name."""

from __future__ import annotations

from ingest.core.query.ast import BadQuery, Query
from ingest.store.query.catalog_entities import (
    CATALOG_ENTITIES,
    RESOURCES,
    RESOURCES_COUNTED,
    are_only_counted,
)
from ingest.store.query.entity import Entity
from ingest.store.query.fact_entities import FACT_ENTITIES
from ingest.store.query.report_entities import REPORT_ENTITIES

ENTITIES: dict[str, Entity] = {
    entity.name: entity for entity in (*CATALOG_ENTITIES, *FACT_ENTITIES, *REPORT_ENTITIES)
}


def entity_for(query: Query) -> Entity:
    """The one that a query of the root is about. Raises BadQuery."""
    found = entity_of(query.entity)
    return RESOURCES_COUNTED if found is RESOURCES and are_only_counted(query) else found


def entity_of(name: str) -> Entity:
    """Raises BadQuery."""
    found = ENTITIES.get(name)
    if found is None:
        raise BadQuery(f"Invalid entity '{name[:200]}' in query")
    return found
