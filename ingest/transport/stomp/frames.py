"""STOMP frames as bytes: commands, headers and their escapes. Nothing here touches a socket.

stomp.py packs what is sent; what is received is read here, because a body never becomes a frame object.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

os.environ.setdefault("STOMP_SKIP_HOSTNAME_SCAN", "1")  # stomp.py resolves every interface on import

from stomp.utils import Frame, convert_frame, pack

HEADERS_BYTES_MAX = 64 * 1024  # a frame's command and headers; ours take about 500 bytes
DIGITS_MAX = 15  # of a content-length: a petabyte
ERROR_BYTES_MAX = 500  # of what an ERROR frame tells


def encode(command: str, headers: dict[str, str], version: str) -> bytes:
    if version != "1.0" and command != "CONNECT":
        headers = {name: _escape(value, version) for name, value in headers.items()}
    packed: bytes = pack(convert_frame(Frame(command, headers, None)))
    return packed


def encode_acks(messages: list[tuple[str, str]], subscription: str, version: str) -> bytes:
    """An ACK for each (ack header, message-id). What stood there goes back as the bytes that it was, UTF-8 or not."""
    if version == "1.2":
        heads = [f"ACK\nid:{_escape(ack, version)}\n\n" for ack, _ in messages]
    elif version == "1.1":
        own = _escape(subscription, version)
        heads = [f"ACK\nmessage-id:{_escape(id_, version)}\nsubscription:{own}\n\n" for _, id_ in messages]
    else:
        heads = [f"ACK\nmessage-id:{id_}\n\n" for _, id_ in messages]
    return "".join(head + "\0" for head in heads).encode("utf-8", "surrogateescape")


def _escape(value: str, version: str) -> str:
    value = value.replace("\\", "\\\\").replace("\n", "\\n").replace(":", "\\c")
    return value.replace("\r", "\\r") if version == "1.2" else value


def parse_head(head: bytes, version: str) -> tuple[str, dict[str, str]]:
    """Command and headers; the first of a repeated header counts (STOMP 1.2, "Repeated Header Entries"). Bytes that are
    not UTF-8 become lone surrogates (PEP 383), so that an acknowledgement can say them again."""
    lines = head.decode("utf-8", "surrogateescape").split("\n")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if version != "1.0" and "\\" in line:
            name, value = _unescape(name), _unescape(value)
        headers.setdefault(name, value)
    return lines[0], headers


def _unescape(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\c", ":").replace("\\r", "\r") for part in parts)


def end_of_head(buffer: bytearray, start: int, end: int) -> tuple[int, int]:
    """(where the headers end, where the body starts), or (-1, -1) while the blank line is not here."""
    plain = buffer.find(b"\n\n", start, end)
    carriage = buffer.find(b"\n\r\n", start, end if plain < 0 else plain)
    if carriage >= 0:
        return carriage, carriage + 3
    return (plain, plain + 2) if plain >= 0 else (-1, -1)


def content_length(headers: Mapping[str, str]) -> int | None:
    """None when a NUL ends the body: without that header, and where it is not a length."""
    text = headers.get("content-length", "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > DIGITS_MAX:
        return None
    return int(text)


def error_text(headers: Mapping[str, str], body: bytes) -> str:
    """What an ERROR frame says, in one line. Brokers put it into the header, the body or both; ActiveMQ's body
    goes on with a stack trace."""
    text = " ".join(headers.get("message", "").encode(errors="replace").decode().split())
    detail = body[:ERROR_BYTES_MAX].decode("utf-8", "replace").strip().partition("\n")[0].strip()
    if not detail or (text and text in detail):
        return text or "no reason given"
    return f"{text}: {detail}" if text else detail


def flow_control(server: str, prefetch_messages: int, window_bytes: int) -> dict[str, str]:
    """The header by which a broker of this name limits what it sends unacknowledged."""
    name = server.lower()
    if "artemis" in name:
        return {"consumer-window-size": str(window_bytes)}
    if "activemq" in name:
        return {"activemq.prefetchSize": str(prefetch_messages)}
    if "rabbitmq" in name:
        return {"prefetch-count": str(prefetch_messages)}
    return {"prefetch-count": str(prefetch_messages), "activemq.prefetchSize": str(prefetch_messages)}
