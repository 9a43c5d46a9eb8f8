"""PgBouncer between engine and PostgreSQL: in session mode all works, the other modes are refused at the start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Misconfigured, Unavailable
from ingest.store.connection import Connection, connect, end_session, name_of, require_own_session
from ingest.store.housekeeping import collect_garbage
from ingest.store.query.running import open_reader
from ingest.store.session_settings import RELIED_ON
from lab.engine import Engine, publish
from lab.front import Front
from lab.servers import PgBouncer, Postgres, embedded_broker
from lab.store_model import Pipeline, expected, resource, stored, wire_body
from tests.store.test_query import fleet, values

Pool = Callable[..., PgBouncer]
IGNORED = "extra_float_digits,options"
DATABASE = "pooled"


@pytest.fixture
def pool(postgres: Postgres) -> Iterator[Pool]:
    """Starts a PgBouncer in front of a migrated database named ``pooled``."""
    made: list[PgBouncer] = []
    postgres.execute("postgres", f"CREATE DATABASE {DATABASE} TEMPLATE template_ingest")

    def begin(*, behind: PgBouncer | None = None, port: int = 0, **settings: object) -> PgBouncer:
        directory = Path(tempfile.mkdtemp(prefix="ingest-pgbouncer-"))
        directory.chmod(0o755)
        made.append(PgBouncer(directory, behind or postgres, port=port, **settings))
        return made[-1]

    yield begin
    for pooler in reversed(made):
        pooler.stop()
    postgres.execute("postgres", f"DROP DATABASE {DATABASE} WITH (FORCE)")


def opened(pooler: PgBouncer, **given: Any) -> Connection:
    connection = connect(pooler.conninfo(DATABASE), **given)
    try:
        require_own_session(connection, pooler.conninfo(DATABASE))
    except BaseException:
        connection.close()
        raise
    return connection


SESSION = [
    {},
    {"ignore_startup_parameters": IGNORED},
    {"server_reset_query": ""},
    {"default_pool_size": 3},
    {"server_round_robin": 1},
    {"server_idle_timeout": 1, "server_lifetime": 1},
    {"server_check_query": "select 1", "server_check_delay": 0},
    {"max_packet_size": 65536, "pkt_buf": 512},
    {"server_reset_query": "DEALLOCATE ALL; RESET datestyle", "application_name_add_host": 1},
    {"server_reset_query": "DISCARD PLANS", "server_fast_close": 1, "tcp_keepalive": 0},
]


@pytest.mark.parametrize("settings", SESSION, ids=str)
def test_session_mode_works(pool: Pool, settings: dict[str, object]) -> None:
    """Connections one after the other and side by side, on backends that others have used: stored is what was sent."""
    pooler = pool(pool_mode="session", **settings)
    for minute in range(1, 6):
        with opened(pooler) as one, opened(pooler) as other:
            assert one.pinned.is_pooled
            values = one.execute(
                "SELECT ARRAY(SELECT current_setting(n) FROM unnest(%s::text[]) n)", [list(RELIED_ON)]
            ).fetchone()
            assert values == (list(RELIED_ON.values()),)
            for name, connection in (("a", one), ("b", other)):
                body = wire_body(
                    name, minute, [resource(f"/{minute}", parameters={"content": "grüß" * 9000})]
                )
                assert Pipeline(connection).take(body) == [Outcome.STORED]
                assert stored(connection, name) == expected(body)
    with opened(pooler) as last:
        assert collect_garbage(last).deleted["resources"] == 4


def test_what_another_client_left_in_a_session_is_not_met(pool: Pool) -> None:
    """Where the pooler cleans nothing up: settings, temporary tables, prepared statements, locks and a role."""
    pooler = pool(pool_mode="session", server_reset_query="", default_pool_size=1)
    with psycopg.connect(pooler.conninfo(DATABASE), autocommit=True) as vandal:
        for statement in (
            "SET search_path = nowhere", "SET datestyle = German", "SET session_replication_role = replica",
            "CREATE TEMPORARY TABLE stage_tags (nothing integer)",
            "CREATE TEMPORARY TABLE nodes (certname text)", "PREPARE _pg3_0 AS SELECT 1", "PREPARE _pg3_1 AS SELECT 1",
            "SELECT pg_advisory_lock(464379)", "LISTEN x", "SET default_transaction_read_only = on",
            "SET ROLE pg_monitor",
        ):  # fmt: skip
            vandal.execute(statement)  # type: ignore[call-overload]
    with opened(pooler) as connection:
        pipeline = Pipeline(connection)
        for minute in range(1, 5):
            assert pipeline.take(wire_body("a", minute, [resource(f"/{minute}")])) == [Outcome.STORED]


REFUSED = [
    {"pool_mode": mode, **settings}
    for mode in ("transaction", "statement")
    for settings in (
        {},
        {"ignore_startup_parameters": IGNORED},
        {"server_round_robin": 1},
        {"default_pool_size": 1},
        {"default_pool_size": 2, "min_pool_size": 2},
        {"min_pool_size": 10},
        {"server_idle_timeout": 1},
        {"server_reset_query_always": 1},
    )
]


@pytest.mark.parametrize(
    ("outer", "inner", "works"),
    [
        ("session", "session", True),
        ("session", "transaction", False),
        ("session", "statement", False),
        ("transaction", "session", False),
        ("transaction", "transaction", False),
    ],
)
def test_a_pooler_behind_a_pooler_is_looked_through(pool: Pool, outer: str, inner: str, works: bool) -> None:
    """The worse of the two decides."""
    far = pool(pool_mode=inner)
    near = pool(pool_mode=outer, behind=far)
    if works:
        opened(near).close()
    else:
        with pytest.raises(Misconfigured, match="pool_mode = session"):
            opened(near).close()


@pytest.mark.parametrize(("mode", "works"), [("transaction", False), ("statement", False), ("session", True)])
def test_poolers_that_share_a_port_are_looked_through(pool: Pool, mode: str, works: bool) -> None:
    """so_reuseport: chance says to which of them a connection goes, and each has server connections of its own."""
    first = pool(pool_mode=mode, so_reuseport=1)
    pool(pool_mode=mode, so_reuseport=1, port=first.port)
    for _ in range(6):
        if works:
            opened(first).close()
        else:
            with pytest.raises(Misconfigured, match="pool_mode = session"):
                opened(first).close()


@pytest.mark.parametrize("settings", REFUSED, ids=str)
def test_other_modes_are_refused_on_a_quiet_pool(pool: Pool, settings: dict[str, object]) -> None:
    """Also where one client after the other gets the same server connection."""
    pooler = pool(**settings)
    for _ in range(3):
        with pytest.raises(Misconfigured, match="pool_mode = session"):
            opened(pooler).close()
    # as after work of others that left several server connections behind
    others = [psycopg.connect(pooler.conninfo(DATABASE), autocommit=True) for _ in range(4)]
    for other in others:
        other.execute("SELECT 1")
    with pytest.raises(Misconfigured, match="pool_mode = session"):
        opened(pooler).close()
    for other in others:
        other.close()


@pytest.mark.parametrize("round_robin", [0, 1])
def test_transaction_mode_is_refused_on_a_busy_pool(pool: Pool, round_robin: int) -> None:
    """While ten clients take server connections and give them back."""
    pooler = pool(pool_mode="transaction", server_round_robin=round_robin)
    stop = threading.Event()

    def work() -> None:
        with psycopg.connect(pooler.conninfo(DATABASE), autocommit=True, prepare_threshold=None) as client:
            while not stop.is_set():
                client.execute("SELECT pg_sleep(0.002)")

    clients = [threading.Thread(target=work, daemon=True) for _ in range(10)]
    for client in clients:
        client.start()
    try:
        time.sleep(0.2)
        for _ in range(10):
            with pytest.raises(Misconfigured, match="pool_mode = session"):
                opened(pooler).close()
    finally:
        stop.set()
        for client in clients:
            client.join(10)


def test_a_pool_with_one_connection_in_session_mode_is_no_transaction_mode(pool: Pool) -> None:
    """There is none to compare with, and it is ours alone; a second client of ours waits, and says so."""
    pooler = pool(pool_mode="session", default_pool_size=1)
    with opened(pooler):
        started_s = time.monotonic()
        with pytest.raises(Unavailable):
            connect(pooler.conninfo(DATABASE), connect_timeout_s=2)
        assert time.monotonic() - started_s < 10
    with opened(pooler) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("settings", "users"),
    [({"max_client_conn": 2}, 2), ({"default_pool_size": 1, "query_wait_timeout": 1}, 1)],
    ids=["max_client_conn", "query_wait_timeout"],
)
def test_a_pooler_that_is_full_is_waited_for(pool: Pool, settings: dict[str, object], users: int) -> None:
    """That passes by itself: it is no mistake of the settings; who was there first goes on."""
    pooler = pool(pool_mode="session", **settings)
    there = [connect(pooler.conninfo(DATABASE)) for _ in range(users)]
    for _ in range(2):
        with pytest.raises(Unavailable):
            connect(pooler.conninfo(DATABASE), connect_timeout_s=5)
    for each in there:
        assert each.execute("SELECT 1").fetchone() == (1,)
        each.close()
    connect(pooler.conninfo(DATABASE)).close()


@pytest.mark.parametrize("command", [["migrate"], ["show", "x"], ["gc"], ["quarantine", "list"],
                                     ["run", "--queue-source", "stomp://127.0.0.1:9"]], ids=str)  # fmt: skip
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_every_command_refuses_other_modes_in_one_line(pool: Pool, mode: str, command: list[str]) -> None:
    """With exit code 2, naming the setting of the pooler."""
    pooler = pool(pool_mode=mode, ignore_startup_parameters=IGNORED)
    done = subprocess.run(
        [sys.executable, "-m", "ingest", *command, "--database", pooler.conninfo(DATABASE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if "pool_mode" in line]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr


def test_an_engine_behind_session_mode_is_as_any_other(
    pool: Pool, postgres: Postgres, tmp_path: Path
) -> None:
    """Its writers' backends killed again and again; nothing is lost, no child dies."""
    pooler = pool(pool_mode="session", ignore_startup_parameters=IGNORED)
    with embedded_broker() as broker:
        engine = Engine(
            broker,
            pooler.conninfo(DATABASE),
            "--workers",
            "1",
            "--gc-interval-s",
            "0.3",
            log=tmp_path / "log",
        )
        try:
            engine.wait_ready()
            for minute in range(1, 9):
                bodies = [wire_body(f"n{n}", minute, [resource(f"/{minute}/{n}")]) for n in range(20)]
                publish(broker, *bodies)
                postgres.execute(
                    "postgres",
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ingest writer%'",
                )
            engine.wait_settled(160)
            assert not [line for line in engine.lines() if line["event"] == "child_died"]
            assert engine.stop() == 0
        finally:
            engine.kill()
    with connect(postgres.conninfo(DATABASE)) as direct:
        for body in bodies:
            assert stored(direct, expected(body)["certname"]) == expected(body)


