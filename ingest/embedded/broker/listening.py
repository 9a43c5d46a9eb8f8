"""Where the embedded broker listens, and the certificate that it shows."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple

from ingest.errors import Misconfigured, Unavailable

BACKLOG = 128  # connections the kernel completes before we accept them


class Place(NamedTuple):
    """Where to listen, and with a certificate speak TLS."""

    host: str
    port: int
    certfile: str = ""
    keyfile: str = ""
    setting: str = "--certfile"  # whose the certificate is

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Listener(NamedTuple):
    listening: socket.socket
    tls: ssl.SSLContext | None

    def accept(self) -> tuple[socket.socket, str]:
        """The next client, and where it is. Raises OSError."""
        opened, peer = self.listening.accept()
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            opened = self.tls.wrap_socket(opened, server_side=True, do_handshake_on_connect=False)
        return opened, f"{peer[0]}:{peer[1]}"


def open_listeners(*places: Place) -> list[Listener]:
    """All or none. Raises Misconfigured and Unavailable."""
    opened: list[Listener] = []
    try:
        for place in places:
            tls = tls_context(place)
            opened.append(Listener(listen(place.host, place.port), tls))
    except BaseException:
        for listener in opened:
            listener.listening.close()
        raise
    return opened


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


def tls_context(place: Place) -> ssl.SSLContext | None:
    """None without a certificate. Raises Misconfigured."""
    if not place.certfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(place.certfile, place.keyfile or None)
    except OSError as error:
        why = "no certificate in PEM with its key" if isinstance(error, ssl.SSLError) else error.strerror
        files = " and ".join(file for file in (place.certfile, place.keyfile) if file)
        raise Misconfigured(place.setting, f"{files}: {why}") from error
    return context
