"""A database of the version before is taken over as it is, with its rights and what is stored."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from ingest.store import migrate
from ingest.store.connection import connect
from lab.servers import Postgres
from lab.store_model import Pipeline, expected, resource, stored, wire_body

ROLES = {"takeover engine": "INSERT", "takeover%'reader": "SELECT"}
BODY = wire_body("n.example.com", 1, [resource("/x", parameters={"list": ["a", "b"]})])


@pytest.fixture
def old(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The conninfo of a database with the schema before, in a schema of an odd name, with two roles."""
    postgres.execute("postgres", "CREATE DATABASE takeover")
    conninfo = postgres.conninfo("takeover") + " options='-c search_path=\"Odd-schema\"'"
    with psycopg.connect(conninfo, autocommit=True) as opened:
        opened.execute('CREATE SCHEMA "Odd-schema"')
        for role in ROLES:
            opened.execute(f'CREATE ROLE "{role}"')  # type: ignore[call-overload]
    known = migrate.migrations()
    with monkeypatch.context() as patched:
        patched.setattr(migrate, "migrations", lambda: [one for one in known if one[0] <= 2])
        connection = connect(conninfo)
        assert migrate.migrate(connection) == 2
        for role, right in ROLES.items():
            connection.execute(f'GRANT SELECT, {right} ON environments, producers TO "{role}"')  # type: ignore[call-overload]
            connection.execute(f'GRANT SELECT ON storeconfigs.param_values TO "{role}"')  # type: ignore[call-overload]
        connection.close()
    yield conninfo
    postgres.execute("postgres", "DROP DATABASE takeover WITH (FORCE)")
    for role in ROLES:
        postgres.execute("postgres", f'DROP ROLE "{role}"')


def test_rights_and_content_are_kept_and_rights_on_what_is_new_follow(old: str) -> None:
    """Who may write names may delete them now, and nobody else; views can be read by whom they could be read."""
    connection = connect(old)
    assert migrate.migrate(connection) == len(migrate.migrations()) - 2
    assert Pipeline(connection).take(BODY)
    assert stored(connection, "n.example.com") == expected(BODY)
    for role, right in ROLES.items():
        for table, wanted in (
            ("environments", "DELETE"),
            ("producers", "DELETE"),
            ("engines", "INSERT"),
            ("node_locks", "UPDATE"),
        ):
            row = connection.execute(
                "SELECT has_table_privilege(%s, %s, %s)", [role, table, wanted]
            ).fetchone()
            assert row == (right == "INSERT",)
        row = connection.execute(
            "SELECT has_table_privilege(%s, 'storeconfigs.param_values', 'SELECT')", [role]
        ).fetchone()
        assert row == (True,)
    connection.close()
