"""The supervisor: starts the process tree, keeps it whole, and brings it to an orderly end.

Theory of operation. Children are started as ``python -m ingest.engine.child``, in sessions of their own, and get
every descriptor they need over their control sockets. A child that ends, for whatever reason, is replaced:
new pipes to its neighbours, and the receiver gives out again what the dead one had. The supervisor waits on
process descriptors, control sockets and signals; once a second it looks whether somebody is stuck.
"""

from __future__ import annotations

import mmap
import os
import secrets
import selectors
import signal
import time
from collections.abc import Callable

import msgspec
import structlog

from ingest.config.loading import reloadable
from ingest.config.settings import Config
from ingest.core.metrics import Metric
from ingest.engine.child_process import ChildProcess, neighbours
from ingest.engine.health import tree_health
from ingest.engine.kinds import declare_metrics
from ingest.engine.process import cpu_s, process_names
from ingest.engine.service_manager import ServiceManager
from ingest.engine.signals import signals_through
from ingest.errors import IngestError
from ingest.ipc.arena import memory
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import DECODER, DIGESTS, IN_FLIGHT, METRICS_TABLE, RECEIVER, SUPERVISOR, WRITER
from ingest.ipc.pipes import link
from ingest.ipc.process_metrics import MetricsTable
from ingest.ipc.stored_digests import StoredDigests
from ingest.observe.exposition import Health
from ingest.observe.log import set_level

SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
TICK_S = 1.0
STOP_GRACE_S = 2.0  # for children to leave after "stop"


