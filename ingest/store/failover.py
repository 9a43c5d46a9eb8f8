"""Finds the primary among the hosts of a conninfo, and asks the others before anything that is in doubt is acknowledged."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ingest.errors import IngestError, Misconfigured, Unavailable, Unsure
from ingest.store.connection import Connection, hang_up, hang_up_after, translate_errors
from ingest.store.hosts import (
    Guard,
    Host,
    Standing,
    by_answer,
    first,
    hosts_of,
    is_left_behind,
    last,
    only,
    with_environment,
    with_target,
)
from ingest.store.lane import Commit
from ingest.store.patroni import leads_alone
from ingest.store.queries import query
from ingest.store.sqlstates import one_line

SLOW_COMMIT_S = 1.0  # a disk's or a standby's bad moment is shorter; a wait for one that is gone is not
SLOW_ANSWER_S = 1.0  # a try that took longer is not made again soon
SILENT_FOR_S = 30.0  # who did not answer is tried after the others for so long
LOOK_EVERY_S = 5.0  # while a server keeps silent
NO_TIMELINE = (
    "of two hosts that both call themselves primary nobody can tell the newer one: GRANT EXECUTE ON FUNCTION "
    "pg_current_wal_lsn(), pg_walfile_name(pg_lsn), pg_control_checkpoint() TO this role, on every host"
)

# (conninfo) and a pause in seconds after which a host that does not answer is left; None: the usual one.
Connect = Callable[[str, float | None], Connection]


class Cluster:
    """One writer's view. With a single host there is nobody to ask: then it only looks after the guard."""

    def __init__(self, conninfo: str, connect: Connect) -> None:
        self._connect = connect
        with translate_errors():
            given = with_environment(conninfo_to_dict(conninfo), os.environ)
        self._given = with_target(given, os.environ)
        self._order = hosts_of(given)
        self._conninfo = conninfo
        self._silent: dict[Host, float] = {}  # until when
        self._newest = 0  # timeline that was seen
        self._guard = Guard()
        self._must_ask = True  # nobody knows what happened before us
        self._has_told = False  # that it cannot see timelines
        self._log = structlog.get_logger()

    def connect(self) -> Connection:
        """To the first host of the order that is a primary; it stays first. Raises Unavailable or Misconfigured."""
        if len(self._order) == 1:
            return self._connect(self._conninfo, None)
        problem: IngestError | None = None
        for host in by_answer(self._order, self._silent_now()):
            started_s = time.monotonic()
            try:
                connection = self._connect(self._only(host), None)
            except (Unavailable, Misconfigured) as error:
                # A standby answers at once that it is one, and may be the primary a second later.
                if time.monotonic() - started_s > SLOW_ANSWER_S:
                    self._silent[host] = time.monotonic() + SILENT_FOR_S
                problem = error
                continue
            standing = self._standing(connection)
            if standing is None or is_left_behind(standing, [], self._newest):
                connection.close()
                problem = Unavailable(f"{host} is not the primary any more, or not yet")
                continue
            self._order = first(self._order, host)
            self._silent.pop(host, None)
            self._newest = standing.timeline
            return connection
        assert problem is not None
        raise problem

    def leave(self) -> None:
        """The host that we were at was lost, slow or wrong: the others come first, and are asked."""
        if len(self._order) > 1:
            self._order = last(self._order, self._order[0])
        self._must_ask = True

    def confirm(self, connection: Connection, commit: Commit) -> None:
        """After each commit, before it is acknowledged. Raises Unsure when a failover may take it back."""
        is_slow = commit.seconds > SLOW_COMMIT_S
        if not (is_slow or self._must_ask or commit.is_guarded or self._guard.is_up):
            return
        mine = self._standing(connection)
        if mine is None:
            raise Unsure("the server was lost after COMMIT")
        if self._guard.is_in_doubt(mine, time.monotonic()):
            if not self._leads_alone(connection):
                self._must_ask = True
                raise Unsure("synchronous_standby_names became empty: is this the primary still?")
            self._guard.end_doubt()
            self._log.info("standbys_lost", note="it has Patroni's lock: it goes on alone")
        if (is_slow or self._must_ask) and self.is_left_behind(mine):
            raise Unsure("another host is primary on a newer timeline")
        self._must_ask = False

    def is_left_behind(self, mine: Standing | None = None) -> bool:
        """Asks the others. Who does not answer is no reason to stop."""
        mine = mine or Standing(True, self._newest, False)
        return is_left_behind(mine, [self._ask(host) for host in self._order[1:]], self._newest)

    @contextmanager
    def watching(self, connection: Connection, patience_s: float) -> Iterator[None]:
        """Hangs up on a server that keeps silent for longer than the patience, or as soon as it is silent and another one
        is primary in its place: a frozen one would hold us for minutes. For the main thread: it takes SIGALRM."""
        deadline = time.monotonic() + patience_s
        every_s = min(LOOK_EVERY_S, patience_s) if len(self._order) > 1 else patience_s

        def look(*_: object) -> None:
            if time.monotonic() >= deadline or self.is_left_behind():
                hang_up(connection)
            else:
                signal.setitimer(signal.ITIMER_REAL, max(0.01, min(every_s, deadline - time.monotonic())))

        before = signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, every_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _ask(self, host: Host) -> Standing | None:
        try:
            connection = self._connect(self._only(host, target_session_attrs="any"), 2.0)
        except IngestError:
            return None
        try:
            return self._standing(connection)
        finally:
            connection.close()

    def _standing(self, connection: Connection) -> Standing | None:
        try:
            with hang_up_after(connection, LOOK_EVERY_S):
                return standing_of(connection, self._no_timeline)
        except IngestError:
            return None

    def _leads_alone(self, connection: Connection) -> bool:
        """After the look that found nobody to wait for, never before."""
        with suppress(psycopg.Error):
            row: Any = connection.execute(query("started_us")).fetchone()
            return leads_alone(self._order[0].hostaddr or self._order[0].host, int(row[0]))
        return False

    def _no_timeline(self, reason: str) -> None:
        if len(self._order) > 1 and not self._has_told:
            self._has_told = True
            self._log.warning("timeline_unknown", reason=reason, note=NO_TIMELINE)

    def _only(self, host: Host, **more: object) -> str:
        return make_conninfo(**(only(self._given, host) | more))  # type: ignore[arg-type]

    def _silent_now(self) -> set[Host]:
        now = time.monotonic()
        return {host for host, until_s in self._silent.items() if until_s > now}


def standing_of(connection: Connection, no_timeline: Callable[[str], None]) -> Standing:
    """Some servers let only their administrators ask for the timeline, or have no WAL that can be asked about: 0 then, and
    ``no_timeline`` is told why. Raises Unavailable or Misconfigured."""
    row: Any
    with translate_errors():
        try:
            row = connection.execute(query("standing")).fetchone()
        except psycopg.Error as error:
            if connection.broken:
                raise
            row = connection.execute(query("standing_without_timeline")).fetchone()
            no_timeline(one_line(error))
    return Standing(*row)


def is_hosts_fault(error: Exception, connection: Connection) -> bool:
    """Whether another host may fare better: it was lost, is in doubt, or became read-only. A lock or a full disk is no
    reason to leave the primary."""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    return isinstance(error, Unsure) or connection.broken or state.startswith(("25006", "57P0"))
