"""Fixtures: a real PostgreSQL for the session, an own database for each test, migrated from a template.

And the tiers, which the Makefile chooses by: a test that starts a server or a process of its own is marked ``server``, one
that needs a foreign broker, Puppet or faults ``full``; what is left is pure. ``long`` ones are left out without ``--long``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from ingest.store.connection import Connection, connect
from ingest.store.migrate import migrate
from lab.servers import Postgres

# A red CI means the change, not luck: it takes the same examples each time. Everybody else looks for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("INGEST_TEST_SAME_EXAMPLES"):
    settings.load_profile("ci")

# An engine of another test, or of this machine's user, is not the one that a command shall find.
RUNTIME = tempfile.TemporaryDirectory(prefix="ingest-runtime-")
os.environ["RUNTIME_DIRECTORY"] = RUNTIME.name

_numbers = itertools.count()
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# By where a test stands: what its folder or module needs. The fixtures of a test say it, too.
FULL = (
    "tests/puppet/", "tests/faults/", "tests/brokers/test_real_brokers.py", "tests/brokers/test_foreign_producers.py",
    "tests/brokers/test_producers.py", "tests/brokers/test_failover.py", "tests/brokers/test_tls.py", "tests/hostile/",
    "tests/cluster/", "tests/front/test_oracle.py", "tests/front/test_switching.py", "tests/front/test_terminus.py",
)  # fmt: skip
SERVER = (
    "tests/engine/", "tests/front/", "tests/store/", "tests/brokers/test_server.py", "tests/brokers/test_receiving.py",
    "tests/brokers/test_kept.py",
    "tests/capacity/test_calibrate.py", "tests/capacity/test_command.py", "tests/loadgen/test_command.py",
    "tests/test_cli.py", "tests/test_embedded.py", "tests/test_nodes.py", "tests/test_monitoring.py",
)  # fmt: skip
SERVER_FIXTURES = {"postgres", "broker", "engine", "start"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also what takes minutes (marked long)")
    parser.addoption(
        "--no-skips", action="store_true", help="a skipped test fails the run: everything is installed"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, left_out = [], []
    for item in items:
        if item.nodeid.startswith(FULL):
            item.add_marker(pytest.mark.full)
        if item.nodeid.startswith(SERVER) or SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
        is_wanted = config.getoption("--long") or item.get_closest_marker("long") is None
        (kept if is_wanted else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _without_skips(report, item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _without_skips(report, collector.config)


def _without_skips(report: Report, config: pytest.Config) -> Report:
    """With --no-skips a skipped test has failed, and is one of those that --lf runs again."""
    if report.skipped and config.getoption("--no-skips") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped: {report.longreprtext}"
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    # Not below pytest's own directory: nobody but its owner gets into that, and postgres is another user.
    directory = Path(tempfile.mkdtemp(prefix="ingest-postgresql-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    server.start()
    server.execute("postgres", "CREATE DATABASE template_ingest")
    # PostgreSQL 14 lets everybody create in it, and then nothing is looked up there; tests name our tables as they are.
    server.execute("template_ingest", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
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
