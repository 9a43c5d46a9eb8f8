"""The settings: one frozen object from defaults < puppet.conf < ingest.toml < environment < flags.

SETTINGS declares each one once; flags, variables, keys and what ``ingest config`` prints are made from it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import platformdirs

from ingest.errors import Misconfigured

MIB = 1024 * 1024
DEFAULT_TOML = Path("ingest.toml")


class Setting(NamedTuple):
    """One setting; ``help`` says what it is for and why the default is what it is."""

    name: str
    type: type
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


SETTINGS = (
    Setting("queue_type", str, "stomp", "the transport, by its registered name"),
    Setting("queue_source", str, "", "the brokers, stomp://user:password@host:port or stomp+ssl://...; several, "
            "separated by commas, are failover; empty starts the embedded broker, for evaluation"),
    Setting("destination", str, "/queue/catalog", "the queue; the name that Puppet has always used"),
    Setting("database", str, "", "a libpq conninfo or URI; empty starts the embedded PostgreSQL, for evaluation"),
    Setting("workers", int, os.cpu_count() or 1, "decoder processes; one a core", 1, 256),
    Setting("writers", int, 2, "writer processes, each with one connection to the database", 1, 64),
    Setting("window_messages_max", int, 1000, "unsettled messages; ActiveMQ's own default prefetch", 1, 65535),
    Setting("window_bytes_max", int, 256 * MIB, "shared memory for unsettled bodies; about 180 large catalogs", MIB),
    Setting("body_bytes_max", int, 64 * MIB, "one body; twenty times the largest real catalog seen", 1024),
    Setting("batch_messages_max", int, 100, "messages in one transaction", 1, 1000),
    Setting("batch_bytes_max", int, 8 * MIB, "bytes of work in one transaction", 1024),
    Setting("batch_linger_ms", float, 20.0, "how long a batch waits for company", 0, 10_000),
    Setting("drain_timeout_s", float, 30.0, "how long SIGTERM lets the engine finish", 0, 3600),
    Setting("heartbeat_s", float, 10.0, "STOMP heart-beats, both ways; 0 asks for none", 0, 600),
    Setting("connect_timeout_s", float, 5.0, "until a broker or database must have answered", 0.1, 300),
    Setting("hold_s", float, 1200.0, "how long a delivery may stay unacknowledged before the engine lets go of all; "
            "RabbitMQ closes the channel after 1800", 1),
    Setting("statement_timeout_s", float, 60.0, "one SQL statement", 1, 3600),
    Setting("lock_timeout_s", float, 30.0, "waiting for one lock", 0.1, 3600),
    Setting("backoff_max_s", float, 2.0, "the longest pause between two tries to reach a broker or database", 0.05, 300),
    Setting("decode_cpu_max_s", float, 30.0, "one message in one decoder, before it is killed", 0.5, 3600),
    Setting("decode_memory_bytes_max", int, 1024 * MIB, "what a decoder may allocate", 64 * MIB),
    Setting("decoder_cache_bytes_max", int, 64 * MIB, "each decoder's memory of resources it has met", MIB),
    Setting("writer_cache_entries", int, 400_000, "ids that each writer remembers, about 150 bytes each", 1000),
    Setting("deaths_max", int, 2, "processes that may die of one message before it is quarantined", 1, 100),
    Setting("gc_interval_s", float, 3600.0, "garbage collection; 0: never", 0),
    Setting("node_ttl_s", float, 0.0, "nodes silent for that long expire (PuppetDB's node-ttl); 0: never", 0),
    Setting("node_purge_ttl_s", float, 1_209_600.0, "expired and deactivated nodes are deleted after that long "
            "(PuppetDB's node-purge-ttl, 14 days); 0: never", 0),
    Setting("quarantine_ttl_s", float, 2_592_000.0, "quarantined messages are kept for that long (30 days); 0: for ever", 0),
    Setting("thin_storeconfigs", bool, False, "store exported resources only, as Puppet's setting of that name"),
    Setting("metrics_host", str, "127.0.0.1", "where /metrics, /healthz and /readyz are served"),
    Setting("metrics_port", int, 9464, "0: nowhere; 9464 is what OpenTelemetry's exporter of Prometheus text uses", 0, 65535),
    Setting("log_format", str, "auto", "console, json, or what fits the terminal", choices=("auto", "console", "json")),
    Setting("log_level", str, "info", "the least important events to show",
            choices=("debug", "info", "warning", "error")),
    Setting("migrate", bool, True, "bring the database to this program's schema at the start"),
    Setting("tls_ca_file", str, "", "certificates that a stomp+ssl broker may be signed by; empty: the system's"),
    Setting("tls_cert_file", str, "", "our own certificate, for brokers that ask for one"),
    Setting("tls_key_file", str, "", "its key"),
    Setting("tls_verify", bool, True, "check the broker's certificate and name"),
    Setting("data_dir", str, platformdirs.user_data_dir("puppet-ingest"), "where the embedded PostgreSQL lives"),
)  # fmt: skip
_BY_NAME = {setting.name: setting for setting in SETTINGS}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting by its name, with its unit at the end."""

    queue_type: str
    queue_source: str
    destination: str
    database: str
    workers: int
    writers: int
    window_messages_max: int
    window_bytes_max: int
    body_bytes_max: int
    batch_messages_max: int
    batch_bytes_max: int
    batch_linger_ms: float
    drain_timeout_s: float
    heartbeat_s: float
    connect_timeout_s: float
    hold_s: float
    statement_timeout_s: float
    lock_timeout_s: float
    backoff_max_s: float
    decode_cpu_max_s: float
    decode_memory_bytes_max: int
    decoder_cache_bytes_max: int
    writer_cache_entries: int
    deaths_max: int
    gc_interval_s: float
    node_ttl_s: float
    node_purge_ttl_s: float
    quarantine_ttl_s: float
    thin_storeconfigs: bool
    metrics_host: str
    metrics_port: int
    log_format: str
    log_level: str
    migrate: bool
    tls_ca_file: str
    tls_cert_file: str
    tls_key_file: str
    tls_verify: bool
    data_dir: str


