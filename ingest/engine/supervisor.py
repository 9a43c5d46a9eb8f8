"""The supervisor: starts the process tree, keeps it whole, and brings it to an orderly end.

Theory of operation. Children are started as ``python -m ingest.engine.child``, in sessions of their own, and get
every descriptor they need over their control sockets. A child that ends, for whatever reason, is replaced:
new pipes to its neighbours, and the receiver gives out again what the dead one had. The supervisor waits on
process descriptors, control sockets and signals; once a second it looks whether somebody is stuck.
"""

from __future__ import annotations

import mmap
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import structlog

from ingest.config.settings import SETTINGS, Config
from ingest.core.delivery.intake import Pause
from ingest.core.metrics import Metric
from ingest.engine.kinds import declare_metrics
from ingest.engine.process import cpu_s, process_names
from ingest.errors import IngestError
from ingest.ipc.arena import memory
from ingest.ipc.control import ParentChannel
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import DECODER, RECEIVER, SUPERVISOR, WRITER, kind_of
from ingest.ipc.pipes import link
from ingest.ipc.process_metrics import MetricsTable
from ingest.ipc.stored_digests import StoredDigests
from ingest.observe.exposition import Health
from ingest.observe.log import set_level

TICK_S = 1.0
STOPPED_TICKS_MAX = 3  # a child that somebody stopped (SIGSTOP) this long is replaced
RESTART_DELAY_MAX_S = 5.0
SHORT_LIFE_S = 2.0  # a child that dies sooner waits before its successor starts
STOP_GRACE_S = 2.0  # for children to leave after "stop"


