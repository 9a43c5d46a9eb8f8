"""The transport ``stomp``: brokers from the URLs of ``queue_source``."""

from __future__ import annotations

import ssl
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ingest.config.settings import Config
from ingest.errors import Misconfigured
from ingest.transport.message import Space
from ingest.transport.stomp.client import StompClient
from ingest.transport.stomp.heads import DamagedFrames
from ingest.transport.stomp.management import ask_nodes, ask_queue
from ingest.transport.stomp.opening import Endpoint

STOMP_PORT, STOMP_TLS_PORT = 61613, 61612
PASSWORD_CHARACTERS_MAX = 4096
UNREADABLE = (  # nothing of it is quoted: it may be a part of the password
    "an address in it cannot be read: is its port a number, and are the user and the password percent-encoded "
    "(%2F for a slash, %40 for @, %23 for #, %3F for ?, %2C for a comma)?"
)


class StompBroker(NamedTuple):
    """A broker that speaks STOMP, and the limits of a connection to it."""

    endpoint: Endpoint
    config: Config
    damaged: DamagedFrames  # of all connections to all brokers of the list

    def __str__(self) -> str:
        return str(self.endpoint)

    def connect(self, space: Space | None = None, *, heartbeats: bool = True) -> StompClient:
        return StompClient(
            self.endpoint,
            connect_timeout_s=self.config.connect_timeout_s,
            heartbeat_s=self.config.heartbeat_s if heartbeats else 0,
            body_bytes_max=self.config.body_bytes_max,
            space=space,
            damaged=self.damaged,
        )

    def queue(self, name: str) -> dict[str, Any] | None:
        """What the broker says of a queue, in RabbitMQ's words; None where it says nothing."""
        return ask_queue(self.endpoint, name, self.config.connect_timeout_s)

    def nodes(self) -> list[dict[str, Any]]:
        """What the broker says of the nodes of its cluster, in RabbitMQ's words; none where it says nothing."""
        return ask_nodes(self.endpoint, self.config.connect_timeout_s)


def stomp_brokers(config: Config) -> list[StompBroker]:
    """One for each URL, in their order. Raises Misconfigured."""
    password = _read_password(config.queue_password_file)
    damaged = DamagedFrames()
    return [
        StompBroker(stomp_endpoint(url, config, password), config, damaged)
        for url in config.queue_source.replace(",", " ").split()
    ]


def stomp_endpoint(url: str, config: Config, password: str | None = None) -> Endpoint:
    """``stomp://user:password@host:port/vhost``; ``stomp+ssl`` is TLS. ``password`` is that of a user without one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Misconfigured("--queue-source", UNREADABLE) from None
    if parts.query or parts.fragment or "@" in parts.path:
        # The password ended too early: what follows is not a virtual host.
        raise Misconfigured("--queue-source", UNREADABLE)
    if parts.scheme not in ("stomp", "stomp+ssl") or not parts.hostname:
        raise Misconfigured(
            "--queue-source",
            "it is not stomp://HOST:PORT or stomp+ssl://HOST:PORT, with USER:PASSWORD@ before the host where there is "
            "a login; several are separated by commas",
        )
    if port == 0:
        raise Misconfigured(
            "--queue-source", f"0 is no port: {STOMP_PORT} by custom, with TLS {STOMP_TLS_PORT}"
        )
    is_tls = parts.scheme == "stomp+ssl"
    return Endpoint(
        host=parts.hostname,
        port=port or (STOMP_TLS_PORT if is_tls else STOMP_PORT),
        user=None if parts.username is None else unquote(parts.username),
        password=unquote(parts.password) if parts.password is not None else parts.username and password,
        vhost=unquote(parts.path[1:]) or "/",  # RabbitMQ's default; the others do not care
        tls=_tls(config) if is_tls else None,
    )


def _read_password(file: str) -> str | None:
    """The first line, as it is."""
    if not file:
        return None
    try:
        with open(file, encoding="utf-8") as opened:
            line = opened.readline(PASSWORD_CHARACTERS_MAX).rstrip("\r\n")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise Misconfigured("--queue-password-file", f"{file}: {why}") from error
    if not line:
        raise Misconfigured("--queue-password-file", f"{file}: its first line is empty")
    return line


def _tls(config: Config) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.tls_ca_file or None)
    except OSError as error:
        why = "no certificate in PEM is in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise Misconfigured("--tls-ca-file", f"{config.tls_ca_file}: {why}") from error
    if not config.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.tls_key_file and not config.tls_cert_file:
        raise Misconfigured("--tls-cert-file", "is needed with --tls-key-file: the key is that certificate's")
    if config.tls_cert_file:
        try:
            context.load_cert_chain(config.tls_cert_file, config.tls_key_file or None)
        except OSError as error:
            why = "no certificate in PEM with its key" if isinstance(error, ssl.SSLError) else error.strerror
            files = " and ".join(file for file in (config.tls_cert_file, config.tls_key_file) if file)
            raise Misconfigured("--tls-cert-file", f"{files}: {why}") from error
    return context
