"""Two PostgreSQL in synchronous replication: an acknowledgement means that a failover takes nothing back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingest.core.delivery.work import Outcome
from ingest.errors import Unsure
from ingest.store.connection import Connection, connect
from ingest.store.failover import Cluster
from ingest.store.hosts import DOUBT_S
from ingest.store.lane import Commit
from ingest.store.migrate import migrate
from lab.engine import Engine, publish, wait_for
from lab.patroni import MEMBER, Patroni
from lab.proxy import Proxy
from lab.servers import Postgres
from lab.store_model import Pipeline, resource, wire_body
from tests.faults.test_drain import DRAINED, receiver, said
from tests.faults.world import Standby

DATABASE = "ingest"
COMMIT_RECORD_BYTES = 40  # measured on PostgreSQL 15: all that a transaction leaves that only locked rows
RECORD_BYTES = 64  # the message beside it
SECONDS_MAX = 12.0  # until another host has taken over; on a machine that is busy with other tests


class Pair:
    """A primary and its synchronous standby."""

    def __init__(self, directory: Path) -> None:
        for name in ("first", "second"):
            (directory / name).mkdir(mode=0o755)
        self.primary = Postgres(directory / "first")
        self.primary.start(wal_level="replica", max_wal_senders="10", wal_keep_size="64MB")
        self.primary.execute("postgres", f"CREATE DATABASE {DATABASE}")
        opened = connect(self.primary.conninfo(DATABASE))
        migrate(opened)
        opened.close()
        self.standby = Standby(directory / "second", self.primary)
        self._frozen: list[int] = []
        deadline = time.monotonic() + 30
        while (
            self.ask(self.primary, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != 1
        ):
            assert time.monotonic() < deadline, "no synchronous standby"
            time.sleep(0.05)

    def conninfo(self, *servers: Postgres, more: str = "") -> str:
        hosts, ports = ",".join("127.0.0.1" for _ in servers), ",".join(str(s.port) for s in servers)
        return f"host={hosts} port={ports} user=postgres dbname={DATABASE}{more}"

    def ask(self, server: Postgres, question: str) -> Any:
        with psycopg.connect(server.conninfo(DATABASE), connect_timeout=5, autocommit=True) as connection:
            row: Any = connection.execute(question).fetchone()
            return row[0]

    def freeze(self) -> None:
        """Every process of the primary, as a machine that stops."""
        assert self.primary.process is not None
        pid = self.primary.process.pid
        os.kill(pid, signal.SIGSTOP)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._frozen = [pid, *map(int, children)]
        for child in self._frozen:
            os.kill(child, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._frozen:
            os.kill(pid, signal.SIGCONT)
        self._frozen = []

    def close(self) -> None:
        self.thaw()
        self.standby.stop(immediate=True)
        self.primary.stop(immediate=True)


@pytest.fixture
def pair() -> Iterator[Pair]:
    # Not below pytest's own directory: nobody but its owner gets into that, and postgres is another user.
    directory = Path(tempfile.mkdtemp(prefix="ingest-pair-"))
    directory.chmod(0o755)
    made = Pair(directory)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)


@pytest.fixture
def run(broker: str, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Starts an engine against a conninfo."""
    started: list[Engine] = []

    def start(conninfo: str, *flags: str) -> Engine:
        engine = Engine(
            broker,
            conninfo,
            "--backoff-max-s",
            "0.5",
            "--commit-timeout-s",
            "2",
            *flags,
            log=tmp_path / "log",
        )
        started.append(engine)
        engine.wait_ready()
        return engine

    yield start
    for engine in started:
        engine.kill()


def bodies(first: int, count: int) -> list[bytes]:
    return [
        wire_body(f"n{n}.example.com", 1, [resource(f"/{n}-{m}") for m in range(5)])
        for n in range(first, first + count)
    ]


def settled(engine: Engine) -> float:
    return sum(engine.settled().values())


def unsure(engine: Engine) -> list[dict[str, Any]]:
    return [line for line in said(engine, "database_unavailable") if "COMMIT" in line["reason"]]


# With an engine


def test_a_commit_without_its_standby_is_given_up_and_nothing_is_acknowledged(
    pair: Pair, run: Callable[..., Engine], broker: str, record_property: Callable[[str, object], None]
) -> None:
    """The standby stops: each COMMIT is hung up on in seconds, again and again; when it is back, all is settled."""
    engine = run(pair.conninfo(pair.primary, pair.standby))
    publish(broker, *bodies(0, 20))
    engine.wait_settled(20)
    pair.standby.stop()
    publish(broker, *bodies(20, 50))
    wait_for(lambda: len(unsure(engine)) >= 3, engine, "given up three times")
    assert settled(engine) == 20
    assert receiver(engine)["ingest_acknowledged_total"] == 20
    pair.standby.start(hot_standby="on")
    back_s = time.monotonic()
    wait_for(lambda: settled(engine) >= 70, engine, "settled", SECONDS_MAX)
    record_property("settled_after_s", round(time.monotonic() - back_s, 1))
    assert engine.stop() == DRAINED
    assert pair.ask(pair.standby, "SELECT count(*) FROM catalogs") == 70


