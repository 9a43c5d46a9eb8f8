"""The transport ``stomp``: brokers from the URLs of ``queue_source``."""

from __future__ import annotations

import ssl
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ingest.config.settings import Config
from ingest.errors import Misconfigured
from ingest.transport.stomp.client import Connection, Space
from ingest.transport.stomp.opening import Endpoint

STOMP_PORT, STOMP_TLS_PORT = 61613, 61612
UNREADABLE = (  # nothing of it is quoted: it may be a part of the password
    "an address in it cannot be read: is its port a number, and are the user and the password percent-encoded "
    "(%2F for a slash, %40 for @, %23 for #, %3F for ?, %2C for a comma)?"
)


class StompBroker(NamedTuple):
    """A broker that speaks STOMP, and the limits of a connection to it."""

    endpoint: Endpoint
    config: Config

    def __str__(self) -> str:
        return str(self.endpoint)

    def connect(self, space: Space | None = None, *, heartbeats: bool = True) -> Connection:
        return Connection(
            self.endpoint,
            connect_timeout_s=self.config.connect_timeout_s,
            heartbeat_s=self.config.heartbeat_s if heartbeats else 0,
            body_bytes_max=self.config.body_bytes_max,
            space=space,
        )


def stomp(config: Config) -> list[StompBroker]:
    """One for each URL, in their order. Raises Misconfigured."""
    return [
        StompBroker(stomp_endpoint(url, config), config)
        for url in config.queue_source.replace(",", " ").split()
    ]


def stomp_endpoint(url: str, config: Config) -> Endpoint:
    """``stomp://user:password@host:port/vhost``; ``stomp+ssl`` is TLS."""
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
            "it must be stomp://user:password@host:port or stomp+ssl://..., several separated by commas",
        )
    is_tls = parts.scheme == "stomp+ssl"
    return Endpoint(
        host=parts.hostname,
        port=port or (STOMP_TLS_PORT if is_tls else STOMP_PORT),
        user=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        vhost=unquote(parts.path[1:]) or "/",  # RabbitMQ's default; the others do not care
        tls=_tls(config) if is_tls else None,
    )


def _tls(config: Config) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.tls_ca_file or None)
    except OSError as error:
        why = "no certificate in PEM is in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise Misconfigured("--tls-ca-file", f"{config.tls_ca_file}: {why}") from error
    if not config.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.tls_cert_file:
        try:
            context.load_cert_chain(config.tls_cert_file, config.tls_key_file or None)
        except OSError as error:
            why = "no certificate in PEM with its key" if isinstance(error, ssl.SSLError) else error.strerror
            files = " and ".join(file for file in (config.tls_cert_file, config.tls_key_file) if file)
            raise Misconfigured("--tls-cert-file", f"{files}: {why}") from error
    return context
