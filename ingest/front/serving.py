"""``ingest serve``: PuppetDB's interface on a socket, with TLS or on loopback, in one process or several."""

from __future__ import annotations

import functools
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from ingest.config.address import split_address
from ingest.config.planned import load_plan
from ingest.config.settings import Config
from ingest.errors import Misconfigured
from ingest.front.admission import Admission, read_allowlist
from ingest.front.app import Front
from ingest.front.connection import FrontProtocol
from ingest.front.live import LEAVING
from ingest.front.mirror import check_mirror
from ingest.ipc.core_dumps import forbid_core_dumps
from ingest.ipc.parent import end_with_parent
from ingest.observe.log import configure, resolve_format
from ingest.store.connection import require_own_session
from ingest.store.migrate import require_current
from ingest.store.query.running import open_reader
from ingest.transport.protocol import brokers

BACKLOG = 1024
DRAIN_S = 10  # what is being answered when SIGTERM comes may take that long
PROCESS = "serve"
DEFAULT_LISTEN = "127.0.0.1:8080"  # where PuppetDB itself serves without TLS


def serve(config: Config, announce: Callable[[], None] = lambda: None) -> int:
    """Serves until SIGTERM or Ctrl-C; returns the exit code. ``announce`` is called when clients can connect.
    Raises IngestError when it cannot start."""
    forbid_core_dumps()
    config = _complete(config)
    configure(config.log_format, config.log_level, process=PROCESS)
    _silence_uvicorn()
    if config.also:
        check_mirror(config)
    load_plan(config.plan_file)
    allowlist = read_allowlist(config.certificate_allowlist)
    tls = None if not config.ssl_cert else functools.partial(_tls_context, config)
    if tls is not None:
        tls()  # a wrong file is told before anything starts
    Admission(config)
    with _listen(config) as listener:  # a wrong address is told before a database is asked
        _require_database(config)
        host, port = listener.getsockname()[:2]
        structlog.get_logger().info(
            "serving", host=host, port=port, tls=tls is not None, workers=config.http_workers
        )
        announce()
        uvicorn_config = _uvicorn_config(config, allowlist, tls)
        if config.http_workers > 1:
            Multiprocess(uvicorn_config, sockets=[listener]).run()
        else:
            _Server(uvicorn_config).run(sockets=[listener])
    return 0


def _uvicorn_config(config: Config, allowlist: frozenset[str] | None, tls: Any) -> uvicorn.Config:
    return uvicorn.Config(
        functools.partial(create, config),
        factory=True,
        interface="asgi3",
        http=functools.partial(  # type: ignore[arg-type]
            FrontProtocol,
            allowlist=allowlist,
            has_tokens=bool(config.tokens_file),
            silence_s=config.client_timeout_s,
        ),
        loop="asyncio",
        ws="none",
        lifespan="on",
        proxy_headers=False,  # who asks is told by his certificate or token
        log_config=None,
        access_log=False,
        server_header=False,
        headers=[("Server", "puppet-ingest")],
        workers=config.http_workers,
        backlog=BACKLOG,
        limit_concurrency=config.http_connections_max,
        timeout_keep_alive=int(config.client_timeout_s),
        timeout_graceful_shutdown=DRAIN_S,
        ssl_context_factory=None if tls is None else functools.partial(_tls_for_uvicorn, tls),
    )


def create(config: Config) -> ASGIApp:
    """The application of one process; called in it."""
    if config.http_workers > 1:
        end_with_parent(signal.SIGTERM)  # or it would go on serving when the one that started it was killed
    configure(config.log_format, config.log_level, process=PROCESS)
    _silence_uvicorn()
    return Front(config)


class _Server(uvicorn.Server):
    """Whose end by a signal is an orderly one: uvicorn's own raises the signal once more."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        LEAVING.set()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Any:
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _complete(config: Config) -> Config:
    """Raises Misconfigured for what is not named."""
    if not config.database:
        raise Misconfigured("--database", "name the database, as a libpq conninfo or a URI")
    if not config.queue_source:
        raise Misconfigured("--queue-source", "name the broker, for example stomp://127.0.0.1:61613")
    config = msgspec.structs.replace(config, log_format=resolve_format(config.log_format))
    brokers(config)
    return config


def _require_database(config: Config) -> None:
    """Raises Misconfigured, Refused, or Unavailable."""
    conninfo = config.http_database or config.database
    try:
        connection = open_reader(
            conninfo, connect_timeout_s=config.connect_timeout_s, timeout_s=config.query_timeout_s
        )
        try:
            require_own_session(connection, conninfo, config.connect_timeout_s)
            require_current(connection)
        finally:
            connection.close()
    except Misconfigured as error:
        if error.setting == "--database" and config.http_database:
            raise Misconfigured("--http-database", error.text) from error
        raise


def _listen(config: Config) -> socket.socket:
    listen = config.listen or DEFAULT_LISTEN
    host, port = split_address(listen)
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Misconfigured("--listen", f"{host!r} is no address of this machine: {error}") from error
    if not config.ssl_cert and not config.plain_http and not ipaddress.ip_address(address[0]).is_loopback:
        raise Misconfigured(
            "--listen",
            f"without TLS everybody who reaches {listen} reads and writes everything: name --ssl-cert, "
            "--ssl-key and --ssl-ca-cert, or --plain-http where something else keeps them out",
        )
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
        # Those that are accepted inherit it; asyncio sets it where it made the socket itself. Without it each answer on a
        # connection that is kept waits 40 ms for the client's acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise Misconfigured("--listen", f"{listen}: {error.strerror or error}") from error


def _tls_context(config: Config) -> ssl.SSLContext:
    """Nobody gets in without a certificate of the authority's, or a token. Raises Misconfigured."""
    for name in ("ssl_key", "ssl_ca_cert"):
        if not getattr(config, name):
            raise Misconfigured(f"--{name.replace('_', '-')}", "is needed with --ssl-cert")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL if config.tokens_file else ssl.CERT_REQUIRED
    _load("--ssl-cert", config.ssl_cert, lambda: context.load_cert_chain(config.ssl_cert, config.ssl_key))
    _load("--ssl-ca-cert", config.ssl_ca_cert, lambda: context.load_verify_locations(config.ssl_ca_cert))
    if config.ssl_crl:
        _load("--ssl-crl", config.ssl_crl, lambda: context.load_verify_locations(config.ssl_crl))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return context


def _load(setting: str, file: str, load: Any) -> None:
    try:
        load()
    except (OSError, ssl.SSLError, ValueError) as error:
        raise Misconfigured(setting, f"{file}: {getattr(error, 'strerror', None) or error}") from error


def _tls_for_uvicorn(make: Any, _: uvicorn.Config, __: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = make()
    return context


def _silence_uvicorn() -> None:
    """What it has to say is said by our own log: of requests that fail, and of the start and the end."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False
