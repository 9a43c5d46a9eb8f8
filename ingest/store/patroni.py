"""Asks Patroni, where it is beside a host of the conninfo, for its configuration, for ``ingest doctor``."""

from __future__ import annotations

import http.client
import json
from contextlib import closing, suppress
from typing import Any

PORT = 8008  # its own
ANSWER_S = 2.0
ANSWER_BYTES_MAX = 1024 * 1024


def ask_patroni(host: str) -> dict[str, Any] | None:
    """What ``patronictl show-config`` shows; None where nobody answers there, or not as Patroni does, or over TLS alone."""
    if not host or host.startswith("/"):
        return None
    connection = http.client.HTTPConnection(host, PORT, timeout=ANSWER_S)
    with suppress(OSError, http.client.HTTPException, ValueError, RecursionError), closing(connection):
        connection.request("GET", "/config")
        answer = connection.getresponse()
        found = json.loads(answer.read(ANSWER_BYTES_MAX))
        if answer.status == 200 and isinstance(found, dict) and "ttl" in found:
            return found
    return None
