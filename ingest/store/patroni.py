"""Asks Patroni, where it is beside a host of the conninfo: for its configuration (``ingest doctor``), and who has its lock."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from contextlib import closing, suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from ingest.core.times import EPOCH

PORT = 8008  # its own
ANSWER_S = 2.0
ANSWER_BYTES_MAX = 1024 * 1024


def ask_patroni(host: str) -> dict[str, Any] | None:
    """What ``patronictl show-config`` shows; None where nobody answers there, or not as Patroni does, or over TLS alone."""
    found = _get(host, PORT, "/config")
    return found if found is not None and "ttl" in found else None


def leads_alone(host: str, started_us: int) -> bool:
    """Whether the server that started at that time (microseconds since 1970) has the lock of its cluster, and no standby is
    named that may take its place. False, too, where nobody says so.

    Patroni reads ``/cluster`` from where the lock is, not from its memory. It takes a standby out there before it lets the
    server wait for it no more, and promotes none that is not named there: an orphan, too, is told to wait for nobody, but
    the lock is another's by then. ``/primary`` is 200 for who has renewed its lock in time.
    """
    cluster = _get(host, PORT, "/cluster") or {}
    with suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):
        roles = [member["role"] for member in cluster["members"]]
        if roles.count("leader") != 1 or any("standby" in role for role in roles):
            return False
        url = urlsplit(next(member["api_url"] for member in cluster["members"] if member["role"] == "leader"))
        if url.scheme == "http" and url.hostname:
            told = _get(url.hostname, url.port or 80, "/primary") or {}
            began = datetime.fromisoformat(told["postmaster_start_time"])
            return (began - EPOCH) // timedelta(microseconds=1) == started_us
    return False


def _get(host: str, port: int, path: str) -> dict[str, Any] | None:
    if not host or host.startswith("/"):
        return None
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    with suppress(OSError, http.client.HTTPException, ValueError, RecursionError), closing(connection):
        connection.connect()
        # The socket's own limit is one for each piece, and pieces may be small: a writer waits for this.
        late = threading.Timer(ANSWER_S, _hang_up, [connection.sock])
        late.daemon = True
        late.start()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            found = json.loads(answer.read(ANSWER_BYTES_MAX))
        finally:
            late.cancel()
        if answer.status == 200 and isinstance(found, dict):
            return found
    return None


def _hang_up(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
