"""Which server is the primary, and when its COMMIT counts: servers that tell less, wait for odd standbys, or stand beside odd
hosts in a list."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Unsure
from ingest.store.connection import Connection, connect
from ingest.store.failover import Cluster
from ingest.store.lane import Commit
from ingest.store.migrate import grant, migrate
from lab.servers import Postgres, free_port
from lab.store_model import Pipeline, resource, wire_body


def cluster_at(conninfo: str) -> Cluster:
    return Cluster(conninfo, lambda one, timeout_s: connect(one, connect_timeout_s=timeout_s or 2))


# Servers that tell less

CLOSED = [
    "pg_walfile_name(pg_lsn)",
    "pg_current_wal_lsn()",
    "pg_control_checkpoint()",
    "pg_walfile_name(pg_lsn), pg_current_wal_lsn(), pg_control_checkpoint()",
]


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("functions", CLOSED)
def test_a_server_that_does_not_tell_its_timeline_is_worked_with(
    postgres: Postgres, database: str, connection: Connection, functions: str, hosts: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Hardened ones let administrators only ask for it. With several hosts one line says what is lacking, once."""
    name = connection.info.dbname
    connection.execute("DROP ROLE IF EXISTS untold")
    connection.execute("CREATE ROLE untold LOGIN")
    grant(connection, "untold", None)
    connection.execute(f"REVOKE EXECUTE ON FUNCTION {functions} FROM PUBLIC")  # type: ignore[call-overload]
    ports = ",".join([str(postgres.port)] * hosts)
    names = ",".join(["127.0.0.1"] * hosts)
    cluster = cluster_at(f"host={names} port={ports} user=untold dbname={name}")
    with cluster.connect() as opened:
        pipeline = Pipeline(opened)
        for minute in (1, 2):
            assert pipeline.take(wire_body("n", minute, [resource(f"/{minute}")])) == [Outcome.STORED]
            cluster.confirm(opened, Commit(2.0))
    connection.execute("DROP OWNED BY untold")
    connection.execute("DROP ROLE untold")
    told = capsys.readouterr().out
    assert told.count("timeline_unknown") == (hosts > 1)


# Standbys that never come


