"""Looks at everything that ``ingest run`` needs before it is started, and while it runs: broker, database, machine.

It changes nothing, takes no message and starts nothing. What ``ingest run`` refuses at its start is refused here by the same
functions.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

from ingest.config.address import split_address
from ingest.config.planned import load_plan
from ingest.config.producers import load_producer_rules
from ingest.config.settings import Config
from ingest.embedded.broker.producers import public_place
from ingest.engine.examining_cluster import (
    examine_hosts,
    examine_replica,
    member_findings,
    version_findings,
)
from ingest.engine.examining_queues import examine_queues, silence_findings
from ingest.engine.finding import Finding, State, found_wrong, wrong
from ingest.engine.running import require_instance
from ingest.engine.surroundings import (
    Surroundings,
    examine_embedded_broker,
    examine_machine,
    require_directory,
)
from ingest.errors import IngestError
from ingest.store.connection import (
    Connection,
    connect,
    require_conninfo,
    require_own_session,
    require_writable,
)
from ingest.store.engines import at_work
from ingest.store.examining import Server, examine, examine_member, named
from ingest.transport.protocol import Broker, brokers

CLOCK_NOTE_S, CLOCK_WRONG_S = 1.0, 5.0  # NTP keeps milliseconds; freshness is told in seconds
EXTRA_CONNECTIONS = 3  # housekeeping, ``ingest engine``, a command
COUNTS_FROM = 4  # RabbitMQ's version from which its quorum queues drop what was delivered more than 20 times


def require_settings(config: Config) -> None:
    """What can be told of the settings before anything is started. Raises Misconfigured."""
    require_instance(config.instance)
    brokers(config)
    if config.database:
        require_conninfo(config.database)
    load_producer_rules(config.producers_file)
    load_plan(config.plan_file)
    if config.listen:
        split_address(config.listen)
    if not config.queue_source:
        public_place(config)
    if not (config.queue_source and config.database):
        require_directory(config.data_dir)


def examine_all(
    config: Config, surroundings: Surroundings, at_work: Config | None = None
) -> Iterator[Finding]:
    """Findings in the order in which a person would mend them. ``at_work``: with the embedded parts of the engine that runs
    here, where it does."""
    try:
        require_instance(config.instance)
        load_producer_rules(config.producers_file)
        load_plan(config.plan_file)
        if config.listen:
            split_address(config.listen)
        if not config.queue_source:
            public_place(config)
    except IngestError as error:
        yield found_wrong("settings", error)
    yield from examine_machine(config, surroundings)
    yield from _examine_brokers(at_work or config)
    yield from _examine_databases(at_work or config, surroundings)


def _examine_brokers(config: Config) -> Iterator[Finding]:
    if not config.queue_source:
        yield examine_embedded_broker(config)
        return
    try:
        listed = brokers(config)
    except IngestError as error:
        yield found_wrong("broker", error)
        return
    yield from silence_findings(config.heartbeat_s, len(listed))
    rabbits = []
    for broker in listed:
        server = yield from _examine_broker(broker, config)
        if server.casefold().startswith("rabbitmq/"):
            rabbits.append(broker)
    if rabbits:
        yield from examine_queues(rabbits[0], config.taken, len(listed))


def _examine_broker(broker: Broker, config: Config) -> Generator[Finding, None, str]:
    """Returns what it calls itself."""
    try:
        link = broker.connect()
    except IngestError as error:
        yield found_wrong("broker", error)
        return ""
    server = link.server
    protocol = link.protocol
    link.close()
    yield Finding("broker", State.OK, f"{broker}: {server or 'it does not say what it is'}, {protocol}")
    name, _, version = server.partition("/")
    major = version.partition(".")[0]
    if name.casefold() == "rabbitmq" and major.isdigit() and int(major) >= COUNTS_FROM:
        yield Finding(
            "broker",
            State.NOTE,
            f"{server} drops what a quorum queue has delivered more than its delivery-limit, 20 where none is set",
            "give the queue a dead-letter target and leave the limit at 20 or more: rabbitmqctl set_policy ingest "
            f"'^{config.destination.rpartition('/')[2]}$' '{{\"delivery-limit\":100}}' --apply-to quorum_queues",
            "--destination",
        )
    return server


def _examine_databases(config: Config, surroundings: Surroundings) -> Iterator[Finding]:
    if not config.database:
        yield Finding("database", State.OK, "none is named: 'ingest run' starts the embedded one")
        return
    yield from examine_hosts(config.database, partial(_open, config))
    try:
        connection = _open(config, config.database)
    except IngestError as error:
        yield found_wrong("database", error)
        return
    try:
        require_own_session(connection, config.database, config.connect_timeout_s)
        require_writable(connection)
        sent_s = surroundings.now_s()
        server = examine(connection)
        late_s = surroundings.now_s() - sent_s
        member, engines = examine_member(connection), at_work(connection)
    except IngestError as error:
        yield found_wrong("database", error)
        return
    finally:
        connection.close()
    yield Finding(
        "database", State.OK, f"PostgreSQL {server.version}, database {server.database}, role {server.role}"
    )
    yield from schema_findings(server, config)
    yield from server_findings(server, config)
    yield clock_finding(server.now_s - sent_s, late_s)
    yield from member_findings(member, len(named(config.database)[0]))
    yield from version_findings(engines, version("puppet-ingest"))
    if config.http_database:
        yield from examine_replica(config.http_database, member, partial(_open, config))


def _open(config: Config, conninfo: str) -> Connection:
    return connect(
        conninfo,
        application_name="ingest doctor",
        connect_timeout_s=config.connect_timeout_s,
        statement_timeout_s=config.connect_timeout_s,
        lock_timeout_s=config.connect_timeout_s,
    )


def schema_findings(server: Server, config: Config) -> Iterator[Finding]:
    """Whether the schema is this program's, and this role may work on it."""
    if server.schema > server.schema_wanted:
        text = f"the database has schema {server.schema}, this program knows {server.schema_wanted}"
        yield wrong("schema", text, "install the newer program that migrated it", "--database")
    elif server.schema < server.schema_wanted:
        missing = f"schema {server.schema}, this program needs {server.schema_wanted}"
        if config.migrate and server.may_create:
            yield Finding("schema", State.NOTE, missing, "nothing: 'ingest run' migrates it at its start")
        else:
            yield wrong(
                "schema",
                f"{missing}, and this role may not or shall not migrate it",
                "run 'ingest migrate' as the owner of the schema",
                "--migrate",
            )
    else:
        yield Finding("schema", State.OK, f"schema {server.schema}")
    if server.lacking or not server.may_stage:
        lacking = [*server.lacking, *([] if server.may_stage else ["temporary tables"])]
        yield wrong(
            "rights",
            f"role {server.role} may not write to {', '.join(lacking)}",
            f"as the owner of the schema: ingest migrate --grant-to {server.role}",
            "--database",
        )
    else:
        yield Finding("rights", State.OK, f"role {server.role} may do what 'ingest run' does")


