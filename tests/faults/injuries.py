"""The faults, each small and named: ``begin`` hurts, ``end`` makes it whole again.

Recovery is the time from the end of a fault (of a kill: from the kill) until catalogs that were sent afterwards
are in the database.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg

from lab.proxy import Mode

if TYPE_CHECKING:
    from tests.faults.world import World

# The limits of recovery, from the engine's promises.
KILL_LIMIT_S, OUTAGE_LIMIT_S = 2.0, 5.0
NOTICED_S = 5.0  # what the worlds' time limits make of a server that keeps silent
FILLER_BYTES = 64 * 1024


class Fault:
    """One way to hurt. ``area`` tells which faults may happen at once: one of each area."""

    name: ClassVar[str]
    area: ClassVar[str]
    hold_s: ClassVar[tuple[float, float]] = (0.0, 0.0)  # how long it may last
    limit_s: ClassVar[float | None] = OUTAGE_LIMIT_S  # of the recovery; None: only told

    def __init__(self, rng: random.Random) -> None:
        self.random = rng

    @classmethod
    def missing(cls, world: World) -> str | None:
        """Why it cannot happen in this world."""
        return None

    def begin(self, world: World) -> None:
        raise NotImplementedError

    def end(self, world: World) -> None:
        """Until then the fault lasts."""


FAULTS: dict[str, type[Fault]] = {}


def fault(cls: type[Fault]) -> type[Fault]:
    FAULTS[cls.name] = cls
    return cls


# Processes


def _hit(world: World, name: str, number: signal.Signals) -> int | None:
    pid = world.child(name)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pid


class _Kill(Fault):
    area = "process"
    limit_s = KILL_LIMIT_S
    victims: ClassVar[tuple[str, ...]]

    def begin(self, world: World) -> None:
        for victim in self.victims:
            _hit(world, victim, signal.SIGKILL)


@fault
class KillReceiver(_Kill):
    name, victims = "kill the receiver", ("receiver",)


@fault
class KillDecoder(_Kill):
    name, victims = "kill a decoder", ("decoder-0",)


@fault
class KillWriter(_Kill):
    name, victims = "kill a writer", ("writer-0",)


@fault
class KillAllChildren(_Kill):
    name = "kill all children at once"
    limit_s = OUTAGE_LIMIT_S  # those that had just started wait a moment before they start again
    victims = ("receiver", "decoder-0", "decoder-1", "writer-0", "writer-1")


@fault
class KillSupervisor(Fault):
    """The whole engine is gone; somebody (systemd) starts another one."""

    name, area = "kill the supervisor", "process"
    limit_s = OUTAGE_LIMIT_S

    def begin(self, world: World) -> None:
        assert world.engine is not None
        world.engine.kill()
        world.wait_for(lambda: not world.traces.processes(), "the tree gone with its supervisor")

    def end(self, world: World) -> None:
        world.start_engine(wait=False)


class _Stop(Fault):
    """SIGSTOP, as a debugger or a frozen cgroup does; a child that stays stopped is replaced."""

    area, hold_s = "process", (0.1, 5.0)
    victim: ClassVar[str]

    def begin(self, world: World) -> None:
        self.pid = _hit(world, self.victim, signal.SIGSTOP)

    def end(self, world: World) -> None:
        if self.pid is not None and world.child(self.victim) == self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)


@fault
class StopReceiver(_Stop):
    name, victim = "stop the receiver", "receiver"


@fault
class StopDecoder(_Stop):
    name, victim = "stop a decoder", "decoder-1"


@fault
class StopWriter(_Stop):
    name, victim = "stop a writer", "writer-1"


@fault
class StopSupervisor(Fault):
    name, area, hold_s = "stop the supervisor", "process", (0.1, 3.0)

    def begin(self, world: World) -> None:
        assert world.engine is not None
        self.process = world.engine.process
        self.process.send_signal(signal.SIGSTOP)

    def end(self, world: World) -> None:
        self.process.send_signal(signal.SIGCONT)


# The database


@fault
class DatabaseRestart(Fault):
    name, area, hold_s = "PostgreSQL: immediate shutdown and restart", "database", (0.0, 3.0)

    @classmethod
    def missing(cls, world: World) -> str | None:
        return "a failover world keeps its servers" if world.standby else None

    def begin(self, world: World) -> None:
        world.postgres.stop(immediate=True)

    def end(self, world: World) -> None:
        world.postgres.start()


@fault
class DatabaseTerminate(Fault):
    name, area = "PostgreSQL: pg_terminate_backend", "database"

    def begin(self, world: World) -> None:
        with world.direct() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ingest%'"
            )


class _DatabaseSetting(Fault):
    """Something that a superuser does and undoes."""

    area, hold_s = "database", (0.5, 2.0)
    do: ClassVar[tuple[str, ...]]
    undo: ClassVar[tuple[str, ...]]

    def begin(self, world: World) -> None:
        self._execute(world, self.do)

    def end(self, world: World) -> None:
        self._execute(world, self.undo)

    @staticmethod
    def _execute(world: World, statements: tuple[str, ...]) -> None:
        with world.direct() as connection:
            connection.execute("SET default_transaction_read_only = off")
            for statement in statements:
                connection.execute(statement)


@fault
class DatabaseReadOnly(_DatabaseSetting):
    name = "PostgreSQL: read-only"
    do = ("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    undo = ("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")


@fault
class DatabaseTableGone(_DatabaseSetting):
    """A person's mistake, and its repair."""

    name = "PostgreSQL: a table renamed"
    do = ("ALTER TABLE resources RENAME TO resources_away",)
    undo = ("ALTER TABLE resources_away RENAME TO resources",)


