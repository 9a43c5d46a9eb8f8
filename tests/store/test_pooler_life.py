"""PgBouncer lives its own life under a working engine: paused, suspended, reloaded, restarted, killed. Nothing is lost by it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ingest.store.connection import connect
from lab.engine import Engine, publish, wait_for
from lab.servers import PgBouncer, Postgres, embedded_broker
from lab.store_model import expected, resource, stored, wire_body
from tests.store.test_poolers import DATABASE, Pool, pool

__all__ = ["pool"]

SIDE_S = 0.5  # how long it is not as it should be
NODES = 12


class Life:
    """A pooler that may be another process later, behind the same port."""

    def __init__(self, pool: Pool, **settings: object) -> None:
        self._pool, self._settings = pool, settings
        self.pooler: PgBouncer = pool(pool_mode="session", admin_users="postgres", **settings)

    def say(self, *commands: str) -> None:
        """To its console."""
        with self.console() as console:
            for command in commands:
                console.execute(command)  # type: ignore[call-overload]

    def console(self) -> psycopg.Connection:
        where = f"host=127.0.0.1 port={self.pooler.port} user=postgres dbname=pgbouncer"
        return psycopg.connect(where, autocommit=True, connect_timeout=5)

    def again(self, number: signal.Signals) -> None:
        self.pooler.process.send_signal(number)
        self.pooler.process.wait(20)
        time.sleep(SIDE_S)
        self.pooler = self._pool(
            pool_mode="session", admin_users="postgres", port=self.pooler.port, **self._settings
        )


def paused(life: Life) -> None:
    """In session mode that waits for the engine to leave, and lets no one in meanwhile."""
    waiting = threading.Thread(target=lambda: life.say("PAUSE"), daemon=True)
    waiting.start()
    time.sleep(SIDE_S)
    life.say("RESUME")
    waiting.join(10)


def suspended(life: Life) -> None:
    """Until the console that said so hangs up."""
    with life.console() as console:
        console.execute("SUSPEND")
        time.sleep(SIDE_S)


def killed_pool(life: Life) -> None:
    life.say(f"KILL {DATABASE}")
    time.sleep(SIDE_S)
    life.say(f"RESUME {DATABASE}")


def disabled(life: Life) -> None:
    life.say(f"DISABLE {DATABASE}", f"KILL {DATABASE}")
    time.sleep(SIDE_S)
    life.say(f"ENABLE {DATABASE}", f"RESUME {DATABASE}")


def stopped(life: Life) -> None:
    os.kill(life.pooler.process.pid, signal.SIGSTOP)
    time.sleep(SIDE_S)
    os.kill(life.pooler.process.pid, signal.SIGCONT)


LIVES: dict[str, Callable[[Life], None]] = {
    "paused and resumed": paused,
    "suspended and resumed": suspended,
    "reloaded": lambda life: life.say("RELOAD"),
    "reloaded by a signal": lambda life: life.pooler.process.send_signal(signal.SIGHUP),
    "reconnected": lambda life: life.say("RECONNECT"),
    "its pool killed": killed_pool,
    "its database disabled": disabled,
    "restarted": lambda life: life.again(signal.SIGTERM),
    "restarted softly": lambda life: life.again(signal.SIGQUIT),
    "killed": lambda life: life.again(signal.SIGKILL),
    "frozen for a while": stopped,
}


@pytest.fixture
def engine_at(tmp_path: Path) -> Iterator[Callable[[str], tuple[Engine, str]]]:
    """Starts an engine with a broker of its own; gives it and the broker's URL."""
    with embedded_broker() as broker:
        started: list[Engine] = []

        def start(conninfo: str) -> tuple[Engine, str]:
            engine = Engine(
                broker, conninfo, "--workers", "1", "--backoff-max-s", "0.3", "--gc-interval-s", "0.5",
                "--connect-timeout-s", "5", log=tmp_path / "log",
            )  # fmt: skip
            started.append(engine)
            engine.wait_ready()
            return engine, broker

        yield start
        for engine in started:
            engine.kill()


def bodies(minute: int) -> list[bytes]:
    return [wire_body(f"n{n}", minute, [resource(f"/{minute}/{n}")]) for n in range(NODES)]


def test_whatever_happens_to_the_pooler_nothing_is_lost(
    pool: Pool, postgres: Postgres, engine_at: Callable[[str], tuple[Engine, str]]
) -> None:
    """One life after the other, with catalogs before, meanwhile and after; no child dies of it."""
    life = Life(pool)
    engine, broker = engine_at(life.pooler.conninfo(DATABASE))
    minute = 0
    for name, live in LIVES.items():
        minute += 1
        publish(broker, *bodies(minute))
        side = threading.Thread(target=live, args=(life,), daemon=True)
        side.start()
        for _ in range(3):
            minute += 1
            publish(broker, *bodies(minute))
            time.sleep(SIDE_S / 3)
        side.join(40)
        assert not side.is_alive(), name
        wait_for(lambda all_=minute * NODES: sum(engine.settled().values()) >= all_, engine, name)
    assert not {"child_died", "child_stuck"} & {str(line.get("event")) for line in engine.lines()}
    assert engine.settled()["quarantined"] == 0
    assert engine.stop() == 0
    with connect(postgres.conninfo(DATABASE)) as direct:
        for body in bodies(minute):
            assert stored(direct, expected(body)["certname"]) == expected(body)


@pytest.mark.parametrize("kept_as", ["plain", "secret"])
def test_a_password_goes_by_scram_through_the_pooler(
    pool: Pool, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, kept_as: str, tmp_path: Path
) -> None:
    """It asks for SCRAM and hands on; a wrong password is one line, with exit code, and waits for nobody."""
    role, password = "by_scram", "pa ss'wörd"
    quoted = password.replace("'", "''")
    postgres.execute("postgres", f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{quoted}'")
    try:
        with psycopg.connect(postgres.conninfo("postgres")) as asking:
            row = asking.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [role]).fetchone()
        assert row is not None
        assert row[0].startswith("SCRAM-SHA-256$")
        users = postgres.directory / f"scram-{kept_as}.txt"
        users.write_text(f'"{role}" "{password if kept_as == "plain" else row[0]}"\n')
        users.chmod(0o644)
        pooler = pool(pool_mode="session", auth_type="scram-sha-256", auth_file=users)
        (tmp_path / "pgpass").write_text(f"*:*:*:{role}:{password}\n")
        (tmp_path / "pgpass").chmod(0o600)
        conninfo = pooler.conninfo(DATABASE, role)
        with connect(f"{conninfo} passfile={tmp_path / 'pgpass'}") as connection:
            assert connection.execute("SELECT current_user").fetchone() == (role,)
        done = subprocess.run(
            [sys.executable, "-m", "ingest", "nodes", "--database", f"{conninfo} passfile=/dev/null"],
            capture_output=True, text=True, check=False, env=os.environ | {"PGPASSWORD": "wrong"},
        )  # fmt: skip
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1
        assert "authentication failed" in done.stderr
    finally:
        postgres.execute("postgres", f"DROP ROLE {role}")