def server_findings(server: Server, config: Config) -> Iterator[Finding]:
    """What the server has for us, and keeps."""
    needed = config.writers + EXTRA_CONNECTIONS - server.engines
    if server.connections_left < needed:
        yield wrong(
            "connections",
            f"{server.connections_left} are left for this role, and {needed} are needed for {config.writers} writers",
            "raise max_connections (and the CONNECTION LIMIT of role and database), or lower writers",
            "--writers",
        )
    else:
        yield Finding(
            "connections", State.OK, f"{server.connections_left} are left, {max(needed, 0)} are needed"
        )
    if not server.is_crash_safe:
        yield wrong(
            "durability",
            "fsync or full_page_writes is off: a crash of the server's machine loses what was acknowledged",
            "ALTER SYSTEM SET fsync = on; SET full_page_writes = on; pg_reload_conf()",
        )


def clock_finding(ahead_s: float, late_s: float) -> Finding:
    """``ahead_s``: the server's clock against ours when the question was sent; ``late_s``: until it was answered."""
    if -CLOCK_NOTE_S <= ahead_s <= CLOCK_NOTE_S + late_s:
        return Finding("clock", State.OK, "as the database server's")
    off_s = abs(ahead_s)
    state = State.WRONG if off_s > CLOCK_WRONG_S + late_s else State.NOTE
    return Finding(
        "clock",
        state,
        f"this machine's is {off_s:.1f} s {'behind' if ahead_s > 0 else 'ahead of'} the database server's",
        "set both by NTP: timedatectl set-ntp true; chronyc tracking tells who is wrong",
    )


def as_json(findings: list[Finding]) -> dict[str, Any]:
    return {
        "ok": all(finding.state in (State.OK, State.NOTE) for finding in findings),
        "findings": [
            {name: str(getattr(finding, name)) for name in Finding.__struct_fields__} for finding in findings
        ],
    }
