"""Everything a run of faults needs: servers, proxies in front of them, producers, the engine, and what to check."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from ingest.store.connection import Connection, connect
from ingest.store.migrate import migrate
from lab.brokers import BROKERS, PASSWORD, USER, Broker
from lab.engine import Engine
from lab.proxy import Proxy
from lab.servers import Postgres, embedded_broker, free_port
from lab.store_model import resource, wire_body
from tests.faults import audit
from tests.faults.traces import Traces
from tests.faults.traffic import Producer, Traffic, dated

DATABASE = "faults"
LANES = 2
FLAGS = (
    "--workers", "2", "--writers", str(LANES), "--heartbeat-s", "1", "--connect-timeout-s", "2",
    "--statement-timeout-s", "2", "--lock-timeout-s", "1", "--backoff-max-s", "1",
    "--report-ttl-s", "0",  # those of these tests are of last year
    # Here most processes die of the harness and not of a message.
    # And each bad message is looked for.
    "--deaths-max", "100", "--quarantine-unnamed-max", "10000",
)  # fmt: skip
LOG_TAIL = 6000  # characters of it that a failure shows
SMALL_DISK_BYTES = 48 * 1024 * 1024
PATIENCE_S = 90.0  # until something that must come is given up; far above every limit that is checked


class World:
    """``broker`` is "embedded" (in memory, without a login) or one of tests/brokers/real.py."""

    def __init__(
        self, *, broker: str = "embedded", seed: int = 1, replica: bool = False, flags: tuple[str, ...] = ()
    ) -> None:
        self.traffic = Traffic(seed)
        self.engine: Engine | None = None
        self.engines_started = 0
        self.flags = (*FLAGS, *flags)
        self.directory = Path(tempfile.mkdtemp(prefix="ingest-faults-"))
        self.directory.chmod(0o755)
        self.traces = Traces(self.directory)
        self._stack = contextlib.ExitStack()
        self._probes = 0
        self.after_probe: list[Callable[[], None]] = []  # what tidies up when recovery has been measured
        self._flowing = threading.Event()
        self._flow: threading.Thread | None = None
        self.small_disk: Path | None = None
        try:
            self._start_database(replica)
            self._start_broker(broker)
            self.producer = Producer(self._broker_address, self.login)
            self._stack.callback(self.producer.kill)
            self.prober = Producer(self._broker_address, self.login)
            self._stack.callback(self.prober.kill)
            self.start_engine()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stop_flow()
        if self.engine is not None:
            with contextlib.suppress(ProcessLookupError):
                self.engine.process.send_signal(signal.SIGCONT)
            self.engine.kill()
        self._stack.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # Servers

    def _start_database(self, replica: bool) -> None:
        self.postgres = Postgres(self._owned("postgresql"))
        if replica:
            self.postgres.start()
        else:
            self._mount_small_disk()
            self.postgres.start()
        self._stack.callback(lambda: self.postgres.stop(immediate=True))  # whoever it is then
        where = ""
        if self.small_disk is not None:
            self.postgres.execute("postgres", f"CREATE TABLESPACE small LOCATION '{self.small_disk}/data'")
            where = "TABLESPACE small"
        self.postgres.execute("postgres", f"CREATE DATABASE {DATABASE} {where}")
        connection = connect(self.postgres.conninfo(DATABASE))
        migrate(connection)
        audit.install(connection)
        connection.close()
        self.database_proxies = [self._proxy(self.postgres.port)]
        self.standby: Standby | None = None
        if replica:
            self.standby = Standby(self._owned("standby"), self.postgres)
            self._stack.callback(self._stop_standby)
            self.database_proxies.append(self._proxy(self.standby.port))

    def _stop_standby(self) -> None:
        if self.standby is not None:
            self.standby.stop(immediate=True)

    def _owned(self, name: str) -> Path:
        directory = self.directory / name
        directory.mkdir()
        return directory

    def _mount_small_disk(self) -> None:
        """A file system that can be filled; needs root."""
        disk = self._owned("disk")
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", disk],
            capture_output=True,
            check=False,
        )
        if mounted.returncode == 0:
            self._stack.callback(lambda: subprocess.run(["umount", "-l", disk], check=True))
            (disk / "data").mkdir()
            shutil.chown(disk / "data", "postgres", "postgres")
            self.small_disk = disk

    def _start_broker(self, broker: str) -> None:
        self.broker: Broker | None = None
        if broker != "embedded":
            self.broker = BROKERS[broker]()
            self._stack.callback(self.broker.remove)
            self.broker.start()
            self.broker_port, self.login = self.broker.port, f"{USER}:{PASSWORD}"
        else:
            url = self._stack.enter_context(embedded_broker())
            self.broker_port, self.login = int(url.rpartition(":")[2]), ""
        self._broker_address = f"127.0.0.1:{self.broker_port}"
        # Two ways to the same broker: the list that the engine fails over along.
        self.broker_proxies = [self._proxy(self.broker_port), self._proxy(self.broker_port)]

    def _proxy(self, port: int) -> Proxy:
        proxy = Proxy("127.0.0.1", port)
        self._stack.callback(proxy.close)
        return proxy

    @property
    def queue_source(self) -> str:
        login = f"{self.login}@" if self.login else ""
        return ",".join(f"stomp://{login}127.0.0.1:{proxy.port}" for proxy in self.broker_proxies)

    @property
    def conninfo(self) -> str:
        hosts = ",".join("127.0.0.1" for _ in self.database_proxies)
        ports = ",".join(str(proxy.port) for proxy in self.database_proxies)
        return f"host={hosts} port={ports} user=postgres dbname={DATABASE} target_session_attrs=read-write"

    # The engine

    def start_engine(self, *, wait: bool = True) -> Engine:
        self.engine = Engine(
            self.queue_source, self.conninfo, *self.flags, log=self.directory / "log",
            environment=self.traces.environment,
        )  # fmt: skip
        self.engines_started += 1
        if not wait:
            # The health page of a new engine comes with its supervisor, and that with its children.
            self.wait_for(lambda: self.engine and self.engine.children(), "the engine has children")
        else:
            self.wait_for(self._is_ready, "the engine ready")
        return self.engine

    def _is_ready(self) -> bool:
        assert self.engine is not None
        assert self.engine.process.poll() is None, self.log()[-LOG_TAIL:]
        return bool(self.engine.status().get("health", {}).get("ready"))

    def child(self, name: str) -> int | None:
        assert self.engine is not None
        return self.engine.children().get(name)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not {what} in {timeout_s} s\n{self.log()[-LOG_TAIL:]}"
            time.sleep(0.01)

    def fail_over(self) -> None:
        """The standby becomes the primary; whoever was it before follows, from an empty directory."""
        assert self.standby is not None
        old, new = self.postgres, self.standby
        new.promote()
        self.postgres = new

        def follow() -> None:
            self.standby = Standby(old.directory, new, port=old.port)

        self.after_probe.append(follow)

    # Traffic

    @contextlib.contextmanager
    def flow(self, messages_per_s: float) -> Iterator[None]:
        """The stream runs beside what happens in the block."""
        self._flowing.set()
        self._flow = threading.Thread(target=self._send_on, args=(1 / messages_per_s,), daemon=True)
        self._flow.start()
        try:
            yield
        finally:
            self._stop_flow()

    def _send_on(self, pause_s: float) -> None:
        due_s = time.monotonic()
        for message in self.traffic:
            try:
                self.producer.send(message.id, message.body)
            except (BrokenPipeError, ValueError):
                return  # the world ends
            due_s += pause_s
            time.sleep(max(0.0, due_s - time.monotonic()))
            if not self._flowing.is_set():
                return

    def _stop_flow(self) -> None:
        self._flowing.clear()
        if self._flow is not None:
            self._flow.join(PATIENCE_S)
            self._flow = None

    def probe(self) -> float:
        """Seconds until a new catalog for each lane is in the database: how long an operator waits."""
        started_s = time.monotonic()
        certnames = []
        for _ in range(3 * LANES):
            self._probes += 1
            certname = f"probe{self._probes}.example.com"
            certnames.append(certname)
            body = dated(wire_body(certname, 1, [resource("/probe")]), self._probes)
            self.prober.send(f"p{self._probes}", body)
        self.wait_for(lambda: self._has(certnames), "probes stored")
        took_s = time.monotonic() - started_s
        while self.after_probe:
            self.after_probe.pop()()
        return took_s

    def _has(self, certnames: list[str]) -> bool:
        statement = "SELECT count(*) FROM catalogs JOIN nodes ON id = node_id WHERE certname = ANY (%s)"
        with contextlib.suppress(psycopg.Error), self.direct() as connection:
            row: Any = connection.execute(statement, [certnames]).fetchone()
            return bool(row[0] == len(certnames))
        return False

    @contextlib.contextmanager
    def direct(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection past the proxies, which a time limit of its own keeps from waiting for a lock."""
        opened = psycopg.connect(
            self.postgres.conninfo(DATABASE),
            autocommit=True,
            connect_timeout=5,
            options="-c statement_timeout=5000",
        )
        with contextlib.closing(opened):
            yield opened

    # The end

    def finish(self) -> audit.Verdict:
        """Stops the flow and the engine in order, then compares everything with the reference."""
        self._stop_flow()
        self.producer.finish(PATIENCE_S)
        self.prober.finish(PATIENCE_S)
        self.wait_for(lambda: audit.settled_all(self), "everything settled")
        assert self.engine is not None
        code = self.engine.stop()
        assert code == 0, f"exit code {code}\n{self.log()[-LOG_TAIL:]}"
        return audit.examine(self)

    def open_store(self) -> Connection:
        return connect(self.postgres.conninfo(DATABASE))


class Standby(Postgres):
    """A streaming replica that commits with its primary: what is acknowledged is on both."""

    def __init__(self, directory: Path, primary: Postgres, port: int | None = None) -> None:
        self.bin, self.directory, self.data = primary.bin, directory, directory / "data"
        self.port, self.process, self._as = port or free_port(), None, primary._as
        shutil.rmtree(self.data, ignore_errors=True)
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        subprocess.run(
            [self.bin / "pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast",
             "-d", f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby"],
            check=True, cwd=self.directory, capture_output=True, **self._as,  # type: ignore[call-overload]
        )  # fmt: skip
        self.start(hot_standby="on")
        primary.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        primary.execute("postgres", "SELECT pg_reload_conf()")

    def promote(self) -> None:
        self.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
        self.execute("postgres", "SELECT pg_reload_conf()")
        self.execute("postgres", "SELECT pg_promote(true, 30)")
