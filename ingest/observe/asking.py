"""Asks a running engine for its /status.json, at an address or over its Unix socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import Any

from ingest.config.settings import Config
from ingest.errors import Misconfigured, Unavailable
from ingest.observe.server import UNIX

STATUS_BYTES_MAX = 16 * 1024 * 1024  # of an answer that is none of ours


def read_status(config: Config, timeout_s: float = 5.0) -> dict[str, Any]:
    """Raises Unavailable when nobody answers, or not as an engine does, and Misconfigured where there is nobody to ask."""
    if not config.metrics_port and not config.metrics_host.startswith(UNIX):
        raise Misconfigured("--metrics-port", "an engine with 0 serves nothing, and cannot be asked")
    try:
        with contextlib.closing(_connection(config, timeout_s)) as connection:
            # Not urllib: it would ask the proxy that http_proxy names.
            connection.request("GET", "/status.json", headers={"Host": "localhost"})
            return dict(json.loads(connection.getresponse().read(STATUS_BYTES_MAX)))
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
    except (http.client.HTTPException, ValueError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__} in its answer"
    raise Unavailable(f"no engine answers at {where(config)} (--metrics-host, --metrics-port): {reason}")


def where(config: Config) -> str:
    """The address for a person's eyes."""
    if config.metrics_host.startswith(UNIX):
        return config.metrics_host
    host = f"[{config.metrics_host}]" if ":" in config.metrics_host else config.metrics_host
    return f"http://{host}:{config.metrics_port}"


def _connection(config: Config, timeout_s: float) -> http.client.HTTPConnection:
    if config.metrics_host.startswith(UNIX):
        return _UnixConnection(config.metrics_host.removeprefix(UNIX), timeout_s)
    # What listens everywhere is asked here.
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(
        config.metrics_host, config.metrics_host
    )
    return http.client.HTTPConnection(host, config.metrics_port, timeout=timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
