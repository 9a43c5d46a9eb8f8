"""What a request asks for as a statement: rows of an entity, or counts of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.core.query.ast import BadQuery, Query
from ingest.store.query.compiling import Compiled, compile_query
from ingest.store.query.event_counts import compile_aggregate, compile_distinct_events, compile_event_counts


def compile_asked(query: Query, counts: Mapping[str, Any], node_purge_ttl_s: float) -> Compiled:
    """``counts`` are the parameters that only counts of events have. Raises BadQuery."""
    if query.entity in ("event_counts", "aggregate_event_counts"):
        if not counts.get("summarize_by"):
            raise BadQuery(f"{query.entity} needs the parameter 'summarize_by'")
        compile_counts = compile_event_counts if query.entity == "event_counts" else compile_aggregate
        return compile_counts(query, counts, node_purge_ttl_s)
    if query.entity == "events" and counts.get("distinct_resources"):
        return compile_distinct_events(query, counts, node_purge_ttl_s)
    return compile_query(query, node_purge_ttl_s)