@fault
class DatabaseSlow(_DatabaseSetting):
    """Every statement that writes a catalog runs into statement_timeout_s."""

    name = "PostgreSQL: statement timeout"
    do = (
        "CREATE FUNCTION faults.sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$",
        "CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON catalogs EXECUTE FUNCTION faults.sleep()",
    )
    undo = ("DROP FUNCTION faults.sleep() CASCADE",)
    hold_s = (2.5, 4.0)

    def end(self, world: World) -> None:
        # The engine holds locks on the table most of the time.
        while True:
            with contextlib.suppress(psycopg.errors.QueryCanceled, psycopg.errors.DeadlockDetected):
                return super().end(world)


@fault
class DatabaseLock(Fault):
    name, area, hold_s = "PostgreSQL: lock held by another session", "database", (0.5, 3.0)

    def begin(self, world: World) -> None:
        self.stack = contextlib.ExitStack()
        connection = self.stack.enter_context(world.direct())
        connection.autocommit = False
        connection.execute("LOCK TABLE catalogs IN ACCESS EXCLUSIVE MODE")

    def end(self, world: World) -> None:
        self.stack.close()


@fault
class DatabaseDiskFull(Fault):
    """The tables lie on a small file system, and something else fills it."""

    name, area, hold_s = "PostgreSQL: disk full", "database", (0.5, 2.0)

    @classmethod
    def missing(cls, world: World) -> str | None:
        return None if world.small_disk else "no file system of its own: mounting one needs root"

    def begin(self, world: World) -> None:
        assert world.small_disk is not None
        self.file = world.small_disk / "filler"
        self.was_full = False
        deadline = time.monotonic() + 10
        while not self.was_full and time.monotonic() < deadline:
            with self.file.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(FILLER_BYTES))
            self.was_full = self._is_refused(world)  # not yet: the server gave some pages back meanwhile

    def _is_refused(self, world: World) -> bool:
        try:
            with world.direct() as connection:
                connection.execute(
                    "CREATE TABLE faults.filler AS SELECT repeat('x', 10000) FROM generate_series(1, 10)"
                )
                connection.execute("DROP TABLE faults.filler")
        except psycopg.errors.DiskFull:
            return True
        return False

    def end(self, world: World) -> None:
        self.file.unlink()
        assert self.was_full, "the disk did not get full"


@fault
class DatabaseFailover(Fault):
    """The primary dies, its synchronous standby is promoted; afterwards the dead one becomes the standby."""

    name, area, hold_s = "PostgreSQL: primary fails over to its standby", "database", (0.0, 1.0)

    @classmethod
    def missing(cls, world: World) -> str | None:
        return None if world.standby else "one server only"

    def begin(self, world: World) -> None:
        world.postgres.stop(immediate=True)

    def end(self, world: World) -> None:
        world.fail_over()


class _Wire(Fault):
    """What a network does, by the proxies before a server."""

    mode: ClassVar[Mode]

    def proxies(self, world: World) -> list[Any]:
        return world.database_proxies if self.area == "database" else world.broker_proxies

    def begin(self, world: World) -> None:
        for proxy in self.proxies(world):
            proxy.mode = self.mode

    def end(self, world: World) -> None:
        for proxy in self.proxies(world):
            proxy.mode = Mode.PASS


@fault
class DatabaseStall(_Wire):
    name, area, mode, hold_s = "PostgreSQL: half-open connection", "database", Mode.STALL, (1.0, 4.0)


