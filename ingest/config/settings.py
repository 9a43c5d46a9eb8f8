"""The settings, each declared once: flags, variables, keys of ingest.toml and what ``ingest config`` prints are made from it."""

from __future__ import annotations

from typing import Annotated

import platformdirs
from msgspec import Meta

from ingest.config.process_settings import ProcessSettings
from ingest.config.setting import About, settings_of

MIB = 1024 * 1024
TIB = MIB * MIB  # more than any machine has: the upper end of what is a typing error
DAY_S = 86400.0


class Config(ProcessSettings, frozen=True, kw_only=True):
    """Every setting by its name, with its unit at the end."""

    database: Annotated[
        str,
        About(
            "a libpq conninfo or URI; empty starts the embedded PostgreSQL, for evaluation",
            is_secret=True,
            reloads=True,
        ),
    ] = ""
    batch_messages_max: Annotated[
        int, Meta(ge=1, le=1000), About("messages in one transaction", reloads=True)
    ] = 100
    batch_bytes_max: Annotated[
        int, Meta(ge=1024, le=TIB), About("bytes of work in one transaction", reloads=True)
    ] = 8 * MIB
    batch_linger_ms: Annotated[
        float,
        Meta(ge=0, le=10_000),
        About("how long a batch waits for company, unless it comes after a pause", reloads=True),
    ] = 20.0
    drain_timeout_s: Annotated[
        float, Meta(ge=0, le=3600), About("how long SIGTERM lets the engine finish", reloads=True)
    ] = 30.0
    heartbeat_s: Annotated[
        float, Meta(ge=0, le=600), About("STOMP heart-beats, both ways; 0 asks for none", reloads=True)
    ] = 10.0
    connect_timeout_s: Annotated[
        float, Meta(ge=0.1, le=300), About("until a broker or database must have answered", reloads=True)
    ] = 5.0
    hold_s: Annotated[
        float,
        Meta(ge=1, le=DAY_S),
        About(
            "how long a delivery may stay unacknowledged before the engine lets go of all; "
            "RabbitMQ closes the channel after 1800",
            reloads=True,
        ),
    ] = 1200.0
    statement_timeout_s: Annotated[float, Meta(ge=1, le=3600), About("one SQL statement", reloads=True)] = (
        60.0
    )
    commit_timeout_s: Annotated[
        float,
        Meta(ge=0.1, le=3600),
        About(
            "until COMMIT must be over, which includes the wait for a synchronous standby; then the outcome is unknown, "
            "nothing is acknowledged, and the other hosts of the conninfo come first",
            reloads=True,
        ),
    ] = 5.0
    lock_timeout_s: Annotated[float, Meta(ge=0.1, le=3600), About("waiting for one lock", reloads=True)] = (
        30.0
    )
    backoff_max_s: Annotated[
        float,
        Meta(ge=0.05, le=300),
        About("the longest pause between two tries to reach a broker or database", reloads=True),
    ] = 2.0
    gc_interval_s: Annotated[
        float, Meta(ge=0, le=30 * DAY_S), About("garbage collection; 0: never", reloads=True)
    ] = 3600.0
    node_ttl_s: Annotated[
        float,
        Meta(ge=0, le=3650 * DAY_S),
        About("nodes silent for that long expire (PuppetDB's node-ttl); 0: never", reloads=True),
    ] = 0.0
    facts_blocklist: Annotated[
        str,
        About(
            "facts and parts of facts that are never stored, in ingest.toml a list: mountpoints.*.available_bytes, "
            '"a.b".c, ~^ec2_ (a regular expression)'
        ),
    ] = ""
    facts_volatile: Annotated[
        str, About("the same for what changes with every run, beside what Facter is known for")
    ] = ""
    report_ttl_s: Annotated[
        float,
        Meta(ge=0, le=3650 * DAY_S),
        About(
            "reports are kept for that long (PuppetDB's report-ttl, 14 days), by whole days; 0: for ever",
            reloads=True,
        ),
    ] = 14 * DAY_S
    resource_events_ttl_s: Annotated[
        float,
        Meta(ge=0, le=3650 * DAY_S),
        About(
            "their events are kept for that long (PuppetDB's resource-events-ttl), by whole days and no longer than the "
            "reports; 0: none is stored",
            reloads=True,
        ),
    ] = 3650 * DAY_S
    node_purge_ttl_s: Annotated[
        float,
        Meta(ge=0, le=3650 * DAY_S),
        About(
            "expired and deactivated nodes are deleted after that long "
            "(PuppetDB's node-purge-ttl, 14 days); 0: never",
            reloads=True,
        ),
    ] = 14 * DAY_S
    future_tolerance_s: Annotated[
        float,
        Meta(ge=0, le=3650 * DAY_S),
        About(
            "a timestamp that is further ahead of the clock than that (a day) counts as the time of receipt, so that "
            "no wrong clock shuts a node out",
            reloads=True,
        ),
    ] = DAY_S
    quarantine_bytes_max: Annotated[
        int,
        Meta(ge=MIB, le=TIB),
        About(
            "bodies kept in quarantine; beyond it the oldest of the producer that has most there are dropped: "
            "the newest catalogs of 3000 nodes take about half of it",
            reloads=True,
        ),
    ] = 1024 * MIB
    quarantine_rows_max: Annotated[
        int,
        Meta(ge=100, le=10**7),
        About("rows in quarantine, one for each node and reason: three for each of 6000 nodes", reloads=True),
    ] = 20_000
    quarantine_unnamed_max: Annotated[
        int,
        Meta(ge=1, le=10_000),
        About(
            "messages in quarantine that name no node, of one producer and for one reason; the oldest are "
            "counted and dropped",
            reloads=True,
        ),
    ] = 100
    quarantine_ttl_s: Annotated[
        float,
        Meta(ge=0, le=3650 * DAY_S),
        About("quarantined messages are kept for that long (30 days); 0: for ever", reloads=True),
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
        int,
        Meta(ge=0, le=65535),
        About("0: nowhere; 9464 is what OpenTelemetry's exporter of Prometheus text uses"),
    ] = 9464
    metrics_names: Annotated[
        str,
        About(
            "names under which scrapers ask for them, separated by commas; addresses, localhost and this "
            "machine's own name are always answered"
        ),
    ] = ""
    plan_file: Annotated[
        str,
        About(
            "a plan that 'ingest capacity --output FILE.json' wrote: 'ingest status', 'ingest top' and the live page say how "
            "much of it the fleet uses; empty: how busy the processes are"
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
    instance: Annotated[str, About("the engine's name on this machine, by which commands find it")] = "main"
    embedded_broker_disk_bytes_max: Annotated[
        int,
        Meta(ge=1024 * MIB, le=1024 * TIB),
        About(
            "what the embedded broker's files may take; a third is for messages, over it publishers are refused"
        ),
    ] = 10 * 1024 * MIB
    embedded_database_port: Annotated[
        int,
        Meta(ge=0, le=65535),
        About(
            "a port on 127.0.0.1 where the embedded PostgreSQL answers collectors of this machine's Puppet server; 0: none"
        ),
    ] = 0
    data_dir: Annotated[str, About("where the embedded broker and PostgreSQL keep what they have")] = (
        platformdirs.user_data_dir("puppet-ingest")
    )

    @property
    def database_patience_s(self) -> float:
        """How long a transaction may take before the server counts as gone: PostgreSQL itself ends each statement in
        time, and of one transaction two slow ones are two too many."""
        return 2 * self.statement_timeout_s + self.lock_timeout_s


# Settings of the version before: read, told of, and without effect.
RETIRED = {
    "quarantine_messages_max": "the engine no longer stops: see quarantine_bytes_max and quarantine_rows_max",
    "quarantine_per_minute_max": "the engine no longer stops: what is too much is thinned out and counted",
}
SETTINGS = settings_of(Config)
