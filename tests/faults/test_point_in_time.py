"""PostgreSQL restored to a point in time while queue and engine go on: what is known then, and what brings the rest back."""

from __future__ import annotations

import copy
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.store.connection import connect
from ingest.store.migrate import migrate
from lab.engine import Engine, publish, wait_for
from lab.runs import Run, report_of
from lab.servers import Postgres, free_port
from lab.store_model import expected, resource, stored, wire_body
from tests.brokers.command import ingest
from tests.faults.test_drain import DRAINED

DATABASE = "ingest"


class Archived(Postgres):
    """A server that archives its WAL, and can go back."""

    def begin(self) -> None:
        self.wal = self.directory / "wal"
        self.base = self.directory / "base"
        self.left = self.directory / "left"  # what it was before
        subprocess.run(
            ["mkdir", self.wal], check=True, **self._as  # type: ignore[call-overload]
        )  # fmt: skip
        self.start(archive_mode="on", archive_command=f"cp %p {self.wal}/%f", wal_level="replica")
        self.execute("postgres", f"CREATE DATABASE {DATABASE}")

    def back_up(self) -> None:
        at = f"host=127.0.0.1 port={self.port} user=postgres"
        subprocess.run(
            [self.bin / "pg_basebackup", "-D", self.base, "-X", "none", "-c", "fast", "-d", at],
            check=True, capture_output=True, cwd=self.directory, **self._as,  # type: ignore[call-overload]
        )  # fmt: skip

    def go_back(self, point: str) -> None:
        """To a named restore point, from the backup and the archived WAL. It must have been stopped, so that all is archived."""
        self.data.rename(self.left)
        self.base.rename(self.data)
        subprocess.run(
            ["touch", self.data / "recovery.signal"], check=True, **self._as  # type: ignore[call-overload]
        )  # fmt: skip
        self.start(
            restore_command=f"cp {self.wal}/%f %p",
            recovery_target_name=point,
            recovery_target_action="promote",
        )
        with psycopg.connect(self.conninfo(DATABASE), autocommit=True) as connection:
            while connection.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
                pass

    def as_it_was(self) -> Postgres:
        """The same before it went back, beside it."""
        other = copy.copy(self)
        other.data, other.port, other.process = self.left, free_port(), None
        other.start()
        return other


@pytest.fixture
def server() -> Iterator[Archived]:
    directory = Path(tempfile.mkdtemp(prefix="ingest-archived-"))
    directory.chmod(0o755)
    made = Archived(directory)
    try:
        made.begin()
        yield made
    finally:
        made.stop(immediate=True)
        shutil.rmtree(directory)


def body(node: str, run: int) -> bytes:
    return wire_body(node, run, [resource(f"/{place}", parameters={"run": f"{run}"}) for place in range(5)])


def state(server: Archived) -> dict[str, int]:
    """The number of each node's run."""
    with psycopg.connect(server.conninfo(DATABASE)) as connection:
        rows: Any = connection.execute(
            "SELECT certname, right(transaction_uuid::text, 12)::bigint FROM catalogs JOIN nodes ON id = node_id"
        ).fetchall()
    return dict(rows)


def reports(server: Archived) -> int:
    with psycopg.connect(server.conninfo(DATABASE)) as connection:
        row: Any = connection.execute("SELECT count(*) FROM reports").fetchone()
    return int(row[0])


def bring_back(server: Archived, broker: str, directory: Path) -> None:
    """All that the server had before it went back, by an archive."""
    old = server.as_it_was()
    archive = directory / "as-it-was.tgz"
    try:
        for done in (
            ingest("export", archive, "--database", old.conninfo(DATABASE)),
            ingest("import", archive, "--queue-source", broker, "--data-dir", directory / "data"),
        ):
            assert done.returncode == 0, done.stderr
    finally:
        old.stop()


def test_after_a_restore_the_queue_and_the_next_runs_bring_the_newest_state(
    server: Archived, broker: str, tmp_path: Path
) -> None:
    """What was acknowledged after the point is gone until the node's next run. What the queue still had comes; what is sent
    again is stored again, though the engine, which was never stopped, remembers that it is stored. An archive of what
    the server was brings the rest, reports too, and takes nothing back that is newer."""
    with connect(server.conninfo(DATABASE)) as connection:
        migrate(connection)
    conninfo = server.conninfo(DATABASE)
    engine = Engine(broker, conninfo, "--backoff-max-s", "0.5", log=tmp_path / "log")
    try:
        engine.wait_ready()
        nodes = [f"n{place}.example.com" for place in range(9)]
        publish(broker, *(body(node, 1) for node in nodes))
        engine.wait_settled(9)
        server.back_up()
        publish(broker, *(body(node, 2) for node in nodes[3:]))
        engine.wait_settled(15)
        server.execute(DATABASE, "SELECT pg_create_restore_point('before_the_mistake')")
        publish(broker, *(body(node, 3) for node in nodes[6:]), body("new.example.com", 3))
        publish(broker, report_of(Run(nodes[8], 8, 3, datetime.now(UTC))))
        engine.wait_settled(20)
        server.stop()
        publish(broker, body(nodes[0], 4), body(nodes[6], 4))  # the queue has them
        server.go_back("before_the_mistake")
        engine.wait_settled(22)
        point = dict.fromkeys(nodes[:3], 1) | dict.fromkeys(nodes[3:], 2)
        assert state(server) == point | {nodes[0]: 4, nodes[6]: 4}
        publish(
            broker, body(nodes[7], 3), body("new.example.com", 3)
        )  # the very bytes that were stored and are gone
        engine.wait_settled(24)
        again = point | {nodes[0]: 4, nodes[6]: 4, nodes[7]: 3, "new.example.com": 3}
        assert (state(server), reports(server)) == (again, 0)
        bring_back(server, broker, tmp_path)
        wait_for(lambda: reports(server), engine, "the report is back")
        wait_for(lambda: state(server)[nodes[8]] == 3, engine, "its catalog is back")
        assert engine.stop() == DRAINED
        found = state(server)
        assert found == again | {nodes[8]: 3}
        with connect(conninfo) as connection:
            for node, run in found.items():
                assert stored(connection, node) == expected(body(node, run)), node
    finally:
        engine.kill()
