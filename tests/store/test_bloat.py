"""What never changes takes no more room with time: nobody ever has to run VACUUM FULL."""

from __future__ import annotations

from typing import Any

from ingest.core.delivery.work import Outcome
from ingest.store.connection import Connection
from lab.store_model import Pipeline, resource, wire_body

NODES, FEW, BATCH, ROUNDS = 60, 20, 20, 50
SETTLED_ROUNDS = 5  # by then every page has the dead rows that pruning keeps room for
PAGE_BYTES = 8192


def sizes(connection: Connection) -> dict[str, int]:
    """Bytes of every table and index, the system's own too, but for temporary ones and the planner's statistics:
    those grow whenever autovacuum looks at a table for the first time."""
    rows: Any = connection.execute(
        """WITH statistics AS (SELECT oid, reltoastrelid FROM pg_class WHERE relname LIKE 'pg_statistic%'),
             apart AS (SELECT oid FROM statistics UNION SELECT reltoastrelid FROM statistics),
             with_indexes AS (SELECT oid FROM apart UNION SELECT indexrelid FROM pg_index JOIN apart ON indrelid = oid)
           SELECT oid::regclass::text, pg_relation_size(oid) FROM pg_class
           WHERE relkind IN ('r', 'i', 't') AND relpersistence = 'p' AND oid NOT IN (TABLE with_indexes)"""
    ).fetchall()
    return dict(rows)


def a_round(pipeline: Pipeline, minute: int, content: list[list[dict[str, Any]]]) -> list[Outcome]:
    bodies = [wire_body(f"n{n}.example.com", minute, resources) for n, resources in enumerate(content)]
    outcomes: list[Outcome] = []
    for start in range(0, len(bodies), BATCH):
        outcomes += pipeline.take(*bodies[start : start + BATCH])
    return outcomes


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: size - before.get(name, 0) for name, size in after.items() if size > before.get(name, 0)}


def test_fifty_rounds_of_unchanged_catalogs_grow_nothing(connection: Connection) -> None:
    """Each round updates every header, HOT and in place; after the fifth no table and no index grows."""
    pipeline = Pipeline(connection)
    content = [[resource(f"/{node}/{n}") for n in range(30)] for node in range(NODES)]
    assert a_round(pipeline, 0, content) == [Outcome.STORED] * NODES
    for minute in range(1, SETTLED_ROUNDS + 1):
        a_round(pipeline, minute, content)
    settled = sizes(connection)
    for minute in range(SETTLED_ROUNDS + 1, ROUNDS + 1):
        assert a_round(pipeline, minute, content) == [Outcome.UNCHANGED] * NODES
    assert grown(settled, sizes(connection)) == {}
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'catalogs'"
    ).fetchone()
    assert row == (NODES * ROUNDS, NODES * ROUNDS)


def test_fifty_rounds_of_changed_parameters_grow_content_only(connection: Connection) -> None:
    """Membership is rewritten in place; what grows is content, and garbage collection gives its room back."""
    pipeline = Pipeline(connection)

    def content(minute: int) -> list[list[dict[str, Any]]]:
        first = resource("/changing", parameters={"minute": minute})
        return [[first, *(resource(f"/{node}/{n}") for n in range(130))] for node in range(FEW)]

    for minute in range(SETTLED_ROUNDS + 1):
        a_round(pipeline, minute, content(minute))
    settled = sizes(connection)
    for minute in range(SETTLED_ROUNDS + 1, ROUNDS + 1):
        assert a_round(pipeline, minute, content(minute)) == [Outcome.STORED] * FEW
    more = grown(settled, sizes(connection))
    assert {name for name in more if not name.startswith("resources")} == set()
    assert sum(more.values()) <= 4 * PAGE_BYTES
