"""Faults of a network on which each member has a machine: packets lost, members cut off from each other, names that move."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence

import psycopg

from lab import machines
from lab.cluster import BROKER_MACHINES, DATABASE_MACHINES, ETCD_MACHINE, MEMBERS, until
from lab.machines import Network
from tests.cluster.run import Fault, Run

BROKER_NAMES = ("broker-a", "broker-b", "broker-c")
PAUSED_S = 150.0  # RabbitMQ gives a member up after net_ticktime, 45 to 75 s
LOST_S = 30.0
CUT_S = 10.0  # after the cluster has done what it does about it
ONE_WAY_S = 45.0


def network(run: Run) -> Network:
    assert run.cluster.network is not None
    return run.cluster.network


def _lose(run: Run, share: float) -> None:
    network(run).lose(share)
    time.sleep(LOST_S)
    network(run).lose(0)


# Cuts between members


def _others(names: Sequence[str], place: int) -> list[str]:
    return [name for name in names if name != names[place]]


def _know_leader(run: Run) -> None:
    run.victim = run.cluster.brokers.leader()


def _cut_leader(run: Run) -> None:
    """Two brokers are a cluster and the third, which led the queue, is none: it stops when it gives the others up."""
    brokers = run.cluster.brokers
    began_s = time.monotonic()
    network(run).cut(BROKER_MACHINES[run.victim], _others(BROKER_MACHINES, run.victim))
    until(lambda: not brokers.lets_in(run.victim), "the one alone pauses", PAUSED_S)
    run.lasted_s = time.monotonic() - began_s
    time.sleep(CUT_S)
    network(run).mend()


def _brokers_are_whole(run: Run) -> None:
    brokers = run.cluster.brokers
    network(run).mend()
    until(lambda: all(map(brokers.lets_in, range(MEMBERS))), "all brokers let in")
    until(lambda: brokers.running() == MEMBERS, "three running nodes")


def _cut_primary(run: Run, *, but_etcd: bool = False) -> None:
    run.victim = run.cluster.databases.the("primary")
    others = _others(DATABASE_MACHINES, run.victim)
    network(run).cut(DATABASE_MACHINES[run.victim], others if but_etcd else [*others, ETCD_MACHINE])


def _promoted(run: Run) -> bool:
    databases = run.cluster.databases
    return any(databases.is_("primary", place) for place in range(MEMBERS) if place != run.victim)


def _cut_primary_off(run: Run) -> None:
    """Engines reach it all the time. Its Patroni sees no etcd and makes it read-only, by and by."""
    _cut_primary(run)
    until(lambda: _promoted(run), "a standby was promoted")
    time.sleep(CUT_S)


def _cut_orphan_off(run: Run) -> None:
    """Nobody tells the old primary, and it takes what it is given: only its commits wait for a standby."""
    _cut_primary(run)
    run.cluster.databases.patronis[run.victim].signal(signal.SIGSTOP)
    until(lambda: _promoted(run), "a standby was promoted")
    time.sleep(CUT_S)
    databases = run.cluster.databases
    stale = databases.conninfo(run.victim, target="read-write", database=run.database)
    psycopg.connect(
        stale, connect_timeout=5
    ).close()  # else nothing was tried: it can be reached and written to


def _cut_standbys_off(run: Run) -> None:
    """The primary keeps its lock in etcd: Patroni lets it go on alone, and says so in etcd before it does."""
    _cut_primary(run, but_etcd=True)
    databases = run.cluster.databases
    stays = databases.conninfo(run.victim, target=None, database="postgres")

    def is_alone() -> bool:
        with psycopg.connect(stays, autocommit=True, connect_timeout=5) as connection:
            row = connection.execute("SHOW synchronous_standby_names").fetchone()
        return row == ("",)

    began_s = time.monotonic()
    until(is_alone, "Patroni has made it wait for nobody")
    run.lasted_s = time.monotonic() - began_s
    time.sleep(CUT_S)


def _mend_databases(run: Run) -> None:
    network(run).mend()
    run.cluster.databases.wait_whole()


def _mend_orphan(run: Run) -> None:
    databases = run.cluster.databases
    databases.patronis[run.victim].kill()
    databases.kill_postgres(run.victim)
    databases.patronis[run.victim].start()
    _mend_databases(run)


# Cuts in one direction


def _deafen_primary(run: Run, way: str) -> None:
    """Between it and the engines, and plain clients; the cluster itself is whole and changes nothing."""
    run.victim = run.cluster.databases.the("primary")
    _cut_from_us(run, DATABASE_MACHINES[run.victim], way)


def _deafen_leader(run: Run, way: str) -> None:
    _cut_from_us(run, BROKER_MACHINES[run.victim], way)


def _cut_from_us(run: Run, machine: str, way: str) -> None:
    network(run).cut(machine, ["us"], [way])
    time.sleep(ONE_WAY_S)
    network(run).mend()


def _deafen_primary_to_all(run: Run, way: str) -> None:
    """Its standbys and etcd, too: another is promoted."""
    run.victim = run.cluster.databases.the("primary")
    network(run).cut(DATABASE_MACHINES[run.victim], None, [way])
    until(lambda: _promoted(run), "a standby was promoted")
    time.sleep(CUT_S)


def _one_way(hurt: Callable[[Run, str], None], way: str) -> Callable[[Run], None]:
    return lambda run: hurt(run, way)


# Names


def _use_names(run: Run) -> None:
    """The primary by one name, as a site has it that changes a record after a failover; the brokers by three."""
    databases, brokers = run.cluster.databases, run.cluster.brokers
    port = databases.addresses[0][1]
    network(run).point({"primary": DATABASE_MACHINES[databases.the("primary")]})
    network(run).point(dict(zip(BROKER_NAMES, BROKER_MACHINES, strict=True)))
    run.conninfo = f"postgresql://postgres@primary:{port}/{run.database}"
    port = brokers.addresses[0][1]
    urls = [f"stomp://guest:guest@{name}:{port}" for name in BROKER_NAMES]
    run.broker_urls = [",".join(urls[place:] + urls[:place]) for place in range(MEMBERS)]


def _move_primary(run: Run) -> None:
    """Its machine is gone without a word; the name follows who is promoted."""
    databases = run.cluster.databases
    run.victim = databases.the("primary")
    network(run).cut(DATABASE_MACHINES[run.victim])
    others = [place for place in range(MEMBERS) if place != run.victim]
    until(lambda: _promoted(run), "a standby was promoted")
    promoted = next(place for place in others if databases.is_("primary", place))
    network(run).point({"primary": DATABASE_MACHINES[promoted]})


def _move_brokers(run: Run) -> None:
    """All three names come to mean the same machine, one after the other; the others are gone without a word."""
    brokers = run.cluster.brokers
    stays = brokers.leader()
    for place in range(MEMBERS):
        if place != stays:
            network(run).point({BROKER_NAMES[place]: BROKER_MACHINES[stays]})
            network(run).cut(BROKER_MACHINES[place], ["us"])
    time.sleep(45)


# Sites


def _lose_site(run: Run) -> None:
    """The one of three that has the primary, the broker that leads the queue, and an engine."""
    run.victim, run.lost_broker = run.cluster.databases.the("primary"), run.cluster.brokers.leader()
    network(run).cut(DATABASE_MACHINES[run.victim])
    network(run).cut(BROKER_MACHINES[run.lost_broker])
    run.engines.pop(0).kill()
    until(lambda: _promoted(run), "a standby was promoted")


def _site_is_back(run: Run) -> None:
    _brokers_are_whole(run)
    _mend_databases(run)


def _lost(share: float) -> Callable[[Run], None]:
    return lambda run: _lose(run, share)


NETWORK_FAULTS = tuple(
    fault._replace(lacks=machines.missing)
    for fault in (
        Fault("a packet in twenty lost everywhere for 30 s", _lost(0.05), _mend_databases, lasts_s=LOST_S),
        Fault("a packet in five lost everywhere for 30 s", _lost(0.2), _mend_databases, lasts_s=LOST_S),
        Fault("leader broker cut off from the two others, engines reach all", _cut_leader, _brokers_are_whole,
              _know_leader),
        Fault("primary cut off from etcd and standbys, engines reach it", _cut_primary_off, _mend_databases),
        Fault("the same, its Patroni frozen: it stays writable", _cut_orphan_off, _mend_orphan),
        Fault("primary cut off from its standbys alone", _cut_standbys_off, _mend_databases),
        Fault("nothing of ours reaches the primary for 45 s, what it sends arrives", _one_way(_deafen_primary, "in"),
              _mend_databases),
        Fault("nothing that the primary sends us arrives for 45 s, ours reaches it", _one_way(_deafen_primary, "out"),
              _mend_databases),
        Fault("nothing of ours reaches the leader broker for 45 s, what it sends arrives", _one_way(_deafen_leader, "in"),
              _brokers_are_whole, _know_leader),
        Fault("nothing that the leader broker sends us arrives for 45 s, ours reaches it", _one_way(_deafen_leader, "out"),
              _brokers_are_whole, _know_leader),
        Fault("the primary hears nobody, all hear it", _one_way(_deafen_primary_to_all, "in"), _mend_databases),
        Fault("nobody hears the primary, it hears all", _one_way(_deafen_primary_to_all, "out"), _mend_databases),
        Fault("one name for the primary: its machine gone, the name moved", _move_primary, _mend_databases, _use_names),
        Fault("names of two brokers moved to the third, their machines gone", _move_brokers, _brokers_are_whole, _use_names),
        Fault("one of three sites gone: the primary, the leader broker and an engine", _lose_site, _site_is_back),
    )
)  # fmt: skip
