"""The login of those who only send to the embedded broker: Puppet servers.

The engine's own is made anew at each start, and no other user sees it. This one lasts, because it stands in the
configuration of Puppet servers (``ingest config puppet`` writes it there).
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from urllib.parse import quote

from ingest.config.address import split_address
from ingest.config.directories import make_private
from ingest.config.settings import Config
from ingest.embedded.broker.listening import Place, tls_context
from ingest.embedded.broker.logins import Credentials, credentials_of
from ingest.errors import Misconfigured

USER = "puppet"
FILE = "puppet-login"


def producers_login(data_dir: Path) -> Path:
    """The file with it. Raises Misconfigured."""
    return kept_login(data_dir / FILE, USER)


def kept_login(file: Path, user: str) -> Path:
    """The file, made where there is none, with USER:PASSWORD; another password there counts from the next start on.
    Raises Misconfigured."""
    data_dir = file.parent
    try:
        make_private(data_dir)
        with contextlib.suppress(FileExistsError):
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="ascii") as opened:
                opened.write(f"{user}:{secrets.token_urlsafe(24)}\n")
    except OSError as error:
        raise Misconfigured(
            "--data-dir", f"cannot write {file}: {error.strerror}: name a directory of your own"
        ) from error
    read_login(file)
    return file


def source_of_producers(config: Config) -> str:
    """``queue_source`` of the embedded broker that runs, with their login. Raises Misconfigured."""
    login, passcode = read_login(Path(config.data_dir) / FILE)
    address = config.queue_source.rpartition("@")[2]
    return f"stomp://{quote(login, safe='')}:{quote(passcode, safe='')}@{address}"


def public_place(config: Config) -> Place | None:
    """Where producers of other machines find it, if anywhere. Raises Misconfigured."""
    if not config.embedded_broker_listen:
        return None
    host, port = split_address(config.embedded_broker_listen, "--embedded-broker-listen")
    certfile, keyfile = config.embedded_broker_cert_file, config.embedded_broker_key_file
    if not certfile:
        raise Misconfigured(
            "--embedded-broker-cert-file", "name a certificate: others are let in with TLS alone"
        )
    place = Place(host, port, certfile, keyfile, "--embedded-broker-cert-file")
    tls_context(place)
    return place


def read_login(file: Path) -> Credentials:
    """Raises Misconfigured."""
    try:
        line = file.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            "--data-dir", f"{file}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from error
    found = credentials_of(line)
    if found is None or not found.passcode:
        raise Misconfigured(
            "--data-dir", f"{file} does not begin with USER:PASSWORD: write that, or delete it for a new one"
        )
    return found