@pytest.fixture(scope="module")
def waiting() -> Iterator[Postgres]:
    """A server without any standby."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-waiting-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    try:
        server.start()
        server.execute("postgres", "CREATE DATABASE ingest")
        with connect(server.conninfo("ingest")) as opened:
            migrate(opened)
        yield server
    finally:
        server.stop(immediate=True)
        shutil.rmtree(directory)


def tell(server: Postgres, *statements: str) -> None:
    """Without waiting for a standby."""
    options = " options='-c synchronous_commit=local'"
    with psycopg.connect(server.conninfo("ingest") + options, autocommit=True) as opened:
        for statement in statements:
            opened.execute(statement)  # type: ignore[call-overload]


def wait_for_standbys(server: Postgres, names: str, opened: Connection) -> None:
    """Until that session knows of it."""
    quoted = names.replace("'", "''")
    tell(server, f"ALTER SYSTEM SET synchronous_standby_names = '{quoted}'", "SELECT pg_reload_conf()")
    deadline_s = time.monotonic() + 30
    while opened.execute("SHOW synchronous_standby_names").fetchone() != (names,):
        assert time.monotonic() < deadline_s, names


NAMES = [
    "*", "one", "one, two", "FIRST 1 (one, two)", "ANY 2 (one, two, three)", '2 ("One", "t""wo")', 'any 1 (*)', '"first"', '"*"',
    "FIRST 3 (one)", 'ANY 1 ("a b", "ü", "x,y")',
]  # fmt: skip


@pytest.mark.parametrize("site", ["on", "off", "local", "remote_write", "remote_apply"])
def test_no_commit_counts_that_waits_for_a_standby_that_never_comes(waiting: Postgres, site: str) -> None:
    """However synchronous_standby_names is written, and whatever the role has set synchronous_commit to: within its bound
    COMMIT is given up. Without a name in it there is nobody to wait for."""
    tell(waiting, f"ALTER ROLE postgres SET synchronous_commit = {site}")
    for place, names in enumerate(["", *NAMES]):
        with connect(waiting.conninfo("ingest")) as opened, contextlib.ExitStack() as stack:
            wait_for_standbys(waiting, names, opened)
            pipeline = Pipeline(opened)
            pipeline.lane._commit_timeout_s = 0.1
            if names:
                stack.enter_context(pytest.raises(Unsure, match="did not come back"))
            body = wire_body(f"{site}.{place}", 1, [resource("/a")])
            assert pipeline.take(body) == [Outcome.STORED]


def test_a_guard_is_noticed_without_a_timeline(waiting: Postgres) -> None:
    """That synchronous_standby_names became empty is doubted, by whoever may not ask for more."""
    tell(
        waiting,
        "ALTER ROLE postgres SET synchronous_commit = on",
        "CREATE ROLE untold LOGIN",
        "REVOKE EXECUTE ON FUNCTION pg_current_wal_lsn() FROM PUBLIC",
    )
    cluster = cluster_at(waiting.conninfo("ingest", "untold"))
    with cluster.connect() as opened:
        for names in ("one", ""):
            wait_for_standbys(waiting, names, opened)
            if names:
                cluster.confirm(opened, Commit(0.0, True))
        with pytest.raises(Unsure, match="became empty"):
            cluster.confirm(opened, Commit(0.0, False))


# Odd hosts in a list


def _fatal(state: str, text: str) -> bytes:
    said = b"SFATAL\0VFATAL\0C" + state.encode() + b"\0M" + text.encode() + b"\0\0"
    return b"E" + struct.pack("!I", len(said) + 4) + said


ODD = {
    "hangs up": b"",
    "speaks HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "wrong password": _fatal("28P01", 'password authentication failed for user "postgres"'),
    "no such database": _fatal("3D000", 'database "x" does not exist'),
    "not in pg_hba.conf": _fatal("28000", "no pg_hba.conf entry for host"),
    "starting up": _fatal("57P03", "the database system is starting up"),
    "too many": _fatal("53300", "sorry, too many clients already"),
    "wants an unknown login": b"R" + struct.pack("!II", 8, 99),
    "a length of 4 GB": b"R\xff\xff\xff\xff",
}


class Odd:
    """Answers each connection with the same bytes, and hangs up."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                opened, _ = self._listener.accept()
                with opened, contextlib.suppress(OSError):
                    opened.settimeout(5)
                    if opened.recv(4096)[4:8] == b"\x04\xd2\x16\x2f":  # may it be TLS? No
                        opened.sendall(b"N")
                        opened.recv(4096)
                    opened.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("odd", [*ODD, "nobody", "a name that is none"])
def test_an_odd_host_in_a_list_is_walked_past(
    postgres: Postgres, connection: Connection, odd: str, place: int
) -> None:
    """Wherever it stands, the primary is found, and again after it was left."""
    with contextlib.ExitStack() as stack:
        hosts = ["127.0.0.1", "127.0.0.1"]
        ports = [str(postgres.port)] * 2
        port = free_port()
        if odd in ODD:
            server = Odd(ODD[odd])
            stack.callback(server.close)
            port = server.port
        hosts.insert(place, "no-such-host.invalid" if odd.startswith("a name") else "127.0.0.1")
        ports.insert(place, str(port))
        cluster = cluster_at(
            f"host={','.join(hosts)} port={','.join(ports)} user=postgres dbname={connection.info.dbname}"
        )
        for _ in range(4):
            with cluster.connect() as opened:
                assert opened.info.port == postgres.port
                cluster.leave()
                cluster.confirm(opened, Commit(2.0))
            cluster.leave()
