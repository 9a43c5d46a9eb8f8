"""Asks a running embedded broker how much each destination holds, over STOMP, from any process."""

from __future__ import annotations

import json
import os
import socket

from ingest.embedded.broker.broker_session import DEPTHS_DESTINATION
from ingest.embedded.broker.logins import Credentials
from ingest.embedded.broker.messages import Depth
from ingest.embedded.broker.parser import Frame, Parser
from ingest.errors import Unavailable
from ingest.transport.stomp.codec import write_head


def read_depths(
    host: str, port: int, *, credentials: Credentials | None = None, timeout_s: float = 5.0
) -> dict[str, Depth]:
    """Destinations that hold nothing and have no consumer are not there. Raises Unavailable."""
    reply_to = f"/admin/reply/{os.urandom(8).hex()}"
    login = dict(zip(("login", "passcode"), credentials, strict=True)) if credentials else {}
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as opened:
            parser = Parser()
            opened.sendall(_encode("CONNECT", {"accept-version": "1.2", "host": "/"} | login))
            _answer(opened, parser, "CONNECTED")
            parser.version = "1.2"
            opened.sendall(
                _encode("SUBSCRIBE", {"id": "depths", "destination": reply_to})
                + _encode("SEND", {"destination": DEPTHS_DESTINATION, "reply-to": reply_to})
            )
            body = bytes(_answer(opened, parser, "MESSAGE").body)
    except OSError as error:
        raise Unavailable(f"no embedded broker at {host}:{port}: {error}") from error
    found = {name: Depth(**depth) for name, depth in json.loads(body).items()}
    found.pop(reply_to, None)
    return found


def _answer(opened: socket.socket, parser: Parser, command: str) -> Frame:
    while (frame := parser.next_frame()) is None:
        count = opened.recv_into(parser.buffer())
        if not count:
            raise Unavailable("the embedded broker closed the connection")
        parser.received(count)
    if frame.command != command:
        raise Unavailable(f"the embedded broker answered {frame.headers.get('message', frame.command)}")
    return frame


def _encode(command: str, headers: dict[str, str]) -> bytes:
    return write_head(command, headers, "1.2") + b"\0"
