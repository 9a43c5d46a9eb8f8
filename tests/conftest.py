"""Fixtures: a real PostgreSQL for the session, an own database for each test, migrated from a template."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ingest.store.connection import Connection, connect
from ingest.store.migrate import migrate
from lab.servers import Postgres

# A red CI means the change, not luck: it takes the same examples each time. Everybody else looks for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("INGEST_TEST_SAME_EXAMPLES"):
    settings.load_profile("ci")

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    # Not below pytest's own directory: nobody but its owner gets into that, and postgres is another user.
    directory = Path(tempfile.mkdtemp(prefix="ingest-postgresql-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    server.start()
    server.execute("postgres", "CREATE DATABASE template_ingest")
    connection = connect(server.conninfo("template_ingest"))
    migrate(connection)
    connection.close()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The conninfo of a migrated, empty database."""
    name = f"test_{next(_numbers)}"
    postgres.execute("postgres", f"CREATE DATABASE {name} TEMPLATE template_ingest")
    yield postgres.conninfo(name)
    postgres.execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    opened = connect(database)
    yield opened
    opened.close()