def test_queries_are_prepared_behind_session_mode(pool: Pool, tmp_path: Path) -> None:
    """As without a pooler: asked for again and again, side by side, cancelled when a client leaves; with many more clients than
    server connections."""
    pooler = pool(pool_mode="session", default_pool_size=4)
    with embedded_broker() as broker, connect(pooler.conninfo(DATABASE)) as connection:
        fleet(connection)
        log = tmp_path / "log"
        front = Front(pooler.conninfo(DATABASE), broker, "--http-queries-max", "2", log=log)
        try:
            front.wait_ready()
            paths = ("nodes", "facts", "resources", "nodes/n0/facts", "reports")
            with ThreadPoolExecutor(8) as clients:
                asked = [f"/pdb/query/v4/{path}" for path in paths] * 20
                assert {answer.status for answer in clients.map(front.get, asked)} == {200}
            assert front.get("/pdb/query/v4/nodes", {"timeout": "5"}).status == 200
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ingest serve%'"
            ).fetchone()
            assert row is not None
            assert 1 <= int(str(row[0])) <= 2
        finally:
            front.stop()
    with closing(open_reader(pooler.conninfo(DATABASE), connect_timeout_s=5, timeout_s=30)) as reader:
        for _ in range(3):
            assert values(reader, "nodes[certname]{}") == {"n0", "n1", "n2"}
        prepared = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'ingest%'"
        assert reader.execute(prepared, prepare=False).fetchone() == (1,)