class _Frozen(Fault):
    """Half-open for good: whoever waits for an answer waits for ever. Recovery includes noticing it."""

    limit_s = NOTICED_S + OUTAGE_LIMIT_S

    def begin(self, world: World) -> None:
        for proxy in world.database_proxies if self.area == "database" else world.broker_proxies:
            proxy.freeze()


@fault
class DatabaseFrozen(_Frozen):
    name, area = "PostgreSQL: connections dead without a word", "database"


@fault
class DatabaseFrozenInCopy(Fault):
    """The server waits for rows that never come, with the locks of that transaction, and no time limit of its own
    ends that."""

    name, area = "PostgreSQL: a connection dead in the middle of a COPY", "database"
    limit_s = NOTICED_S + OUTAGE_LIMIT_S

    def begin(self, world: World) -> None:
        for proxy in world.database_proxies:
            proxy.freeze_after(b"COPY ")
        world.wait_for(
            lambda: not all(proxy.waits_to_freeze for proxy in world.database_proxies),
            "a COPY in the traffic",
        )

    def end(self, world: World) -> None:
        for proxy in world.database_proxies:
            proxy.freeze_after(None)


@fault
class BrokerFrozen(_Frozen):
    name, area = "broker: connections dead without a word", "broker"


@fault
class DatabaseDribble(_Wire):
    name, area, mode, hold_s = "PostgreSQL: bytes dribble", "database", Mode.DRIBBLE, (0.5, 2.0)


@fault
class DatabaseReset(_Wire):
    name, area, mode, hold_s = "PostgreSQL: connection reset and refused", "database", Mode.REFUSE, (0.0, 2.0)

    def begin(self, world: World) -> None:
        super().begin(world)
        for proxy in self.proxies(world):
            proxy.reset()


@fault
class DatabaseCut(Fault):
    name, area = "PostgreSQL: connection cut at byte N", "database"

    def begin(self, world: World) -> None:
        for proxy in world.database_proxies:
            proxy.cut_at(self.random.randrange(1, 3000))


# The broker


@fault
class BrokerStall(_Wire):
    """Nothing passes and no end of the connection notices but by heart-beats."""

    name, area, mode, hold_s = "broker: half-open, heart-beats lost", "broker", Mode.STALL, (1.0, 5.0)


@fault
class BrokerDribble(_Wire):
    name, area, mode, hold_s = "broker: bytes dribble", "broker", Mode.DRIBBLE, (0.5, 2.0)


@fault
class BrokerReset(_Wire):
    name, area, mode, hold_s = "broker: connection reset and refused", "broker", Mode.REFUSE, (0.0, 2.0)

    def begin(self, world: World) -> None:
        super().begin(world)
        for proxy in self.proxies(world):
            proxy.reset()


@fault
class BrokerFailover(Fault):
    """The first of the list refuses for good; the next one works."""

    name, area, hold_s = "broker: failover along the list", "broker", (0.0, 1.0)

    def begin(self, world: World) -> None:
        self.proxy = self.random.choice(world.broker_proxies)
        self.proxy.mode = Mode.REFUSE
        self.proxy.reset()
        self.recovered_s = world.probe()  # while the first one is still away
        assert self.recovered_s < OUTAGE_LIMIT_S, self.recovered_s

    def end(self, world: World) -> None:
        self.proxy.mode = Mode.PASS


@fault
class BrokerCut(Fault):
    name, area = "broker: connection cut at byte N", "broker"

    def begin(self, world: World) -> None:
        for proxy in world.broker_proxies:
            proxy.cut_at(self.random.randrange(1, 20_000))


class _BrokerProcess(Fault):
    area, hold_s = "broker", (0.0, 1.0)

    @classmethod
    def missing(cls, world: World) -> str | None:
        if world.broker is None:
            return "the embedded broker keeps its messages in memory"
        return None if world.broker.survives_kill else f"{world.broker.name} loses messages by itself"

    def end(self, world: World) -> None:
        assert world.broker is not None
        world.broker.start()


@fault
class BrokerRestart(_BrokerProcess):
    name = "broker: stop and start"

    def begin(self, world: World) -> None:
        assert world.broker is not None
        world.broker.stop()


@fault
class BrokerKill(_BrokerProcess):
    name = "broker: killed and started again"

    def begin(self, world: World) -> None:
        assert world.broker is not None
        world.broker.kill()


def hold(faults: list[Fault], share: float) -> None:
    """The faults last: the longest time that one of them wants; ``share`` tells how much of its range is used."""
    wanted_s = []
    for each in faults:
        low_s, high_s = each.hold_s
        wanted_s.append(each.random.uniform(low_s, low_s + share * (high_s - low_s)))
    time.sleep(max(wanted_s))
