"""``ingest run``: puts the parts together, checks that they can work, and runs the supervisor."""

from __future__ import annotations

import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import msgspec
import structlog

from ingest.config.directories import make_data_dir
from ingest.config.settings import Config
from ingest.core.metrics import Metric
from ingest.embedded.broker.producers import (
    kept_login,
    producers_login,
    public_place,
    read_login,
    source_of_producers,
)
from ingest.embedded.broker.starting import BrokerOptions, embedded_broker
from ingest.embedded.postgresql import COLLECTOR, embedded_database
from ingest.engine.examination import require_settings
from ingest.engine.fleet import FleetNumbers
from ingest.engine.front import FrontChild
from ingest.engine.kinds import housekeeping as kinds_housekeeping
from ingest.engine.presence import tell_of_itself
from ingest.engine.running import told_of
from ingest.engine.supervisor import Supervisor
from ingest.engine.surroundings import require_free
from ingest.engine.usage import usage
from ingest.errors import IngestError, Misconfigured, Unavailable
from ingest.ipc.core_dumps import forbid_core_dumps
from ingest.ipc.names import SUPERVISOR
from ingest.observe.asking import where
from ingest.observe.exposition import Health, serve
from ingest.observe.fleet import FleetCollector
from ingest.observe.log import configure, resolve_format
from ingest.observe.server import UNIX
from ingest.store import housekeeping
from ingest.store.connection import (
    Connection,
    connect,
    hang_up,
    require_own_session,
    require_writable,
)
from ingest.store.migrate import let_in, migrate, note_on_open, require_current
from ingest.transport.protocol import connect_first

HOUSEKEEPING_TICK_S = 1.0  # how late a changed gc_interval_s may be noticed
HOUSEKEEPING_EARLY = 0.1  # of the interval: whoever comes so much before its time is not too early
DESCRIPTORS = 65536  # more than the engine ever needs, and no limit on what others may have
PLAIN = re.compile(
    r"[\w.-]+", re.ASCII
)  # a password that needs no quotes in a conninfo, nor in the Puppet module's file
LEAVE_TIMEOUT_S = 2.0  # for a last word to the other engines
DRAIN_FAILED = 7  # exit code: the time was up; nothing is lost, the broker has what was not settled


def run(config: Config, read_again: Callable[[], Config], retired: Sequence[str] = ()) -> int:
    """Runs the engine until a signal; returns the exit code. ``read_again`` reads the settings once more, for
    SIGHUP; ``retired`` are settings to warn of. Raises IngestError when it cannot start."""
    forbid_core_dumps()
    config = msgspec.structs.replace(config, log_format=resolve_format(config.log_format))
    configure(config.log_format, config.log_level, process=SUPERVISOR)
    for line in retired:
        structlog.get_logger().warning("setting_retired", note=line)
    raise_descriptor_limit()
    require_free(config)
    with ExitStack() as stack:
        asked = config
        config = add_embedded(config, stack)
        prepare_database(config)
        collectors = "" if asked.database else admit_collectors(config)
        connect_first(config).close()
        supervisor = Supervisor(config, lambda: _completed(read_again(), config))
        fleet = FleetNumbers(lambda: supervisor.config)
        health = supervisor.health
        if config.listen:
            front = FrontChild(config, supervisor.health, supervisor.count)
            stack.callback(front.stop)
            front.start()
            health = front.health
        if config.metrics_port or config.metrics_host.startswith(UNIX):
            _serve_metrics(config, supervisor, health, stack, FleetCollector(fleet.current))
        stack.enter_context(
            told_of(config, "" if asked.queue_source else source_of_producers(config), collectors)
        )
        stop = threading.Event()
        threading.Thread(target=fleet.run, args=(stop,), daemon=True).start()
        keeper = threading.Thread(target=keep_house, args=(stop, supervisor), daemon=True)
        keeper.start()
        teller = threading.Thread(target=tell_of_itself, args=(stop, supervisor), daemon=True)
        teller.start()
        try:
            drained = supervisor.run()
        finally:
            stop.set()
            teller.join(LEAVE_TIMEOUT_S)
        return 0 if drained else DRAIN_FAILED


def _completed(wanted: Config, running: Config) -> Config:
    """Settings read again, with what this run had worked out: embedded parts, the format of the log.
    Raises Misconfigured."""
    require_settings(wanted)
    return msgspec.structs.replace(
        wanted,
        queue_source=wanted.queue_source or running.queue_source,
        database=wanted.database or running.database,
        log_format=resolve_format(wanted.log_format),
    )


def add_embedded(config: Config, stack: ExitStack) -> Config:
    """Starts the embedded broker and database where none is named."""
    log = structlog.get_logger()
    if not (config.queue_source and config.database):
        make_data_dir(Path(config.data_dir))
    if not config.queue_source:
        options = BrokerOptions(
            Path(config.data_dir) / "broker",
            config.embedded_broker_disk_bytes_max,
            producers_login(Path(config.data_dir)),
            public_place(config),
            config.log_format,
            config.log_level,
            config.destinations,
        )
        url = stack.enter_context(embedded_broker(config.embedded_broker_port, options))
        log.warning(
            "embedded_broker",
            url=url,
            directory=str(options.directory),
            note="on this machine's disk alone: name a real one with --queue-source for more than one box",
        )
        config = msgspec.structs.replace(config, queue_source=url)
    if not config.database:
        directory = Path(config.data_dir) / "postgresql"
        uri = stack.enter_context(embedded_database(directory, port=config.embedded_database_port))
        log.warning(
            "embedded_database",
            directory=str(directory),
            conninfo=uri,
            note="for evaluation: name a real one with --database",
        )
        config = msgspec.structs.replace(config, database=uri)
    return config


