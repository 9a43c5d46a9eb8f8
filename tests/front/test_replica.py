"""Queries that go to a replica: how far behind it is, is said with each answer."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.store.connection import connect
from ingest.store.migrate import migrate
from lab.front import Front
from lab.servers import Postgres
from tests.faults.world import Standby

NODES = "/pdb/query/v4/nodes"
LAG = "x-replica-lag"


def wait(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture
def servers() -> Iterator[tuple[Postgres, Standby]]:
    """A primary with our tables, and its standby."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-replica-"))
    directory.chmod(0o755)
    for name in ("primary", "replica"):
        (directory / name).mkdir(mode=0o755)
    primary = Postgres(directory / "primary")
    primary.start(wal_level="replica", max_wal_senders="10", wal_keep_size="64MB")
    replica = None
    try:
        with connect(primary.conninfo("postgres")) as connection:
            migrate(connection)
        replica = Standby(directory / "replica", primary)
        yield primary, replica
    finally:
        if replica is not None:
            replica.stop(immediate=True)
        primary.stop(immediate=True)
        shutil.rmtree(directory)


def add_node(primary: Postgres, name: str) -> None:
    with psycopg.connect(primary.conninfo("postgres"), autocommit=True) as connection:
        connection.execute("INSERT INTO nodes (certname) VALUES (%s)", [name])


def test_a_replica_says_how_far_behind_it_is(
    servers: tuple[Postgres, Standby], broker: str, tmp_path: Path
) -> None:
    """Nothing while it has replayed what it has; the age of what it shows while it waits an hour with it; no header at all
    from the primary, nor over the same connections once it is promoted."""
    primary, replica = servers
    fronts = [
        Front(primary.conninfo("postgres"), broker, "--http-database", server.conninfo("postgres"),
              log=tmp_path / f"serve-{place}.log")
        for place, server in enumerate(servers)
    ]  # fmt: skip
    try:
        for front in fronts:
            front.wait_ready()
        of_primary, of_replica = fronts
        add_node(primary, "before")
        wait(lambda: len(of_replica.get(NODES).json) == 1, "the first node has come")
        wait(lambda: of_replica.get(NODES).headers[LAG] == "0", "nothing is to be replayed")
        replica.execute("postgres", "ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
        replica.execute("postgres", "SELECT pg_reload_conf()")
        time.sleep(0.5)
        add_node(primary, "after")
        written_s = time.monotonic()
        wait(lambda: int(of_replica.get(NODES).headers[LAG]) >= 3, "the lag grows")
        assert time.monotonic() - written_s > 1, "an age, and no constant"
        answer = of_replica.get(NODES)
        assert [row["certname"] for row in answer.json] == ["before"]
        assert len(of_primary.get(NODES).json) == 2
        assert LAG not in of_primary.get(NODES).headers
        replica.execute("postgres", "SELECT pg_promote()")
        wait(lambda: LAG not in of_replica.get(NODES).headers, "the promoted one is no replica")
        assert len(of_replica.get(NODES).json) == 2
    finally:
        for front in fronts:
            front.stop()
