"""What this machine has for an engine: limits, files and who may read them, disk, ports."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from ingest.config.address import split_address
from ingest.config.loading import DEFAULT_TOML
from ingest.config.machine import cores, memory_bytes
from ingest.config.settings import Config
from ingest.engine.finding import Finding, State, found_wrong, wrong
from ingest.errors import IngestError, Misconfigured
from ingest.observe.asking import read_status, where
from ingest.observe.server import UNIX

MIB = 1024 * 1024
DISK_FREE_BYTES_MIN = (
    256 * MIB
)  # the embedded broker refuses publishers below 64 MiB; somebody shall have time to act
DESCRIPTORS_MIN = 1024  # pipes and sockets of a large tree, with 16 for whoever asks for metrics
PROCESS_BYTES = 64 * MIB  # an idle one of the tree, docs/operating.md
_PASSFILE = re.compile(r"passfile\s*=\s*(?:'((?:[^'\\]|\\.)*)'|([^&\s]+))")


def _free_bytes(directory: Path) -> int:
    """Of the file system of the nearest directory that is there."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return shutil.disk_usage(directory).free


class Surroundings(NamedTuple):
    """The world as it is asked."""

    now_s: Callable[[], float] = time.time
    free_bytes: Callable[[Path], int] = _free_bytes
    descriptors_max: Callable[[], int] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    cores: Callable[[], int] = cores
    memory_bytes: Callable[[], int] = memory_bytes
    toml_file: Path = DEFAULT_TOML


def examine_machine(config: Config, surroundings: Surroundings) -> Iterator[Finding]:
    yield from _examine_limits(config, surroundings)
    yield from _examine_files(config, surroundings)
    if not (config.queue_source and config.database):
        yield _examine_disk(config, surroundings)
    engine = None
    if config.metrics_port or config.metrics_host.startswith(UNIX):
        engine = _examine_port(config)
        yield engine
    if config.listen and (engine is None or engine.what != "engine"):  # else that engine has it
        yield _examine_front(config)


