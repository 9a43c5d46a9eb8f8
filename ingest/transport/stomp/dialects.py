"""What brokers put in words of their own, and how each is asked for what the protocol has no header for."""

from __future__ import annotations

from collections.abc import Mapping

ERROR_BYTES_MAX = 500  # of what an ERROR frame tells


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