class Supervisor:
    def __init__(self, config: Config, read_again: Callable[[], Config]) -> None:
        self.config = config
        self.log = structlog.get_logger()
        self._read_again = read_again
        self.names = process_names(config)
        self.children = {name: ChildProcess(name) for name in self.names if name != SUPERVISOR}
        declare_metrics()
        self._metrics_fd = memory(METRICS_TABLE, MetricsTable.size(len(self.names)))
        self._digests_fd = memory(DIGESTS, StoredDigests.size_bytes())
        StoredDigests(_map(self._digests_fd)).sow()
        self._in_flight_fd = memory(IN_FLIGHT, InFlight.size_bytes(len(self.names)))
        self._arena_fd = -1
        self.metrics = MetricsTable(_map(self._metrics_fd))
        self._row = self.metrics.row(self.names.index(SUPERVISOR))
        self._in_flight = InFlight(_map(self._in_flight_fd), self.names)
        self.engine = secrets.randbits(62)  # its number among those on one database
        self._in_flight.hold_since(SUPERVISOR, self.engine)
        self._selector = selectors.DefaultSelector()
        self._ready: set[str] = set()
        self._draining_since_s: float | None = None
        self._drained = False
        self._signals: list[int] = []
        self._manager = ServiceManager(os.environ)

    # Life

    def run(self) -> bool:
        """Until a signal ends it. True: drained; False: the time was up, or a second signal came."""
        with signals_through(self._selector, SIGNALS, self._signalled):
            try:
                self._new_arena()
                for child in self.children.values():
                    self._spawn(child)
                for child in self.children.values():
                    self._hand_over_memory(child)
                for source, target in neighbours(self.children.values()):
                    self._connect(source, target)
                for child in self.children.values():
                    self._order(child, "go")
                while not self._is_over():
                    for key, _ in self._selector.select(TICK_S):
                        key.data()
                    self._tick()
                return self._stop()
            finally:
                for child in self.children.values():
                    child.kill()
                    child.forget()

    def drain(self) -> None:
        if self._draining_since_s is None:
            self._draining_since_s = time.monotonic()
            self._manager.stopping()
            self.log.info("draining", drain_timeout_s=self.config.drain_timeout_s)
            self._order(self.children[RECEIVER], "drain")

    @property
    def drained(self) -> bool:
        return self._drained

    def held_since(self) -> int:
        """What the receiver said last of the oldest message that it holds: ``Holding.told``."""
        return self._in_flight.held_since(RECEIVER)

    def count(self, metric: int, n: float) -> None:
        """For what happens in this process beside the loop."""
        self._row.add(metric, n)

    def health(self) -> Health:
        missing = [name for name, child in self.children.items() if not child.is_alive()]
        return tree_health(self.metrics, self.names, missing, is_draining=self._draining_since_s is not None)

    def _is_over(self) -> bool:
        if self._draining_since_s is None:
            return False
        late = time.monotonic() - self._draining_since_s > self.config.drain_timeout_s
        return self._drained or late or len(self._signals) > 1

    def _stop(self) -> bool:
        if not self._drained:
            self.log.warning(
                "drain_given_up",
                reason="a second signal" if len(self._signals) > 1 else "drain_timeout_s is over",
            )
            return False
        for child in self.children.values():
            self._order(child, "stop")
        deadline = time.monotonic() + STOP_GRACE_S
        for child in self.children.values():
            child.wait_or_kill(deadline)
        self.log.info("stopped")
        return True

    # The tree

    def _spawn(self, child: ChildProcess) -> None:
        child.start(self.config)
        self._ready.discard(child.name)
        assert child.control is not None
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._ended(child))
        self._selector.register(child.control.connection, selectors.EVENT_READ, lambda: self._listen(child))

    def _new_arena(self) -> None:
        if self._arena_fd >= 0:
            os.close(self._arena_fd)
        self._arena_fd = memory("arena", self.config.window_bytes_max)

    def _arena_number(self) -> int:
        return self.children[RECEIVER].incarnation

    def _hand_over_memory(self, child: ChildProcess) -> None:
        assert child.control is not None
        for role, fd in (
            (METRICS_TABLE, self._metrics_fd),
            (DIGESTS, self._digests_fd),
            (IN_FLIGHT, self._in_flight_fd),
        ):
            child.control.hand_over(role, "", fd)
        child.control.hand_over("arena", "", self._arena_fd, self._arena_number())

    def _connect(self, source: ChildProcess, target: ChildProcess) -> None:
        """A new pipe between the two; the supervisor keeps no end of it."""
        receiving, sending = link()
        try:
            if source.control is not None:
                source.control.hand_over("outbox", target.name, sending.fileno(), target.incarnation)
            if target.control is not None:
                target.control.hand_over("inbox", source.name, receiving.fileno(), source.incarnation)
        finally:
            receiving.close()
            sending.close()

    def _replace(self, child: ChildProcess) -> None:
        self.log.info("restarting", child=child.name, incarnation=child.incarnation + 1)
        if child.retires_because is None:
            self._row.add(Metric.RESTARTS)
        self._spawn(child)
        if child.kind == RECEIVER:
            # The dead one's bodies may still be read by others: its successor gets memory of its own.
            self._new_arena()
            for other in self.children.values():
                if other.control is not None and other is not child:
                    other.control.hand_over("arena", "", self._arena_fd, self._arena_number())
        self._hand_over_memory(child)
        for source, target in neighbours(self.children.values()):
            if child in (source, target):
                self._connect(source, target)
        self._order(child, "go")
        if self._draining_since_s is not None and child.kind == RECEIVER:
            self._order(child, "drain")

    def _order(self, child: ChildProcess, word: str, detail: str = "") -> None:
        if child.control is not None:
            child.control.order(word, detail)

    # Events

    def _ended(self, child: ChildProcess) -> None:
        assert child.process is not None
        self._listen(child, closing=True)
        status = child.process.wait()
        self._selector.unregister(child.pidfd)
        child.forget()
        if self._drained:
            return
        if child.kind == WRITER:  # what it said of the database counts no more
            self.metrics.row(self.names.index(child.name)).set(Metric.DATABASE_UP, 0)
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"
        if status == 0 and child.retires_because is not None:
            self.log.info("child_retired", child=child.name, reason=child.retires_because)
        else:
            child.retires_because = None
            self.log.warning("child_died", child=child.name, how=how)
        now_s = time.monotonic()
        child.restarts.ended(now_s)
        if child.restarts.is_due(now_s):
            self._replace(child)

    def _listen(self, child: ChildProcess, *, closing: bool = False) -> None:
        control = child.control
        if control is None:
            return
        for report in control.reports():
            if report.word == "ready":
                self._ready.add(child.name)
                if len(self._ready) == len(self.children):
                    self._manager.ready()
                    self.log.info("running", workers=self.config.workers, writers=self.config.writers)
            elif report.word == "retiring":
                child.retires_because = report.detail
            elif report.word == "drained":
                self._drained = True
            elif report.word == "failed":
                self.log.error("child_failed", child=child.name, reason=report.detail)
        if closing or control.ended:
            try:
                self._selector.unregister(control.connection)
            except KeyError:
                pass  # both its end and its silence were noticed

    def _tick(self) -> None:
        self._manager.tick(self.health().line)
        now_s = time.monotonic()
        for child in self.children.values():
            if child.restarts.is_due(now_s):
                self._replace(child)
            elif child.is_alive():
                self._check(child)

    def _check(self, child: ChildProcess) -> None:
        """Kills a child that somebody stopped, or that a message keeps busy without end."""
        assert child.process is not None
        if child.stuck.is_stopped(child.is_stopped()):
            self.log.warning("child_stuck", child=child.name, reason="it is stopped")
            child.kill()
        if child.kind != DECODER:
            return
        held = self._in_flight.held(child.name)
        if child.stuck.is_busy(held, cpu_s(child.process.pid), self.config.decode_cpu_max_s):
            self.log.warning(
                "child_stuck", child=child.name, reason="decode_cpu_max_s is over", delivery=held
            )
            child.kill()

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload()
        else:
            self._signals.append(number)
            self.drain()

    def _reload(self) -> None:
        """Reads the settings again, takes over those that can change at work, and names those that cannot."""
        try:
            changed = reloadable(self.config, self._read_again())
        except IngestError as error:
            self.log.warning("reload_refused", reason=str(error))
            return
        self.config = changed.config
        set_level(self.config.log_level)
        for child in self.children.values():
            self._order(child, "reload", msgspec.json.encode(self.config).decode())
        self.log.info("reloaded", changed=changed.taken, need_a_restart=changed.left)


def _map(fd: int) -> mmap.mmap:
    return mmap.mmap(fd, 0)