def _examine_limits(config: Config, surroundings: Surroundings) -> Iterator[Finding]:
    allowed = surroundings.descriptors_max()
    if allowed != resource.RLIM_INFINITY and allowed < DESCRIPTORS_MIN:
        yield wrong(
            "descriptors",
            f"this user may open {allowed} files, and {DESCRIPTORS_MIN} are needed",
            "LimitNOFILE=65536 in the unit, or nofile in /etc/security/limits.conf (ulimit -n)",
        )
    available, has = surroundings.memory_bytes(), surroundings.cores()
    wanted = (
        config.window_bytes_max
        + config.workers * (3 * config.decoder_cache_bytes_max // 2)
        + (config.workers + config.writers + 2) * PROCESS_BYTES
    )
    if wanted > available:
        yield wrong(
            "memory",
            f"the engine may take {wanted // MIB} MiB, and there are {available // MIB} MiB",
            "lower window_bytes_max, decoder_cache_bytes_max or workers, or give it more (MemoryMax=)",
            "--window-bytes-max",
        )
    else:
        yield Finding(
            "memory", State.OK, f"{wanted // MIB} of {available // MIB} MiB at most, beside large messages"
        )
    if config.workers > has:
        yield Finding(
            "cores",
            State.NOTE,
            f"{config.workers} workers share {has} cores",
            f"workers = {has}",
            "--workers",
        )


def _examine_files(config: Config, surroundings: Surroundings) -> Iterator[Finding]:
    """Secrets that others can read. What cannot be read by us is told by whoever reads it."""
    secret = [("--queue-password-file", config.queue_password_file), ("--tls-key-file", config.tls_key_file),
              ("--ssl-key", config.ssl_key)]  # fmt: skip
    for name, conninfo in (("--database", config.database), ("--http-database", config.http_database)):
        secret += [(name, found[1] or found[2]) for found in _PASSFILE.finditer(conninfo)]
    if _holds_a_password(surroundings.toml_file):
        secret.append(("--config", str(surroundings.toml_file)))
    wrong = [finding for name, file in secret if file and (finding := _examine_secret(name, Path(file)))]
    yield from wrong
    if not wrong:
        yield Finding("files", State.OK, "nobody else can read a password")


def _examine_secret(setting: str, file: Path) -> Finding | None:
    try:
        mode = file.stat().st_mode
        file.open("rb").close()
    except OSError as error:
        return wrong(
            "files",
            f"{file}: {error.strerror}",
            "make it, owned by the user that runs this, mode 0600; a unit gets it by LoadCredential=",
            setting,
        )
    if stat.S_ISREG(mode) and mode & (
        0o007 if setting == "--config" else 0o077
    ):  # the service's group reads that one
        more = "; libpq does not use such a passfile" if "database" in setting else ""
        return wrong(
            "files",
            f"{file} has mode {stat.S_IMODE(mode):04o}: others can read the password in it{more}",
            f"chmod 0600 {file}",
            setting,
        )
    return None


def _holds_a_password(file: Path) -> bool:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return any(re.search(r"password\s*=|://[^/\s:@]+:[^/\s@]+@", line) for line in lines)


def _examine_disk(config: Config, surroundings: Surroundings) -> Finding:
    """Of the embedded parts; a database's own is not seen from here."""
    directory = Path(config.data_dir)
    free = surroundings.free_bytes(directory)
    if free < DISK_FREE_BYTES_MIN:
        return wrong(
            "disk",
            f"{free // MIB} MiB are free for {directory}: the embedded broker is about to refuse publishers",
            "make room, or name a data_dir on another disk",
            "--data-dir",
        )
    nearest = directory
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not os.access(nearest, os.W_OK | os.X_OK):
        return wrong(
            "disk",
            f"this user may not write in {nearest}",
            f"name a data_dir of your own, or chown {nearest}",
            "--data-dir",
        )
    return Finding("disk", State.OK, f"{free // MIB} MiB are free for {directory}")


def require_directory(data_dir: str) -> None:
    """What is there of it is a directory. Raises Misconfigured."""
    if not data_dir:
        raise Misconfigured("--data-dir", "is empty: name a directory for the embedded broker and PostgreSQL")
    nearest = Path(data_dir)
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise Misconfigured("--data-dir", f"{nearest} is no directory: name another, or move it away")


def require_free(config: Config) -> None:
    """That it can be listened where the settings say, before anything is started. Raises Misconfigured."""
    found = []
    if config.metrics_port or config.metrics_host.startswith(UNIX):
        found.append(_examine_listening(config))
    if config.listen:
        found.append(_examine_front(config))
    if not config.queue_source:
        found.append(examine_embedded_broker(config))
    if not config.database and config.embedded_database_port:
        address = f"127.0.0.1:{config.embedded_database_port}"
        found.append(_examine_address("database", address, "--embedded-database-port"))
    for finding in found:
        if finding.state is State.WRONG:
            raise Misconfigured(finding.setting, f"{finding.text}: {finding.remedy}")


def _examine_front(config: Config) -> Finding:
    return _examine_address("front", config.listen, "--listen")


def examine_embedded_broker(config: Config) -> Finding:
    """Whether it can be started."""
    if config.embedded_broker_listen:
        finding = _examine_address("broker", config.embedded_broker_listen, "--embedded-broker-listen")
        if finding.state is State.WRONG:
            return finding
    try:
        if config.embedded_broker_port:
            _bind("127.0.0.1", config.embedded_broker_port)
    except OSError as error:
        return wrong(
            "broker",
            f"the embedded broker cannot listen on 127.0.0.1:{config.embedded_broker_port}: {error.strerror}",
            "name another port, or by --queue-source the broker that is there; 'ss -ltnp' tells who has it",
            "--embedded-broker-port",
        )
    return Finding("broker", State.OK, "none is named: 'ingest run' starts the embedded one")


def _examine_address(what: str, address: str, setting: str) -> Finding:
    try:
        _bind(*split_address(address, setting))
    except IngestError as error:
        return found_wrong(what, error)
    except (OSError, UnicodeError) as error:
        return wrong(
            what,
            f"cannot listen on {address}: {getattr(error, 'strerror', None) or error}",
            f"name another {'port' if setting.endswith('port') else 'HOST:PORT'}; 'ss -ltnp' tells who has it",
            setting,
        )
    return Finding(what, State.OK, f"{address} is free")


def _bind(host: str, port: int) -> None:
    """And lets go again. Raises OSError or UnicodeError."""
    for family, kind, _, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with closing(socket.socket(family, kind)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)


def _examine_port(config: Config) -> Finding:
    """An engine of ours may be at work there."""
    try:
        health = read_status(config, timeout_s=2.0)["health"]
    except (IngestError, KeyError, TypeError):
        return _examine_listening(config)
    reasons = "; ".join(map(str, health.get("reasons", ())))
    if not health.get("ready"):
        return wrong(
            "engine",
            f"one runs at {where(config)} and is not ready: {reasons}",
            "mend what is said of broker and database below; its log tells more",
        )
    return Finding("engine", State.OK, f"one runs at {where(config)}, and is ready")


def _examine_listening(config: Config) -> Finding:
    setting = "--metrics-host" if config.metrics_host.startswith(UNIX) else "--metrics-port"
    try:
        if config.metrics_host.startswith(UNIX):
            path = Path(config.metrics_host.removeprefix(UNIX))
            if path.is_dir():  # also where there is no name at all
                return wrong(
                    "port", f"{path} is a directory", "name a file in it, unix:DIRECTORY/FILE", setting
                )
            parent = path.parent
            if not os.access(parent, os.W_OK | os.X_OK):
                return wrong(
                    "port",
                    f"this user may not make a socket in {parent}",
                    "name another directory, or RuntimeDirectory= in the unit",
                    setting,
                )
            return Finding("port", State.OK, f"{where(config)} can be made")
        _bind(config.metrics_host, config.metrics_port)
    except (OSError, UnicodeError) as error:
        return wrong(
            "port",
            f"cannot listen on {where(config)}: {getattr(error, 'strerror', None) or error}",
            "name another metrics_port or metrics_host; 'ss -ltnp' tells who has it",
            setting,
        )
    return Finding("port", State.OK, f"{where(config)} is free")
