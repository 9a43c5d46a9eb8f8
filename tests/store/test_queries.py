"""Statements name our tables with the schema that they lie in, and nothing else is looked up outside pg_catalog."""

from __future__ import annotations

import re

import psycopg
import pytest

from ingest.store.connection import Connection
from ingest.store.queries import in_schema, names_queries, our_names, query

# Not one statement with parameters: utility commands, or several of them.
UTILITY = re.compile(
    r"^(--[^\n]*\n)*(BEGIN|ROLLBACK|DISCARD|LOCK|CHECKPOINT|CREATE|DROP|GRANT|ALTER|COPY|SET)\b"
)


@pytest.mark.parametrize("name", names_queries())
def test_every_statement_is_understood_without_our_schema_in_the_path(
    connection: Connection, name: str
) -> None:
    """Under a search_path of pg_catalog only, as where others may create in our schema."""
    connection.execute("SET search_path = pg_catalog, pg_temp")
    for staging in (name for name in names_queries() if name.startswith("create_stage_")):
        connection.execute(query(staging))
    sent = query(name).as_string(connection)
    if UTILITY.match(sent):
        return
    numbers: dict[str, int] = {}

    def placeholder(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        key = found[1] or f"place {len(numbers)}"
        return f"${numbers.setdefault(key, len(numbers) + 1)}"

    statement = re.sub(r"%%|%(?:\((\w+)\))?s", placeholder, sent)
    connection.pgconn.prepare(b"understood", statement.encode()).error_message.decode()
    result = connection.pgconn.describe_prepared(b"understood")
    assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, (
        connection.pgconn.error_message.decode() + statement
    )


def test_the_check_finds_a_table_that_is_not_named_in_full(connection: Connection) -> None:
    """It is there to find it."""
    connection.execute("SET search_path = pg_catalog, pg_temp")
    connection.pgconn.prepare(b"understood", b"SELECT FROM nodes")
    assert connection.pgconn.describe_prepared(b"understood").status == psycopg.pq.ExecStatus.FATAL_ERROR


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("SELECT tags FROM tags", "SELECT tags FROM s.tags"),
        ("SELECT n.id FROM nodes n JOIN\n  catalogs c USING (id)", "SELECT n.id FROM s.nodes n JOIN\n  s.catalogs c USING (id)"),
        ("INSERT INTO nodes (certname) SELECT 1", "INSERT INTO s.nodes (certname) SELECT 1"),
        ("UPDATE content_state SET generation = 1", "UPDATE s.content_state SET generation = 1"),
        ("ON CONFLICT DO UPDATE SET attempts = quarantine.attempts", "ON CONFLICT DO UPDATE SET attempts = quarantine.attempts"),
        ("DELETE FROM catalogs t USING nodes n", "DELETE FROM s.catalogs t USING s.nodes n"),
        ("SELECT FROM public.nodes", "SELECT FROM public.nodes"),
        ("SELECT FROM stage_resources", "SELECT FROM stage_resources"),
        ("SELECT unnest(x) AS resources FROM f(y) AS tags (id)", "SELECT unnest(x) AS resources FROM f(y) AS tags (id)"),
        ("SELECT resource_kind(r.kind), x.resource_kind(1)", "SELECT s.resource_kind(r.kind), x.resource_kind(1)"),
        ("LOCK TABLE content_state IN ROW SHARE MODE", "LOCK TABLE s.content_state IN ROW SHARE MODE"),
    ],
)  # fmt: skip
def test_tables_and_functions_get_the_schema_and_columns_do_not(written: str, sent: str) -> None:
    """Whatever else is called as a table is called."""
    assert in_schema(written, "s") == sent


def test_what_is_ours_is_what_the_migrations_create(connection: Connection) -> None:
    """No table, view or function in our schema is left out."""
    relations, functions = our_names()
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
    ).fetchall()
    assert {name for (name,) in rows} == relations
    rows = connection.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    ).fetchall()
    assert {name for (name,) in rows} == functions
