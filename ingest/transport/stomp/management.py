"""Asks RabbitMQ's management, where it is enabled, about queues and nodes: STOMP does not tell. For ``ingest doctor``."""

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
    found = _ask(endpoint, f"queues/{quote(endpoint.vhost, safe='')}/{quote(name, safe='')}", timeout_s)
    return found if isinstance(found, dict) else None


def ask_nodes(endpoint: Endpoint, timeout_s: float) -> list[dict[str, Any]]:
    """Of the cluster; none where nobody answers, or not to this login: it needs the tag ``monitoring``."""
    found = _ask(endpoint, "nodes", timeout_s)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _ask(endpoint: Endpoint, what: str, timeout_s: float) -> Any:
    if endpoint.user is None:
        return None
    login = f"{endpoint.user}:{endpoint.password or ''}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(login).decode()}"}
    connection = (
        http.client.HTTPSConnection(endpoint.host, TLS_PORT, timeout=timeout_s, context=endpoint.tls)
        if endpoint.tls
        else http.client.HTTPConnection(endpoint.host, PORT, timeout=timeout_s)
    )
    with suppress(OSError, http.client.HTTPException, ValueError, RecursionError), closing(connection):
        connection.request("GET", f"/api/{what}", headers=headers)
        answer = connection.getresponse()
        found = json.loads(answer.read(ANSWER_BYTES_MAX))
        if answer.status == 200:
            return found
    return None