class Child:
    """One process of the tree and its successive incarnations."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind = kind_of(name)
        self.incarnation = 0
        self.short_lives = 0
        self.started_s = 0.0
        self.restart_at_s: float | None = None
        self.stopped_ticks = 0
        self.retires_because: str | None = None  # it said that it ends, to be replaced
        self.held: int | None = None  # the delivery in its hands when that was last looked at
        self.held_from_cpu_s = 0.0  # its CPU time when it was first seen there
        self.control: ParentChannel | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1

    def start(self, config: Config) -> None:
        self.incarnation += 1
        self.started_s = time.monotonic()
        self.restart_at_s = None
        self.stopped_ticks = 0
        self.retires_because = None
        self.held = None
        self.control = ParentChannel()
        fd = self.control.child.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ingest.engine.child", self.name, str(fd), str(os.getpid())],
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for the supervisor
        )
        self.control.child.close()
        self.control.connection.send_bytes(msgspec.msgpack.encode(config))
        self.pidfd = os.pidfd_open(self.process.pid)

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def is_stopped(self) -> bool:
        """Somebody sent it SIGSTOP, and nobody SIGCONT since."""
        if self.process is None:
            return False
        try:
            flags = os.WSTOPPED | os.WNOHANG | os.WNOWAIT  # WNOWAIT: the next look finds it stopped too
            return os.waitid(os.P_PID, self.process.pid, flags) is not None
        except ChildProcessError:  # it has just ended
            return False

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def forget(self) -> None:
        """After its end: closes what the supervisor kept of it."""
        if self.process is not None:
            self.process.wait()
            os.close(self.pidfd)
            self.process = None
        if self.control is not None:
            self.control.close()
            self.control = None


class Supervisor:
    def __init__(self, config: Config, read_again: Callable[[], Config]) -> None:
        self.config = config
        self.log = structlog.get_logger()
        self._read_again = read_again
        self.names = process_names(config)
        self.children = {name: Child(name) for name in self.names if name != SUPERVISOR}
        declare_metrics()
        self._board_fd = memory("board", MetricsTable.size(len(self.names)))
        self._known_fd = memory("known", StoredDigests.size_bytes())
        StoredDigests(_map(self._known_fd)).sow()
        self._hands_fd = memory("hands", InFlight.size_bytes(len(self.names)))
        self._arena_fd = -1
        self.board = MetricsTable(_map(self._board_fd))
        self._row = self.board.row(self.names.index(SUPERVISOR))
        self._hands = InFlight(_map(self._hands_fd), self.names)
        self._selector = selectors.DefaultSelector()
        self._ready: set[str] = set()
        self._draining_since_s: float | None = None
        self._drained = False
        self._signals: list[int] = []

    # Life

    def run(self) -> bool:
        """Until a signal ends it. True: drained; False: the time was up, or a second signal came."""
        with self._signal_socket():
            try:
                self._new_arena()
                for child in self.children.values():
                    self._spawn(child)
                for child in self.children.values():
                    self._hand_over_memory(child)
                for source, target in self._pairs():
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
            self.log.info("draining", drain_timeout_s=self.config.drain_timeout_s)
            self._order(self.children[RECEIVER], "drain")

    @property
    def drained(self) -> bool:
        return self._drained

    def held_since(self) -> int:
        """What the receiver said last of the oldest message that it holds: ``Holding.told``."""
        return self._hands.held_since("receiver")

    def count(self, metric: int, n: float) -> None:
        """For what happens in this process beside the loop."""
        self._row.add(metric, n)

    def health(self) -> Health:
        """Healthy: the tree is whole. Ready: connected to broker and database, and not draining."""
        reasons = [f"{name} is not running" for name, child in self.children.items() if not child.is_alive()]
        healthy = not reasons
        receiver = self.names.index(RECEIVER)
        pause = Pause(int(self.board.value(receiver, Metric.PAUSED)))
        if pause:
            reasons.append(f"paused: {pause.reason}; nothing is taken from the broker")
        elif not self.board.value(receiver, Metric.CONNECTED):
            reasons.append("no connection to the broker")
        for name in self.names:
            if kind_of(name) == WRITER and not self.board.value(self.names.index(name), Metric.DATABASE_UP):
                reasons.append(f"{name} has no connection to the database")
        if self._draining_since_s is not None:
            reasons.append("draining")
        return Health(healthy=healthy, ready=not reasons, reasons=tuple(reasons))

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
            if child.process is not None:
                try:
                    child.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.kill()
        self.log.info("stopped")
        return True

    # The tree

    def _pairs(self) -> Iterator[tuple[Child, Child]]:
        """Who sends to whom."""
        receiver = self.children[RECEIVER]
        decoders = [c for c in self.children.values() if c.kind == DECODER]
        writers = [c for c in self.children.values() if c.kind == WRITER]
        for decoder in decoders:
            yield receiver, decoder
            yield decoder, receiver
            for writer in writers:
                yield decoder, writer
        for writer in writers:
            yield writer, receiver

    def _spawn(self, child: Child) -> None:
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

    def _hand_over_memory(self, child: Child) -> None:
        assert child.control is not None
        for role, fd in (("board", self._board_fd), ("known", self._known_fd), ("hands", self._hands_fd)):
            child.control.hand_over(role, "", fd)
        child.control.hand_over("arena", "", self._arena_fd, self._arena_number())

    def _connect(self, source: Child, target: Child) -> None:
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

    def _replace(self, child: Child) -> None:
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
        for source, target in self._pairs():
            if child in (source, target):
                self._connect(source, target)
        self._order(child, "go")
        if self._draining_since_s is not None and child.kind == RECEIVER:
            self._order(child, "drain")

    def _order(self, child: Child, word: str, detail: str = "") -> None:
        if child.control is not None:
            child.control.order(word, detail)

    # Events

    def _ended(self, child: Child) -> None:
        assert child.process is not None
        self._listen(child, closing=True)
        status = child.process.wait()
        self._selector.unregister(child.pidfd)
        child.forget()
        if self._drained:
            return
        if child.kind == WRITER:  # what it said of the database counts no more
            self.board.row(self.names.index(child.name)).set(Metric.DATABASE_UP, 0)
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"
        if status == 0 and child.retires_because is not None:
            self.log.info("child_retired", child=child.name, reason=child.retires_because)
        else:
            child.retires_because = None
            self.log.warning("child_died", child=child.name, how=how)
        short = time.monotonic() - child.started_s < SHORT_LIFE_S
        child.short_lives = child.short_lives + 1 if short else 0
        delay_s = min(RESTART_DELAY_MAX_S, 0.1 * 2**child.short_lives) if child.short_lives > 1 else 0.0
        child.restart_at_s = time.monotonic() + delay_s
        if not delay_s:
            self._replace(child)

    def _listen(self, child: Child, *, closing: bool = False) -> None:
        control = child.control
        if control is None:
            return
        for report in control.reports():
            if report.word == "ready":
                self._ready.add(child.name)
                if len(self._ready) == len(self.children):
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
        now = time.monotonic()
        for child in self.children.values():
            if child.restart_at_s is not None and now >= child.restart_at_s:
                self._replace(child)
            elif child.is_alive():
                self._check(child)

    def _check(self, child: Child) -> None:
        """Kills a child that somebody stopped, or that a message keeps busy without end."""
        assert child.process is not None
        child.stopped_ticks = child.stopped_ticks + 1 if child.is_stopped() else 0
        if child.stopped_ticks >= STOPPED_TICKS_MAX:
            self.log.warning("child_stuck", child=child.name, reason="it is stopped")
            child.kill()
        if child.kind == DECODER:
            self._check_message(child, child.process.pid)

    def _check_message(self, child: Child, pid: int) -> None:
        """By the decoder's own clock: a machine that stood still or that others kept busy is no fault of a message."""
        held = self._hands.held(child.name)
        if held != child.held:
            child.held, child.held_from_cpu_s = held, cpu_s(pid)
        elif held and cpu_s(pid) - child.held_from_cpu_s > self.config.decode_cpu_max_s:
            self.log.warning(
                "child_stuck", child=child.name, reason="decode_cpu_max_s is over", delivery=held
            )
            child.kill()

    @contextmanager
    def _signal_socket(self) -> Iterator[None]:
        """Signals as bytes on a socket, so that one selector waits for everything."""
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }

        def arrived() -> None:
            for number in reading.recv(64):
                if number == signal.SIGHUP:
                    self._reload()
                elif number in handlers:
                    self._signals.append(number)
                    self.drain()

        self._selector.register(reading, selectors.EVENT_READ, arrived)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._selector.close()
            reading.close()
            writing.close()

    def _reload(self) -> None:
        """Reads the settings again, takes over those that can change at work, and names those that cannot."""
        try:
            wanted = self._read_again()
        except IngestError as error:
            self.log.warning("reload_refused", reason=str(error))
            return
        changed = [s for s in SETTINGS if getattr(wanted, s.name) != getattr(self.config, s.name)]
        taken = {s.name: getattr(wanted, s.name) for s in changed if s.about.reloads}
        self.config = msgspec.structs.replace(self.config, **taken)
        set_level(self.config.log_level)
        for child in self.children.values():
            self._order(child, "reload", msgspec.json.encode(self.config).decode())
        self.log.info(
            "reloaded", changed=sorted(taken), need_a_restart=[s.name for s in changed if not s.about.reloads]
        )


def _map(fd: int) -> mmap.mmap:
    return mmap.mmap(fd, 0)
