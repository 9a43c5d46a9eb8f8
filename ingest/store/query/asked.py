"""What a request asks for as a statement: rows of an entity, or counts of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.core.query.ast import Query
from ingest.store.query.compiling import Compiled, compile_query


def compile_asked(query: Query, counts: Mapping[str, Any], node_purge_ttl_s: float) -> Compiled:
    """Raises BadQuery."""
    return compile_query(query, node_purge_ttl_s)