def open_database(config: Config, *, writes: bool = True) -> Connection:
    """A connection for a command of a person. Raises Misconfigured for a database that it could not work on."""
    connection = connect(
        config.database,
        connect_timeout_s=config.connect_timeout_s,
        statement_timeout_s=config.statement_timeout_s,
        lock_timeout_s=config.lock_timeout_s,
    )
    try:
        require_own_session(connection, config.database, config.connect_timeout_s)
        if writes:
            require_writable(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def prepare_database(config: Config) -> None:
    """Migrates, or demands the current schema."""
    log = structlog.get_logger()
    connection = open_database(config)
    try:
        if config.migrate:
            migrate(connection, lambda line: log.info("migrated", step=line))
        else:
            require_current(connection)
        home = connection.pinned.home
        if home.is_open:
            log.warning("schema_open_to_others", schema=home.schema, note=note_on_open(home))
    finally:
        connection.close()


def admit_collectors(config: Config) -> str:
    """Lets this machine's Puppet server ask the embedded database over TCP, where that has a port; the conninfo for it."""
    if not config.embedded_database_port:
        return ""
    file = kept_login(Path(config.data_dir) / "collector-login", COLLECTOR)
    login = read_login(file)
    if not PLAIN.fullmatch(login.passcode):
        raise Misconfigured(
            "--data-dir", f"the password in {file} has other characters than letters, digits, _, . and -"
        )
    connection = open_database(config)
    try:
        let_in(connection, COLLECTOR, login.passcode)
    finally:
        connection.close()
    return (
        f"host=127.0.0.1 port={config.embedded_database_port} dbname=postgres user={COLLECTOR} "
        f"password={login.passcode}"
    )


def _serve_metrics(
    config: Config,
    supervisor: Supervisor,
    health: Callable[[], Health],
    stack: ExitStack,
    fleet: FleetCollector,
) -> None:
    names = config.metrics_names.replace(",", " ").split()
    try:
        server = serve(
            config.metrics_host,
            config.metrics_port,
            supervisor.metrics,
            supervisor.names,
            health,
            [*names, config.metrics_host, socket.gethostname()],
            [fleet],
            lambda: usage(supervisor.children.values()),
        )
    except (OSError, ValueError) as error:
        raise Misconfigured(
            "--metrics-host" if config.metrics_host.startswith(UNIX) else "--metrics-port",
            f"cannot listen on {where(config)}: {getattr(error, 'strerror', None) or error}; "
            "--metrics-port 0 with an address serves no metrics",
        ) from error
    stack.callback(server.close)


def raise_descriptor_limit() -> None:
    """As many descriptors as this process may have: the usual soft limit of 1024 is for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def keep_house(stop: threading.Event, supervisor: Supervisor) -> None:
    """Garbage, expiry and purging in the background, once every ``gc_interval_s`` by whichever of the instances comes first."""
    log = structlog.get_logger()
    last_s = time.monotonic()
    while not stop.wait(HOUSEKEEPING_TICK_S):
        config = supervisor.config  # it may have been read again
        if not config.gc_interval_s or time.monotonic() - last_s < config.gc_interval_s:
            continue
        last_s = time.monotonic()
        try:
            connection = open_database(config)
            # A server that keeps silent shall not end housekeeping for good.
            silence = threading.Timer(
                max(config.gc_interval_s, config.database_patience_s), hang_up, [connection]
            )
            silence.daemon = True
            silence.start()
            try:
                interval = timedelta(seconds=config.gc_interval_s * (1 - HOUSEKEEPING_EARLY))
                if not housekeeping.take(connection, interval):
                    continue
                deleted = keep_house_once(config, connection)
            finally:
                silence.cancel()
                connection.close()
        except (Unavailable, IngestError) as error:
            log.warning("housekeeping_postponed", reason=str(error))
            continue
        supervisor.count(Metric.COLLECTED, sum(deleted.values()))
        log.info("housekeeping", **deleted)


def keep_house_once(config: Config, connection: Connection) -> dict[str, int]:
    """One round; what it did, by name."""
    settings = housekeeping.HousekeepingSettings(
        node_ttl=timedelta(seconds=config.node_ttl_s) or None,
        node_purge_ttl=timedelta(seconds=config.node_purge_ttl_s) or None,
        future_tolerance=timedelta(seconds=config.future_tolerance_s),
        report_ttl=timedelta(seconds=config.report_ttl_s) or None,
        resource_events_ttl=timedelta(seconds=config.resource_events_ttl_s),
    )
    done: dict[str, int] = {}
    if config.quarantine_ttl_s:
        done["quarantine_forgotten"] = housekeeping.forget_quarantined(
            connection, timedelta(seconds=config.quarantine_ttl_s)
        )
    housekeeping.forget_engines(connection)
    for keep in kinds_housekeeping():
        done |= keep(connection, settings)
    return done