@pytest.mark.parametrize(
    ("setting", "named"), [("--database", "--database:"), ("--http-database", "--http-database:")]
)
def test_the_front_refuses_other_modes(pool: Pool, postgres: Postgres, setting: str, named: str) -> None:
    """Its statements would be prepared in another session, and its settings another's."""
    pooler = pool(pool_mode="transaction")
    flags = {"--database": postgres.conninfo(DATABASE)} | {setting: pooler.conninfo(DATABASE)}
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "serve", "--queue-source", "stomp://127.0.0.1:9", "--listen", "127.0.0.1:0",
         *(word for flag in flags.items() for word in flag)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "pool_mode" in line]
    assert named in line
    assert "Traceback" not in done.stderr


def test_a_statement_is_cancelled_through_the_pooler(pool: Pool) -> None:
    """The cancel request reaches the backend that works for us."""
    with opened(pool(pool_mode="session")) as connection:
        threading.Timer(0.3, connection.cancel_safe).start()
        started_s = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(30)")
        assert time.monotonic() - started_s < 10


@pytest.mark.parametrize("reset", ["DISCARD ALL", ""])
def test_a_session_that_the_pooler_gave_to_somebody_else_is_not_ended(
    pool: Pool, connection: Connection, reset: str
) -> None:
    """Same backend, same role, same kind of writer, even where nothing is cleaned up: only the token tells."""
    pooler = pool(pool_mode="session", server_reset_query=reset, default_pool_size=2)
    with opened(pooler, application_name="ingest writer-0") as successor:
        with connect(pooler.conninfo(DATABASE), application_name="ingest writer-0") as gone:
            left = name_of(gone)
        with connect(pooler.conninfo(DATABASE), application_name="ingest writer-0") as other:
            assert name_of(other).backend_pid == left.backend_pid
            assert not end_session(successor, left)
            assert other.execute("SELECT 1").fetchone() == (1,)
            assert end_session(successor, name_of(other))


def test_a_session_left_behind_in_a_copy_is_ended_through_the_pooler(pool: Pool) -> None:
    """The pooler's own end of it stays open as long as ours does."""
    pooler = pool(pool_mode="session")
    left = connect(pooler.conninfo(DATABASE), application_name="ingest writer-0")
    left.autocommit = False
    left.execute("SELECT pg_advisory_xact_lock(1)")
    left.execute("CREATE TEMPORARY TABLE stage (x text)")
    assert left.pgconn.exec_(b"COPY stage FROM STDIN").status == psycopg.pq.ExecStatus.COPY_IN
    with opened(pooler, application_name="ingest writer-0") as successor:
        assert end_session(successor, name_of(left))
        successor.execute("SELECT pg_advisory_xact_lock(1)")
    left.close()
