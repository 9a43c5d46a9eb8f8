"""Where the embedded broker listens, and the certificate that it shows."""

from __future__ import annotations

import socket
import ssl

from ingest.errors import Misconfigured, Unavailable

BACKLOG = 128  # connections the kernel completes before we accept them


def listen(host: str, port: int) -> socket.socket:
    """Raises Unavailable."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise Unavailable(f"the embedded broker cannot listen on {host}:{port}: {reason}") from error
    return listener


def tls_context(certfile: str, keyfile: str) -> ssl.SSLContext | None:
    """None without a certificate. Raises Misconfigured."""
    if not certfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile or None)
    except OSError as error:
        raise Misconfigured("--certfile", f"cannot be used: {error}") from error
    return context
