"""The faults, in the order in which they are worth looking at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

import psycopg

from lab.cluster import LIMITED, MEMBERS, until
from lab.front import Front
from lab.proxy import Mode, Proxy
from tests.cluster import clock
from tests.cluster.network import NETWORK_FAULTS
from tests.cluster.run import Fault, Run

EARLIER = "369ce8d"  # the revision that a rolling upgrade begins with; --earlier says otherwise
OUTAGE_S = 60.0  # of the database; --outage-s says otherwise


def _list(run: Run, *, first: bool | None = None, target: str | None = "read-write") -> None:
    """The hosts with the primary of now as first or last."""
    databases = run.cluster.databases
    primary = databases.the("primary")
    others = [place for place in range(MEMBERS) if place != primary]
    order = [primary, *others] if first else [*others, primary]
    run.conninfo = databases.conninfo(*order, target=target, database=run.database)


def _kill_patroni(run: Run) -> None:
    databases = run.cluster.databases
    run.victim = databases.the("primary")
    databases.patronis[run.victim].kill()
    _another_is_promoted(run)


def _kill_primary(run: Run) -> None:
    databases = run.cluster.databases
    run.victim = databases.the("primary")
    databases.patronis[run.victim].kill()
    databases.kill_postgres(run.victim)
    _another_is_promoted(run)


def _another_is_promoted(run: Run) -> None:
    """Until then nothing has happened that an engine could notice: an orphan goes on replicating."""
    databases = run.cluster.databases
    others = [place for place in range(MEMBERS) if place != run.victim]
    until(lambda: any(databases.is_("primary", place) for place in others), "a standby was promoted")


def _mend_primary(run: Run) -> None:
    databases = run.cluster.databases
    databases.kill_postgres(run.victim)  # the orphan
    databases.patronis[run.victim].start()
    databases.wait_whole()


def _kill_postmaster(run: Run) -> None:
    run.cluster.databases.kill_postgres(run.cluster.databases.the("primary"))


def _switch_over(run: Run) -> None:
    run.cluster.databases.switchover()


def _take_database_away(run: Run) -> None:
    databases = run.cluster.databases
    for place, patroni in enumerate(databases.patronis):
        patroni.kill()
        databases.kill_postgres(place)
    time.sleep(OUTAGE_S)
    for patroni in databases.patronis:
        patroni.start()


def _kill_leader(run: Run) -> None:
    run.cluster.brokers.nodes[run.victim].kill()


def _mend_leader(run: Run) -> None:
    brokers = run.cluster.brokers
    brokers.nodes[run.victim].start()
    until(lambda: brokers.lets_in(run.victim), "the broker is back")


def _freeze_leader(run: Run) -> None:
    brokers = run.cluster.brokers
    node = brokers.nodes[run.victim]
    node.signal(signal.SIGSTOP)
    time.sleep(20)
    node.signal(signal.SIGCONT)


def _hold_briefly(run: Run) -> None:
    """Engines that give back what they hold as often as they may, at a queue that counts how often it was delivered."""
    run.flags = ("--hold-s", "4")


def _know_leader(run: Run) -> None:
    run.victim = run.cluster.brokers.leader()


def _kill_two_brokers(run: Run) -> None:
    brokers = run.cluster.brokers
    for place in (0, 1):
        brokers.nodes[place].kill()
    time.sleep(5)
    for place in (0, 1):
        brokers.nodes[place].start()


def _brokers_are_back(run: Run) -> None:
    brokers = run.cluster.brokers
    for place in range(MEMBERS):
        until(lambda place=place: brokers.lets_in(place), "the broker is back")  # type: ignore[misc]


def _roll_brokers(run: Run) -> None:
    brokers = run.cluster.brokers
    for place, node in enumerate(brokers.nodes):
        node.stop()
        node.start()
        until(lambda place=place: brokers.lets_in(place), "the broker is back")  # type: ignore[misc]


def _etcd_away(run: Run) -> None:
    etcd = run.cluster.databases.etcd
    etcd.kill()
    time.sleep(20)
    etcd.start()


def _through_haproxy(run: Run) -> None:
    if run.cluster.haproxy is None:
        run.cluster.start_haproxy()
    run.conninfo = f"postgresql://postgres@127.0.0.1:{run.cluster.haproxy_ports[0]}/{run.database}"
    run.watched = [run.conninfo]
    time.sleep(5)  # its first checks


def _haproxy_then_switchover(run: Run) -> None:
    _restart_haproxy(run)
    run.cluster.databases.switchover()


def _restart_haproxy(run: Run) -> None:
    haproxy = run.cluster.haproxy
    assert haproxy is not None
    haproxy.kill()
    time.sleep(5)
    haproxy.start()


def _both_through_haproxy(run: Run) -> None:
    """Plain clients, too."""
    _through_haproxy(run)
    address = ("127.0.0.1", run.cluster.haproxy_ports[1])
    run.broker_urls = ["stomp://guest:guest@{}:{}".format(*address)]
    run.published_to = [address]


def _haproxy_then_both(run: Run) -> None:
    _restart_haproxy(run)
    run.lost_broker = run.cluster.brokers.leader()
    run.cluster.brokers.nodes[run.lost_broker].kill()
    _kill_primary(run)


def _mend_both(run: Run) -> None:
    _mend_primary(run)
    run.victim = run.lost_broker
    _mend_leader(run)


def _standby_frozen_then_killed(run: Run) -> None:
    databases = run.cluster.databases
    run.victim = databases.the("synchronous")
    databases.signal_postgres(run.victim, signal.SIGSTOP)
    databases.patronis[run.victim].signal(signal.SIGSTOP)
    time.sleep(30)
    databases.patronis[run.victim].kill()
    databases.kill_postgres(run.victim)


def _database_proxies(run: Run) -> None:
    """Engines reach each member through a proxy of its own; patroni and plain clients do not."""
    proxies = [Proxy(*address) for address in run.cluster.databases.addresses]
    hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
    run.conninfo = f"postgresql://postgres@{hosts}/{run.database}?target_session_attrs=read-write"
    run.closing += [proxy.close for proxy in proxies]
    run.proxies = proxies


def _broker_proxies(run: Run) -> None:
    proxies = [Proxy(*address) for address in run.cluster.brokers.addresses]
    urls = [f"stomp://guest:guest@127.0.0.1:{proxy.port}" for proxy in proxies]
    run.broker_urls = [",".join(urls[place:] + urls[:place]) for place in range(MEMBERS)]
    run.closing += [proxy.close for proxy in proxies]
    run.proxies = proxies


def _cut_and_fail_over(run: Run) -> None:
    """The primary is on the other side of a cut, both ways, and the cluster leaves it: its Patroni and server stop."""
    databases = run.cluster.databases
    run.victim = databases.the("primary")
    run.proxies[run.victim].mode = Mode.STALL
    databases.patronis[run.victim].signal(signal.SIGSTOP)
    databases.signal_postgres(run.victim, signal.SIGSTOP)
    _another_is_promoted(run)


def _mend_cut(run: Run) -> None:
    databases = run.cluster.databases
    databases.patronis[run.victim].kill()
    _mend_primary(run)


def _cut_brokers(run: Run) -> None:
    """Engines lose two of the three brokers without a word; the cluster itself is whole."""
    for place in (0, 1):
        run.proxies[place].mode = Mode.STALL
    time.sleep(45)
    for place in (0, 1):
        run.proxies[place].mode = Mode.PASS


def _all_proxies(run: Run) -> None:
    _broker_proxies(run)
    brokers = run.proxies
    _database_proxies(run)
    run.proxies = brokers + run.proxies


def _slow_links(run: Run) -> None:
    """A tenth of a second for each chunk, both ways, between the engines and everything."""
    for proxy in run.proxies:
        proxy.mode = Mode.SLOW
    time.sleep(30)
    for proxy in run.proxies:
        proxy.mode = Mode.PASS


def _fill_broker(run: Run) -> None:
    run.cluster.brokers.fill_disk(run.victim)
    time.sleep(20)
    run.cluster.brokers.fill_disk(run.victim, full=False)


def _fill_primary(run: Run) -> None:
    """Tables cannot grow; the WAL has files that it uses again."""
    databases = run.cluster.databases
    run.victim = databases.the("primary")
    databases.fill_disk(run.victim)
    time.sleep(30)
    databases.empty_disk(run.victim)


def _fill_wal(run: Run) -> None:
    """Its server dies of it, and does not start again; Patroni keeps it for the leader all the same."""
    databases = run.cluster.databases
    run.victim = databases.the("primary")
    full = databases.conninfo(run.victim, target=None, database=run.database)
    # Before: a database that nobody was in yet lets nobody in without room for a file.
    with psycopg.connect(full, autocommit=True) as connection:
        databases.fill_disk(run.victim)
        with suppress(psycopg.Error):
            while True:
                connection.execute(
                    "SELECT pg_logical_emit_message(false, 'full', repeat('x', 4000)), pg_switch_wal()"
                )
    until(lambda: not databases.is_("primary", run.victim), "the full one has died")
    time.sleep(20)
    databases.empty_disk(run.victim)
    until(
        lambda: any(databases.is_("primary", place) for place in range(MEMBERS)), "somebody is primary again"
    )


def _empty_primary(run: Run) -> None:
    run.cluster.databases.empty_disk(run.victim)
    run.cluster.databases.wait_whole()


def _standby_far_behind(run: Run) -> None:
    """It has all WAL and has replayed none of it for half a minute when it is to be the primary."""
    databases = run.cluster.databases
    behind = databases.conninfo(databases.the("synchronous"), target=None, database="postgres")
    with psycopg.connect(behind, autocommit=True) as connection:
        connection.execute("SELECT pg_wal_replay_pause()")
    time.sleep(30)
    _kill_primary(run)


def _replica_behind(run: Run) -> None:
    """A front asks it, and says with each answer how old that is."""
    databases = run.cluster.databases
    run.victim = next(
        place for place in range(MEMBERS) if not databases.is_("primary", place) and not databases.is_("synchronous", place)
    )  # fmt: skip
    replica = databases.conninfo(run.victim, target=None, database=run.database)
    databases.delay_replay(run.victim, "1h")
    with psycopg.connect(replica, autocommit=True) as connection:
        until(
            lambda: connection.execute("SHOW recovery_min_apply_delay").fetchone() == ("1h",),
            "Patroni has told it",
        )
    front = Front(
        run.primary(), run.cluster.brokers.url(), "--http-database", replica, log=run.directory / "front.log"
    )
    try:
        front.wait_ready()
        time.sleep(20)
        answer = front.get("/pdb/query/v4/nodes")
        nodes, lag_s = len(answer.json), float(answer.headers["x-replica-behind"])
        time.sleep(10)
        answer = front.get("/pdb/query/v4/nodes")
        assert len(answer.json) == nodes, "it is not behind"
        assert 15 <= lag_s <= float(answer.headers["x-replica-behind"]) - 8, (lag_s, answer.headers)
    finally:
        front.stop()


def _replay_again(run: Run) -> None:
    run.cluster.databases.delay_replay(run.victim)


def _fail_back(run: Run) -> None:
    """An orphan takes a row that nobody else has, so that it must be rewound; then it is made primary again."""
    databases = run.cluster.databases
    _kill_patroni(run)
    orphan = databases.conninfo(run.victim, target=None, database=run.database)
    with psycopg.connect(orphan, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute("INSERT INTO faults.watch DEFAULT VALUES")
    _mend_primary(run)
    said = (databases.patronis[run.victim].directory / "output").read_text(errors="replace")
    assert "running pg_rewind" in said, "nothing had to be rewound"
    other = databases.the("synchronous")
    if other != run.victim:
        databases.patronis[other].kill()
        databases.kill_postgres(other)
        until(lambda: databases.is_("synchronous", run.victim), "the rewound one is synchronous")
    databases.switchover()
    if other != run.victim:
        databases.patronis[other].start()
    databases.wait_whole()
    assert databases.is_("primary", run.victim)


def _clock_ahead(run: Run) -> None:
    run.through[0] = clock.ahead(run.directory, 3600)


def _no_mounts() -> str | None:
    with tempfile.TemporaryDirectory() as directory:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "ingest-cluster", directory], check=False, capture_output=True
        ).returncode:
            return "no file system can be mounted here"
        subprocess.run(["umount", directory], check=True)
    return None


def _no_earlier() -> str | None:
    there = subprocess.run(
        ["git", "cat-file", "-e", f"{EARLIER}^{{commit}}"], check=False, capture_output=True
    )
    return f"no revision {EARLIER} in this checkout" if there.returncode else None


def _give_back_and_forth(run: Run) -> None:
    """What the one with the wrong clock holds goes to the others, and what they hold to it."""
    for engine in list(run.engines[1:]):
        engine.stop(60)
        time.sleep(3)
        run.start_engine().wait_ready()
    run.engines[0].stop(60)


def _of_earlier_revision(run: Run) -> None:
    """Its program in a directory of its own, and a database as it makes it."""
    tree = run.directory / "earlier"
    if not tree.exists():
        tree.mkdir()
        packed = subprocess.run(["git", "archive", EARLIER, "ingest"], check=True, stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", tree], check=True, input=packed.stdout)
    with psycopg.connect(run.primary("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {run.database}".encode())
        connection.execute(f"CREATE DATABASE {run.database}".encode())
    subprocess.run(
        [sys.executable, "-m", "ingest", "migrate", "--database", run.primary()], check=True, cwd=tree,
        stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(tree)},
    )  # fmt: skip
    run.tree = tree
    run.install()


def _upgrade(run: Run) -> None:
    """One after the other, each new one beside the old ones; the first brings the schema up to date."""
    run.tree = None
    for engine in list(run.engines):
        assert engine.stop(60) == 0
        run.start_engine().wait_ready()
        time.sleep(3)


def _scale(run: Run) -> None:
    for _ in range(5 - len(run.engines)):
        run.start_engine().wait_ready()
    time.sleep(3)
    for engine in run.engines[1:]:
        assert engine.stop(60) == 0


def _migrate_at_once(run: Run) -> None:
    """Three instances find the same empty database, five times."""
    for turn in range(5):
        name = f"{run.database}_empty{turn}"
        with psycopg.connect(run.primary("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        command = [sys.executable, "-m", "ingest", "migrate", "--database", run.primary(name)]
        started = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)
        ]
        for each in started:
            _, said = each.communicate(timeout=60)
            assert each.returncode == 0, said.decode()


FAULTS = (
    Fault("Patroni alone killed, the orphaned primary named first", _kill_patroni, _mend_primary,
          lambda run: _list(run, first=True)),
    Fault("Patroni alone killed, the orphaned primary named last", _kill_patroni, _mend_primary,
          lambda run: _list(run, first=False)),
    Fault("a list without target_session_attrs whose first becomes a replica", _switch_over,
          prepare=lambda run: _list(run, first=True, target=None)),
    Fault("delivery limit 3, hold_s 4, the database away", _take_database_away, prepare=_hold_briefly, queue=LIMITED,
          with_="outage"),
    Fault("delivery limit 20, hold_s 4, the database away", _take_database_away, prepare=_hold_briefly,
          with_="outage"),
    Fault("PostgreSQL and Patroni of the primary killed", _kill_primary, _mend_primary),
    Fault("leader broker killed", _kill_leader, _mend_leader, _know_leader),
    Fault("leader broker stopped 20 s (SIGSTOP)", _freeze_leader, _brokers_are_back, _know_leader),
    Fault("two of three brokers killed, then back", _kill_two_brokers, _brokers_are_back),
    Fault("rolling restart of all brokers", _roll_brokers, _brokers_are_back),
    Fault("planned switchover of the database", _switch_over),
    Fault("the primary's postmaster killed", _kill_postmaster),
    Fault("etcd away for 20 s", _etcd_away),
    Fault("HAProxy killed for 5 s, then a switchover", _haproxy_then_switchover, prepare=_through_haproxy),
    Fault("HAProxy before brokers and database killed for 5 s", _restart_haproxy, prepare=_both_through_haproxy),
    Fault("HAProxy before both killed for 5 s, then the leader broker and the primary",
          _haproxy_then_both, _mend_both, _both_through_haproxy),
    Fault("synchronous standby frozen 30 s, then killed", _standby_frozen_then_killed, _mend_primary),
    Fault("primary frozen behind a cut, both ways", _cut_and_fail_over, _mend_cut, _database_proxies),
    Fault("two brokers behind a cut for 45 s", _cut_brokers, prepare=_broker_proxies),
    Fault("slow links to all brokers and databases for 30 s", _slow_links, prepare=_all_proxies,
          lasts_s=30.0),
    Fault("a broker's disk full for 20 s (alarm)", _fill_broker, _brokers_are_back, _know_leader),
    Fault("the primary's disk full for 30 s", _fill_primary, _empty_primary, lasts_s=30.0,
          needs_disks=True, lacks=_no_mounts),
    Fault("the primary's disk full to its last WAL file, for 20 s", _fill_wal, _empty_primary,
          needs_disks=True, lacks=_no_mounts),
    Fault("synchronous standby 30 s behind in its replay, then promoted", _standby_far_behind, _mend_primary),
    Fault("a replica an hour behind, which queries are sent to", _replica_behind, _replay_again),
    Fault("orphan rewound (pg_rewind), then made primary again", _fail_back),
    Fault("the clock of one engine an hour ahead", _give_back_and_forth, prepare=_clock_ahead,
          lacks=clock.missing),
    Fault("three engines upgraded one after the other", _upgrade, prepare=_of_earlier_revision,
          lacks=_no_earlier),
    *NETWORK_FAULTS,
    Fault("engines scaled from one to five and back", _scale),
    Fault("three instances migrate an empty database at once, five times", _migrate_at_once),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}