@pytest.mark.parametrize("lives", [True, False], ids=["an orphan that lives", "one that stays frozen"])
@pytest.mark.parametrize("orphan_first", [True, False])
def test_the_promoted_standby_is_found_and_has_all_that_was_acknowledged(
    pair: Pair, run: Callable[..., Engine], broker: str, lives: bool, orphan_first: bool,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """The primary stands still in the middle of the work, its standby is promoted, and the list of hosts names no
    target_session_attrs: within seconds work goes on at the promoted one, whether the orphan comes back to life or not."""
    order = (pair.primary, pair.standby) if orphan_first else (pair.standby, pair.primary)
    engine = run(pair.conninfo(*order))
    publish(broker, *bodies(0, 100))
    engine.wait_settled(20)
    pair.freeze()
    before = receiver(engine)["ingest_acknowledged_total"]
    pair.standby.promote()
    promoted_s = time.monotonic()
    if lives:
        pair.thaw()
    publish(broker, *bodies(100, 100))
    wait_for(lambda: settled(engine) >= 200, engine, "settled", 60)
    took_s = time.monotonic() - promoted_s
    record_property("settled_after_s", round(took_s, 1))
    print(f"settled {took_s:.1f} s after the promotion, {before} acknowledged before")
    assert took_s < SECONDS_MAX
    assert engine.stop() == DRAINED
    assert pair.ask(pair.standby, "SELECT count(*) FROM catalogs") == 200


@pytest.mark.parametrize("replicated", [True, False], ids=["the standby has it", "the standby has not"])
def test_a_failover_in_the_moment_of_commit_loses_nothing(
    pair: Pair, run: Callable[..., Engine], broker: str, replicated: bool
) -> None:
    """The primary hears a COMMIT, nobody hears its answer, and it is gone for good; what it wrote last has reached the standby
    that is promoted, or not. All is stored there, and nothing was acknowledged that is not."""
    proxy = Proxy("127.0.0.1", pair.primary.port)
    ports = f"{proxy.port},{pair.standby.port}"
    engine = run(f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname={DATABASE}")
    try:
        publish(broker, *bodies(0, 40))
        engine.wait_settled(40)
        receiving = pair.ask(pair.standby, "SELECT pid FROM pg_stat_wal_receiver")
        if not replicated:
            os.kill(receiving, signal.SIGSTOP)
        proxy.freeze_after(b"COMMIT")
        publish(broker, *bodies(40, 60))
        wait_for(lambda: not proxy.waits_to_freeze, engine, "in COMMIT")
        before = receiver(engine)["ingest_acknowledged_total"]
        pair.primary.stop(immediate=True)
        if not replicated:
            assert before == 40
            os.kill(receiving, signal.SIGCONT)
        pair.standby.promote()
        wait_for(lambda: settled(engine) >= 100, engine, "settled", 60)
        assert engine.stop() == DRAINED
        assert pair.ask(pair.standby, "SELECT count(*) FROM catalogs") == 100
        assert not [line for line in engine.lines() if line.get("event") == "child_died"]
    finally:
        proxy.close()


def test_an_orphan_that_is_told_to_wait_for_nobody_gets_no_acknowledgement(
    pair: Pair, run: Callable[..., Engine], broker: str
) -> None:
    """As when Patroni comes back to an orphan: it empties synchronous_standby_names and demotes a moment later. What hung
    commits report then as success is not believed."""
    engine = run(pair.conninfo(pair.primary, pair.standby), "--commit-timeout-s", "30")
    publish(broker, *bodies(0, 20))
    engine.wait_settled(20)
    pair.standby.promote()
    publish(broker, *bodies(20, 30))
    time.sleep(1)  # they hang in COMMIT
    assert settled(engine) == 20
    pair.primary.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
    pair.primary.execute("postgres", "SELECT pg_reload_conf()")
    wait_for(lambda: settled(engine) >= 50, engine, "settled", SECONDS_MAX)
    assert engine.stop() == DRAINED
    assert pair.ask(pair.standby, "SELECT count(*) FROM catalogs") == 50


def test_a_primary_that_lost_its_standby_for_good_goes_on_after_a_while(
    pair: Pair, run: Callable[..., Engine], broker: str
) -> None:
    """The standby is gone, the cluster's manager takes it out of synchronous_standby_names: after the time in which that
    could be an orphan's end, work goes on."""
    engine = run(pair.conninfo(pair.standby, pair.primary))
    publish(broker, *bodies(0, 20))
    engine.wait_settled(20)
    pair.standby.stop()
    publish(broker, *bodies(20, 30))
    wait_for(lambda: unsure(engine), engine, "given up")
    pair.primary.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
    pair.primary.execute("postgres", "SELECT pg_reload_conf()")
    told_s = time.monotonic()
    wait_for(lambda: settled(engine) >= 50, engine, "settled", DOUBT_S + 30)
    assert time.monotonic() - told_s > DOUBT_S - 1
    assert engine.stop() == DRAINED


@pytest.mark.parametrize("form", ["conninfo", "uri"])
def test_a_list_whose_first_host_is_a_replica_is_walked_on(
    pair: Pair, run: Callable[..., Engine], broker: str, form: str
) -> None:
    """Nobody wrote target_session_attrs."""
    conninfo = pair.conninfo(pair.standby, pair.primary)
    if form == "uri":
        conninfo = (
            f"postgresql://postgres@127.0.0.1:{pair.standby.port},127.0.0.1:{pair.primary.port}/{DATABASE}"
        )
    engine = run(conninfo)
    publish(broker, *bodies(0, 20))
    engine.wait_settled(20)
    assert engine.stop() == DRAINED
    assert pair.ask(pair.primary, "SELECT count(*) FROM catalogs") == 20


def test_a_first_host_that_becomes_a_replica_is_left(
    pair: Pair, run: Callable[..., Engine], broker: str
) -> None:
    """A switchover: the old primary comes back as a replica, and stands first in the list."""
    engine = run(pair.conninfo(pair.primary, pair.standby))
    publish(broker, *bodies(0, 20))
    engine.wait_settled(20)
    pair.primary.stop()
    pair.standby.promote()
    old = Standby(pair.primary.directory, pair.standby, port=pair.primary.port)
    pair.primary, pair.standby = pair.standby, old
    switched_s = time.monotonic()
    publish(broker, *bodies(20, 20))
    wait_for(lambda: settled(engine) >= 40, engine, "settled", SECONDS_MAX)
    print(f"settled {time.monotonic() - switched_s:.1f} s after the switchover")
    assert engine.stop() == DRAINED
    assert pair.ask(pair.primary, "SELECT count(*) FROM catalogs") == 40


# A lane and a cluster alone


@pytest.fixture
def pipeline() -> Iterator[Callable[..., tuple[Pipeline, Connection]]]:
    opened = []

    def open_one(conninfo: str, timeout_s: float = 1.0) -> tuple[Pipeline, Connection]:
        connection = connect(conninfo)
        opened.append(connection)
        made = Pipeline(connection)
        made.lane._commit_timeout_s = timeout_s
        return made, connection

    yield open_one
    for connection in opened:
        connection.close()


def end_waiting(pair: Pair, function: str = "pg_terminate_backend") -> bool:
    """As the writer's next connection does to the session that it left, or somebody who cannot wait."""
    waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with psycopg.connect(pair.primary.conninfo(DATABASE), autocommit=True) as connection:
        row: Any = connection.execute(f"SELECT count({function}(pid)) {waits}").fetchone()
        return bool(row[0])


def test_what_finds_its_own_run_stored_waits_for_the_standby_all_the_same(
    pair: Pair, pipeline: Callable[..., Any]
) -> None:
    """A COMMIT whose standby never answered is visible once its session has ended. The batch that is tried again finds
    nothing to write, and nor does the same message at another engine; neither may be settled by that."""
    body = wire_body("n.example.com", 1, [resource("/a")])
    first, _ = pipeline(pair.conninfo(pair.primary))
    pair.standby.stop()
    with pytest.raises(Unsure, match="did not come back"):
        first.take(body)
    assert end_waiting(pair)
    for _ in range(2):
        again, opened = pipeline(pair.conninfo(pair.primary))
        row: Any = opened.execute("SELECT count(*) FROM catalogs").fetchone()
        assert row == (1,), "it is there to be found"
        with pytest.raises(Unsure, match="did not come back"):
            again.take(body)
        assert end_waiting(pair)
    pair.standby.start(hot_standby="on")
    again, opened = pipeline(pair.conninfo(pair.primary), 30.0)
    assert again.take(body) == [Outcome.UNCHANGED]
    opened.close()
    assert pair.ask(pair.standby, "SELECT count(*) FROM catalogs") == 1


def test_a_message_that_writes_nothing_costs_a_record_only_where_a_standby_is_asked_for(
    database: str, pair: Pair, pipeline: Callable[..., Any]
) -> None:
    """Exact duplicates alone; the hot path, which writes its header, pays nothing. What locks rows commits, and a COMMIT by
    itself is a record that nobody waits for."""
    body = wire_body("n.example.com", 1, [resource("/a")])
    grown: dict[str, int] = {}
    for conninfo in (database, pair.conninfo(pair.primary)):
        one, opened = pipeline(conninfo, 30.0)
        one.take(body)
        sizes = []
        for _ in range(20):  # a server writes a little by itself at times
            before: Any = opened.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            assert one.take(body) == [Outcome.UNCHANGED]
            row: Any = opened.execute("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", before).fetchone()
            sizes.append(int(row[0]))
        grown[conninfo] = min(sizes)
    without, guarded = grown.values()
    assert without <= COMMIT_RECORD_BYTES
    assert guarded >= without + RECORD_BYTES


@pytest.mark.parametrize("function", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_wait_that_somebody_ends_is_no_success(
    pair: Pair, pipeline: Callable[..., Any], function: str
) -> None:
    """PostgreSQL then says WARNING, and COMMIT."""
    one, _ = pipeline(pair.conninfo(pair.primary), 20.0)
    pair.standby.stop()

    def end() -> None:
        while not end_waiting(pair, function):
            time.sleep(0.05)

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(Unsure, match="COMMIT did not"):
        one.take(wire_body("n.example.com", 1, [resource("/a")]))
    ending.join()


def test_opening_a_lane_waits_for_no_standby(pair: Pair, pipeline: Callable[..., Any]) -> None:
    """Staging tables are this session's own."""
    pair.standby.stop()
    started_s = time.monotonic()
    _, opened = pipeline(pair.conninfo(pair.primary))
    assert time.monotonic() - started_s < 5
    opened.close()


def test_a_primary_that_keeps_its_lock_goes_on_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standby is gone and was taken out of synchronous_standby_names. Patroni beside it says that it has the lock and
    that nobody may be promoted: there is no doubt. While a standby is named there is."""
    started = str(pair.ask(pair.primary, "SELECT pg_postmaster_start_time()"))
    patroni = Patroni(started)
    alone = patroni.members
    patroni.members = [*alone, MEMBER | {"name": "b", "role": "sync_standby", "api_url": "self"}]
    monkeypatch.setattr("ingest.store.patroni.PORT", patroni.port)
    commit = Commit(0.0, is_guarded=True)
    try:
        cluster = Cluster(pair.conninfo(pair.primary, pair.standby), lambda conninfo, _: connect(conninfo))
        opened = cluster.connect()
        cluster.confirm(opened, commit)
        pair.standby.stop()
        pair.primary.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
        pair.primary.execute("postgres", "SELECT pg_reload_conf()")
        while opened.execute("SHOW synchronous_standby_names").fetchone() != ("",):
            time.sleep(0.01)
        with pytest.raises(Unsure, match="became empty"):
            cluster.confirm(opened, commit)
        patroni.members = alone
        cluster.confirm(opened, commit)
        patroni.members = []
        cluster.confirm(opened, commit)  # it was told once
        opened.close()
    finally:
        patroni.close()


def test_a_dead_host_costs_its_timeout_once(pair: Pair) -> None:
    """It is tried after the others from then on, and who answered stays first."""
    tried: list[str] = []

    def count(conninfo: str, timeout_s: float | None) -> Connection:
        tried.append(conninfo)
        return connect(conninfo, connect_timeout_s=timeout_s or 2)

    with socket.create_server(
        ("127.0.0.1", 0)
    ) as dead:  # the kernel lets everybody in, and nobody ever answers
        port = dead.getsockname()[1]
        cluster = Cluster(
            f"host=127.0.0.1,127.0.0.1 port={port},{pair.primary.port} user=postgres dbname={DATABASE}", count
        )
        for _ in range(3):
            cluster.connect().close()
        cluster.leave()
        cluster.connect().close()
    assert sum(str(port) in conninfo for conninfo in tried) == 1


def test_a_primary_of_an_older_timeline_is_not_taken(pair: Pair) -> None:
    """Who has seen the promoted one does not go back to the orphan, even when that is all there is."""
    cluster = Cluster(
        pair.conninfo(pair.primary, pair.standby),
        lambda conninfo, t: connect(conninfo, connect_timeout_s=t or 2),
    )
    pair.standby.promote()
    first = cluster.connect()
    assert first.info.port == pair.primary.port, "nothing is known yet"
    first.close()
    cluster.leave()
    second = cluster.connect()
    assert second.info.port == pair.standby.port
    second.close()
    cluster.leave()
    third = cluster.connect()
    assert third.info.port == pair.standby.port
    third.close()
