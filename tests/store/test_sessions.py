"""A connection through which nothing comes any more: what its two ends do about each other."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ingest.config.settings import Config
from ingest.engine.run import keep_house
from ingest.errors import Unavailable
from ingest.store.connection import Connection, connect, end_session, name_of
from ingest.store.locks import NODE_LOCK
from lab.proxy import Proxy
from lab.servers import Postgres
from tests.store.test_roles import Roles, roles  # noqa: F401 - a fixture

NODE = 7


def in_a_copy(conninfo: str) -> Connection:
    """A transaction with a lock, the server waiting for rows."""
    opened = connect(conninfo, statement_timeout_s=1, application_name="ingest writer-0")
    opened.autocommit = False
    opened.execute("CREATE TEMPORARY TABLE stage (x text)")
    opened.execute("SELECT pg_advisory_xact_lock(%s, %s)", [NODE_LOCK, NODE])
    assert opened.pgconn.exec_(b"COPY stage FROM STDIN").status == psycopg.pq.ExecStatus.COPY_IN
    return opened


def is_free(connection: Connection) -> bool:
    row: Any = connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [NODE_LOCK, NODE]).fetchone()
    return bool(row[0])


@pytest.mark.parametrize("called", ["", " application_name=x", f" application_name={'ü' * 80}"])
def test_what_a_writer_left_behind_is_ended(roles: Roles, called: str) -> None:  # noqa: F811
    """With the rights of the engine's role and whatever the conninfo calls it; its locks are free, and a second time
    there is nothing to end."""
    left = in_a_copy(roles.engine + called)
    name = name_of(left)
    with connect(roles.engine + called, application_name="ingest writer-0") as successor:
        assert not is_free(successor)
        assert not end_session(successor, name._replace(token=name.token ^ 1))  # somebody else by now
        assert end_session(successor, name)
        successor.execute("SELECT pg_advisory_lock(%s, %s)", [NODE_LOCK, NODE])
        successor.execute("SELECT pg_stat_clear_snapshot()")
        assert not end_session(successor, name)
    left.close()


def test_what_a_role_left_behind_that_becomes_another_at_its_login_is_ended(
    roles: Roles,  # noqa: F811
    connection: Connection,
) -> None:
    """A site may let people log in by roles of their own and work as one that owns the tables."""
    owner = conninfo_to_dict(roles.engine)["user"]
    login = f"login of {owner}"
    for statement in (
        f'CREATE ROLE "{login}" LOGIN',
        f'GRANT "{owner}" TO "{login}"',
        f'ALTER ROLE "{login}" SET role = "{owner}"',
    ):
        connection.execute(statement)  # type: ignore[call-overload]
    try:
        left = in_a_copy(make_conninfo(roles.engine, user=login))
        with connect(
            make_conninfo(roles.engine, user=login), application_name="ingest writer-0"
        ) as successor:
            assert successor.execute("SELECT current_user::text").fetchone() == (owner,)
            assert end_session(successor, name_of(left))
            assert successor.execute("SELECT current_user::text").fetchone() == (owner,)
        left.close()
    finally:
        connection.execute(f'DROP ROLE "{login}"')  # type: ignore[call-overload]


def test_nobody_else_s_session_is_ended(roles: Roles, connection: Connection) -> None:  # noqa: F811
    """PostgreSQL gives a process id away again: another role's session, another program's and one's own live on."""
    left = in_a_copy(roles.engine)
    with (
        connect(roles.reader, application_name="ingest writer-0") as reader,
        connect(roles.engine, application_name="ingest writer-1") as neighbour,
    ):
        for other in (reader, neighbour):
            assert not end_session(other, name_of(left))
            assert not end_session(other, name_of(other))
    assert not is_free(connection)
    left.close()


def test_a_reader_who_takes_the_name_is_not_ended_and_ends_nobody(roles: Roles) -> None:  # noqa: F811
    """pg_stat_activity shows the token to everybody: it counts for sessions of the same role only."""
    left = in_a_copy(roles.engine)
    name = name_of(left)
    with (
        connect(roles.reader) as reader,
        connect(roles.engine, application_name="ingest writer-0") as engine,
    ):
        called = f"ingest writer-0 {name.token:016x}"
        reader.execute("SELECT set_config('application_name', %s, false)", [called])
        assert not end_session(reader, name)
        assert not end_session(engine, name._replace(backend_pid=reader.info.backend_pid))
        assert end_session(engine, name)
        assert reader.execute("SELECT 1").fetchone() == (1,)
    left.close()


def test_the_server_looks_after_a_client_whose_machine_is_gone(postgres: Postgres, database: str) -> None:
    """Its TCP asks as ours does, and not after two hours; over a Unix socket there is nothing to ask."""
    with connect(database) as opened:
        for name, value in (
            ("tcp_keepalives_idle", "15"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "30000"),
        ):  # fmt: skip
            row: Any = opened.execute(f"SHOW {name}").fetchone()  # type: ignore[call-overload]
            assert row[0] == value
    with connect(make_conninfo(database, host=str(postgres.directory))) as opened:
        assert opened.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_keeps_silent_ends_one_round_of_housekeeping_only(
    postgres: Postgres, database: str
) -> None:
    """The round is given up, and the next one, over another connection, is a whole one."""
    proxy = Proxy("127.0.0.1", postgres.port)
    config = Config(
        database=make_conninfo(database, port=proxy.port), gc_interval_s=0.1, statement_timeout_s=0.2,
        lock_timeout_s=0.1, quarantine_ttl_s=0,
    )  # fmt: skip
    stop, done = threading.Event(), threading.Event()
    supervisor: Any = SimpleNamespace(config=config, count=lambda *_: done.set())
    proxy.freeze_after(b"BEGIN")
    keeper = threading.Thread(target=keep_house, args=(stop, supervisor), daemon=True)
    keeper.start()
    try:
        assert done.wait(20)
        assert not proxy.waits_to_freeze
        assert proxy.connections >= 2
    finally:
        stop.set()
        keeper.join(20)
        proxy.close()
    assert not keeper.is_alive()


def test_a_server_that_falls_silent_after_the_login_is_left_in_time(
    postgres: Postgres, database: str
) -> None:
    """libpq's connect_timeout ends with the login, and a session is asked and set up after it."""
    proxy = Proxy("127.0.0.1", postgres.port)
    proxy.freeze_after(b"current_schemas")
    started_s = time.monotonic()
    try:
        with pytest.raises(Unavailable):
            connect(make_conninfo(database, port=proxy.port), connect_timeout_s=2)
        assert not proxy.waits_to_freeze
        assert time.monotonic() - started_s < 10
    finally:
        proxy.close()