class Origins(NamedTuple):
    """A configuration and where each value of it came from."""

    config: Config
    origins: dict[str, str]


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    toml_file: Path | None = None,
    puppet_values: Mapping[str, str] | None = None,
) -> Origins:
    """Puts the sources together. Raises Misconfigured naming the setting and where its value stands."""
    values: dict[str, Any] = {s.name: s.default for s in SETTINGS}
    origins = dict.fromkeys(values, "default")

    def take(found: Mapping[str, Any], origin: str) -> None:
        for name, value in found.items():
            values[name] = _checked(_BY_NAME[name], value, origin)
            origins[name] = origin

    take(puppet_values or {}, "puppet.conf")
    take(_from_toml(toml_file), str(toml_file or DEFAULT_TOML))
    for name in values:
        variable = f"INGEST_{name.upper()}"
        if variable in environment:
            take({name: environment[variable]}, variable)
    for name, value in flags.items():
        if value is not None:
            take({name: value}, f"--{name.replace('_', '-')}")
    config = Config(**values)
    if config.body_bytes_max > config.window_bytes_max // 2:
        raise Misconfigured(
            "--body-bytes-max",
            f"{config.body_bytes_max} is more than half of window_bytes_max={config.window_bytes_max}: "
            "two bodies must fit",
        )
    return Origins(config, origins)


def redact(name: str, value: Any) -> str:
    """The value for a person's eyes: without passwords."""
    text = str(value)
    if name in ("queue_source", "database"):
        text = re.sub(r"(://[^:@/\s,]*):[^@\s,]*@", r"\1:********@", text)
        text = re.sub(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)", r"\1********", text, flags=re.IGNORECASE)
    return text


def duration_s(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``30m``, ``12h`` or ``7d``. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", text.strip())
    if match is None:
        raise ValueError(text)
    return float(match[1]) * {None: 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _from_toml(file: Path | None) -> dict[str, Any]:
    path = file or DEFAULT_TOML
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if file is None:
            return {}
        raise Misconfigured("--config", f"there is no file {file}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Misconfigured("--config", f"{path}: {error}") from error
    for name in document:
        if name not in _BY_NAME:
            raise Misconfigured(name, f"no setting has this name (in {path}); 'ingest config' lists them")
    return document


def _checked(setting: Setting, value: Any, origin: str) -> Any:
    where = f"--{setting.name.replace('_', '-')}"

    def wrong(expected: str) -> Misconfigured:
        return Misconfigured(where, f"{redact(setting.name, value)!r} (from {origin}) is not {expected}")

    if setting.type is bool:
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word in ("true", "yes", "on", "1"):
            return True
        if word in ("false", "no", "off", "0"):
            return False
        raise wrong("true or false")
    if setting.type is str:
        if not isinstance(value, str):
            raise wrong("text")
        if setting.choices and value not in setting.choices:
            raise wrong("one of " + ", ".join(setting.choices))
        return value
    try:
        number = (
            duration_s(value)
            if isinstance(value, str) and setting.name.endswith("_s")
            else setting.type(value)
        )
    except (ValueError, TypeError):
        raise wrong("a whole number" if setting.type is int else "a number or a duration like 30m") from None
    if setting.minimum is not None and number < setting.minimum:
        raise wrong(f"at least {setting.minimum:g}")
    if setting.maximum is not None and number > setting.maximum:
        raise wrong(f"at most {setting.maximum:g}")
    return number
