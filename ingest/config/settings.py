"""The settings, each declared once: flags, variables, keys of ingest.toml and what ``ingest config`` prints are made from it."""

from __future__ import annotations

import os
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import msgspec
import platformdirs

from ingest.config.about import About
from ingest.config.front_settings import FrontSettings

MIB = 1024 * 1024
TIB = MIB * MIB  # more than any machine has: the upper end of what is a typing error
DAY_S = 86400.0


class Config(FrontSettings, frozen=True, kw_only=True):
    """Every setting by its name, with its unit at the end."""

    queue_type: Annotated[str, About("the transport, by its registered name")] = "stomp"
    queue_source: Annotated[
        str,
        About(
            "the brokers, stomp://user:password@host:port or stomp+ssl://...; several, separated by commas, "
            "are failover; empty starts the embedded broker, for evaluation",
            is_secret=True,
            reloads=True,
        ),
    ] = ""
    queue_password_file: Annotated[
        str,
        About(
            "its first line is the password of each user whom queue_source names without one; read again at SIGHUP",
            reloads=True,
        ),
    ] = ""
    destination: Annotated[str, About("the queue; the name that Puppet has always used")] = "/queue/catalog"
    database: Annotated[
        str,
        About(
            "a libpq conninfo or URI; empty starts the embedded PostgreSQL, for evaluation",
            is_secret=True,
            reloads=True,
        ),
    ] = ""
    workers: Annotated[int, About("decoder processes; one a core", 1, 256)] = os.cpu_count() or 1
    writers: Annotated[int, About("writer processes, each with one connection to the database", 1, 64)] = 2
    window_messages_max: Annotated[
        int, About("unsettled messages; ActiveMQ's own default prefetch", 1, 65535)
    ] = 1000
    window_bytes_max: Annotated[
        int, About("shared memory for unsettled bodies; about 180 large catalogs", MIB, TIB)
    ] = 256 * MIB
    body_bytes_max: Annotated[
        int, About("one body; twenty times the largest real catalog seen", 1024, TIB)
    ] = 64 * MIB
    batch_messages_max: Annotated[int, About("messages in one transaction", 1, 1000, reloads=True)] = 100
    batch_bytes_max: Annotated[int, About("bytes of work in one transaction", 1024, TIB, reloads=True)] = (
        8 * MIB
    )
    batch_linger_ms: Annotated[
        float,
        About("how long a batch waits for company, unless it comes after a pause", 0, 10_000, reloads=True),
    ] = 20.0
    drain_timeout_s: Annotated[
        float, About("how long SIGTERM lets the engine finish", 0, 3600, reloads=True)
    ] = 30.0
    heartbeat_s: Annotated[
        float, About("STOMP heart-beats, both ways; 0 asks for none", 0, 600, reloads=True)
    ] = 10.0
    connect_timeout_s: Annotated[
        float, About("until a broker or database must have answered", 0.1, 300, reloads=True)
    ] = 5.0
    hold_s: Annotated[
        float,
        About(
            "how long a delivery may stay unacknowledged before the engine lets go of all; "
            "RabbitMQ closes the channel after 1800",
            1,
            DAY_S,
            reloads=True,
        ),
    ] = 1200.0
    statement_timeout_s: Annotated[float, About("one SQL statement", 1, 3600, reloads=True)] = 60.0
    commit_timeout_s: Annotated[
        float,
        About(
            "until COMMIT must be over, which includes the wait for a synchronous standby; then the outcome is unknown, "
            "nothing is acknowledged, and the other hosts of the conninfo come first",
            0.1,
            3600,
            reloads=True,
        ),
    ] = 5.0
    lock_timeout_s: Annotated[float, About("waiting for one lock", 0.1, 3600, reloads=True)] = 30.0
    backoff_max_s: Annotated[
        float,
        About("the longest pause between two tries to reach a broker or database", 0.05, 300, reloads=True),
    ] = 2.0
    decode_cpu_max_s: Annotated[
        float, About("CPU time of one message in a decoder, before it is killed", 0.5, 3600, reloads=True)
    ] = 30.0
    decode_memory_bytes_max: Annotated[int, About("what a decoder may allocate", 64 * MIB, TIB)] = 1024 * MIB
    decoder_cache_bytes_max: Annotated[
        int, About("each decoder's memory of resources it has met", MIB, TIB)
    ] = 96 * MIB
    writer_cache_entries: Annotated[
        int, About("ids that each writer remembers, about 150 bytes each", 1000, 100_000_000)
    ] = 400_000
    deaths_max: Annotated[
        int,
        About(
            "processes that may die with one message in their hands before it is tried alone, and quarantined "
            "when another one dies of it",
            1,
            100,
        ),
    ] = 2
    alone_after_s: Annotated[
        float,
        About(
            "how long such a message waits before it is tried alone: whoever killed those processes by chance "
            "has gone by then",
            0,
            600,
        ),
    ] = 10.0
    gc_interval_s: Annotated[float, About("garbage collection; 0: never", 0, 30 * DAY_S, reloads=True)] = (
        3600.0
    )
    node_ttl_s: Annotated[
        float,
        About(
            "nodes silent for that long expire (PuppetDB's node-ttl); 0: never", 0, 3650 * DAY_S, reloads=True
        ),
    ] = 0.0
    node_purge_ttl_s: Annotated[
        float,
        About(
            "expired and deactivated nodes are deleted after that long "
            "(PuppetDB's node-purge-ttl, 14 days); 0: never",
            0,
            3650 * DAY_S,
            reloads=True,
        ),
    ] = 14 * DAY_S
    future_tolerance_s: Annotated[
        float,
        About(
            "a timestamp that is further ahead of the clock than that (a day) counts as the time of receipt, so that "
            "no wrong clock shuts a node out",
            0,
            3650 * DAY_S,
            reloads=True,
        ),
    ] = DAY_S
    quarantine_bytes_max: Annotated[
        int,
        About(
            "bodies kept in quarantine; beyond it the oldest of the producer that has most there are dropped: "
            "the newest catalogs of 3000 nodes take about half of it",
            MIB,
            TIB,
            reloads=True,
        ),
    ] = 1024 * MIB
    quarantine_rows_max: Annotated[
        int,
        About(
            "rows in quarantine, one for each node and reason: three for each of 6000 nodes",
            100,
            10**7,
            reloads=True,
        ),
    ] = 20_000
    quarantine_unnamed_max: Annotated[
        int,
        About(
            "messages in quarantine that name no node, of one producer and for one reason; the oldest are "
            "counted and dropped",
            1,
            10_000,
            reloads=True,
        ),
    ] = 100
    quarantine_ttl_s: Annotated[
        float,
        About(
            "quarantined messages are kept for that long (30 days); 0: for ever",
            0,
            3650 * DAY_S,
            reloads=True,
        ),
    ] = 30 * DAY_S
    producers_file: Annotated[
        str,
        About(
            "a TOML file that says which publishers may speak for which nodes (docs/security.md); "
            "empty: any publisher for any node",
            reloads=True,
        ),
    ] = ""
    producer_header: Annotated[
        str,
        About(
            "the header in which the broker tells who published, for producers_file; empty: user-id at RabbitMQ, "
            "JMSXUserID at ActiveMQ, _AMQ_VALIDATED_USER at Artemis",
            reloads=True,
        ),
    ] = ""
    thin_storeconfigs: Annotated[
        bool, About("store exported resources only, as Puppet's setting of that name")
    ] = False
    metrics_host: Annotated[
        str,
        About("where /metrics, /healthz and /readyz are served; unix:/PATH is a socket for owner and group"),
    ] = "127.0.0.1"
    metrics_port: Annotated[
        int, About("0: nowhere; 9464 is what OpenTelemetry's exporter of Prometheus text uses", 0, 65535)
    ] = 9464
    metrics_names: Annotated[
        str,
        About(
            "names under which scrapers ask for them, separated by commas; addresses, localhost and this "
            "machine's own name are always answered"
        ),
    ] = ""
    log_format: Annotated[
        str, About("console, json, or what fits the terminal", choices=("auto", "console", "json"))
    ] = "auto"
    log_level: Annotated[
        str,
        About(
            "the least important events to show", choices=("debug", "info", "warning", "error"), reloads=True
        ),
    ] = "info"
    migrate: Annotated[bool, About("bring the database to this program's schema at the start")] = True
    tls_ca_file: Annotated[
        str, About("certificates that a stomp+ssl broker may be signed by; empty: the system's", reloads=True)
    ] = ""
    tls_cert_file: Annotated[
        str, About("our own certificate, for brokers that ask for one", reloads=True)
    ] = ""
    tls_key_file: Annotated[str, About("its key", reloads=True)] = ""
    tls_verify: Annotated[bool, About("check the broker's certificate and name", reloads=True)] = True
    data_dir: Annotated[str, About("where the embedded PostgreSQL lives")] = platformdirs.user_data_dir(
        "puppet-ingest"
    )

    @property
    def database_patience_s(self) -> float:
        """How long a transaction may take before the server counts as gone: PostgreSQL itself ends each statement in
        time, and of one transaction two slow ones are two too many."""
        return 2 * self.statement_timeout_s + self.lock_timeout_s


class Setting(NamedTuple):
    """A field of ``Config`` with what is said about it."""

    name: str
    type: type
    default: Any
    about: About

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"INGEST_{self.name.upper()}"


def _settings() -> tuple[Setting, ...]:
    hints = get_type_hints(Config, include_extras=True)
    fields = msgspec.structs.fields(Config)
    return tuple(Setting(field.name, *_annotated(hints[field.name], field.default)) for field in fields)


def _annotated(hint: Any, default: Any) -> tuple[type, Any, About]:
    type_, about = get_args(hint)
    return type_, default, about


# Settings of the version before: read, told of, and without effect.
RETIRED = {
    "quarantine_messages_max": "the engine no longer stops: see quarantine_bytes_max and quarantine_rows_max",
    "quarantine_per_minute_max": "the engine no longer stops: what is too much is thinned out and counted",
}
SETTINGS = _settings()
