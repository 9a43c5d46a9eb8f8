"""Asks RabbitMQ's management, where it is enabled, what a queue is: STOMP does not tell. For ``ingest doctor``."""

from __future__ import annotations

import base64
import http.client
import json
from contextlib import closing, suppress
from typing import Any
from urllib.parse import quote

from ingest.transport.stomp.opening import Endpoint

PORT, TLS_PORT = 15672, 15671  # RabbitMQ's own
ANSWER_BYTES_MAX = 1024 * 1024


def ask_queue(endpoint: Endpoint, name: str, timeout_s: float) -> dict[str, Any] | None:
    """None where nobody answers there, or not to this login, or there is no such queue. Over TLS where the broker is asked so."""
    if endpoint.user is None:
        return None
    path = f"/api/queues/{quote(endpoint.vhost, safe='')}/{quote(name, safe='')}"
    login = f"{endpoint.user}:{endpoint.password or ''}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(login).decode()}"}
    connection = (
        http.client.HTTPSConnection(endpoint.host, TLS_PORT, timeout=timeout_s, context=endpoint.tls)
        if endpoint.tls
        else http.client.HTTPConnection(endpoint.host, PORT, timeout=timeout_s)
    )
    with suppress(OSError, http.client.HTTPException, ValueError, RecursionError), closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        found = json.loads(answer.read(ANSWER_BYTES_MAX))
        if answer.status == 200 and isinstance(found, dict):
            return found
    return None
