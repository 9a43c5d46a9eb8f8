"""How a STOMP connection begins: TCP, TLS, CONNECT and what the broker answers.

Whatever goes wrong is told as what a person can change: an address, a login, a certificate; or as a broker that is
away.
"""

from __future__ import annotations

import os

os.environ.setdefault("STOMP_SKIP_HOSTNAME_SCAN", "1")  # stomp.py resolves every interface on import

import socket
import ssl
import time
from typing import NamedTuple

from stomp.utils import calculate_heartbeats

from ingest.errors import Misconfigured, Unavailable
from ingest.transport.stomp.codec import end_of_head, read_head, write_head
from ingest.transport.stomp.dialects import error_text
from ingest.transport.stomp.heads import HEADERS_BYTES_MAX

SOCKET_BUFFER_BYTES = 4 * 1024 * 1024  # the kernel cuts it to net.core.rmem_max
VERSIONS = "1.0,1.1,1.2"  # of STOMP
MS_DIGITS_MAX = 9  # of a heart-beat interval: eleven days
_NOT_YET = ("Processing error",)  # RabbitMQ while it starts; a login that it refuses is "Bad CONNECT"
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL's x509_vfy.h
_WRONG_NAME = (62, 64)


class Endpoint(NamedTuple):
    """Where a broker is and who we are there."""

    host: str
    port: int
    user: str | None
    password: str | None
    vhost: str
    tls: ssl.SSLContext | None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Opened(NamedTuple):
    """A socket behind its CONNECTED, non-blocking, and what was agreed on."""

    socket: socket.socket
    version: str
    server: str
    send_every_s: float  # our heart-beats; 0: none
    expect_every_s: float  # the broker's


def open_stomp(endpoint: Endpoint, timeout_s: float, heartbeat_s: float) -> Opened:
    """Connects and logs in. Raises Unavailable or Misconfigured."""
    deadline = time.monotonic() + timeout_s
    opened = _open_socket(endpoint, deadline)
    try:
        headers = {"accept-version": VERSIONS, "host": endpoint.vhost}
        if endpoint.user is not None:
            headers |= {"login": endpoint.user, "passcode": endpoint.password or ""}
        beat_ms = int(heartbeat_s * 1000)
        headers["heart-beat"] = f"{beat_ms},{beat_ms}"
        opened.sendall(write_head("CONNECT", headers, None) + b"\0")
        answer = _connected(opened, endpoint, deadline)
        opened.setblocking(False)
    except (OSError, Unavailable, Misconfigured) as error:
        opened.close()
        if isinstance(error, ssl.SSLError):  # TLS 1.3 refuses a client's certificate only now
            raise _no_tls(error, endpoint) from error
        if isinstance(error, OSError):
            raise Unavailable(
                f"{endpoint} broke off the STOMP handshake (--queue-source): {error.strerror or error}"
            ) from error
        raise
    version = answer.get("version", "1.0")
    send_ms = expect_ms = 0
    if "heart-beat" in answer and version != "1.0":
        send_ms, expect_ms = calculate_heartbeats(_intervals(answer["heart-beat"]), (beat_ms, beat_ms))
    return Opened(opened, version, answer.get("server", ""), send_ms / 1000, expect_ms / 1000)


def _open_socket(where: Endpoint, deadline: float) -> socket.socket:
    try:
        plain = socket.create_connection((where.host, where.port), timeout=_left_s(deadline))
    except OSError as error:
        raise Unavailable(
            f"no STOMP broker at {where} (--queue-source): {error.strerror or error}"
        ) from error
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.settimeout(_left_s(deadline))
        return plain if where.tls is None else where.tls.wrap_socket(plain, server_hostname=where.host)
    except OSError as error:
        plain.close()
        raise _no_tls(error, where) from error


def _connected(opened: socket.socket, where: Endpoint, deadline: float) -> dict[str, str]:
    """The headers of the broker's CONNECTED."""
    received = bytearray()
    silent = Unavailable(f"{where} does not answer in STOMP (--queue-source)")
    while (end := received.find(b"\0")) < 0:
        if time.monotonic() > deadline:
            raise silent  # a byte now and then prolongs nothing
        opened.settimeout(_left_s(deadline))
        try:
            data = opened.recv(4096)
        except TimeoutError as error:
            raise silent from error
        received += data
        if not data:
            # Some brokers close on a refused login without an ERROR frame.
            raise Unavailable(f"{where} closed the connection instead of CONNECTED (--queue-source)")
        if len(received) > HEADERS_BYTES_MAX:
            raise Misconfigured("--queue-source", f"{where} does not speak STOMP")
    frame = received[:end].lstrip(b"\r\n")
    head_end, body_start = end_of_head(frame, 0, len(frame))
    command, headers = read_head(bytes(frame if head_end < 0 else frame[:head_end]), None)
    if command == "ERROR":
        reason = error_text(headers, bytes(frame[body_start:]) if head_end >= 0 else b"")
        if reason in _NOT_YET:
            raise Unavailable(f"{where} is not ready: {reason}")
        raise Misconfigured("--queue-source", f"{where} refused the login: {reason}")
    if command != "CONNECTED":
        raise Misconfigured("--queue-source", f"{where} does not speak STOMP")
    return headers


def _intervals(text: str) -> list[str]:
    """The broker's two numbers of milliseconds; none where it says something else."""
    parts = text.replace(" ", "").split(",")
    are_numbers = all(part.isascii() and part.isdigit() and len(part) <= MS_DIGITS_MAX for part in parts)
    return parts if len(parts) == 2 and are_numbers else ["0", "0"]


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())


def _no_tls(error: OSError, where: Endpoint) -> Misconfigured | Unavailable:
    """What a failed TLS handshake means to whoever can change it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"the certificate of {where} is not trusted: {error.verify_message.rstrip('.')}"
        return Misconfigured("--queue-source" if error.verify_code in _WRONG_NAME else "--tls-ca-file", what)
    reason = getattr(error, "reason", None) or ""
    if "WRONG_VERSION_NUMBER" in reason:
        return Misconfigured("--queue-source", f"{where} does not speak TLS: its address is stomp://...")
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        told = reason.partition("ALERT_")[2].replace("_", " ").lower()
        return Misconfigured("--tls-cert-file", f"{where} wants a certificate that it trusts: {told}")
    # A port without TLS is silent, or closes: nothing tells it from a broker that is in trouble.
    if isinstance(error, TimeoutError):
        reason = "it does not answer"
    elif isinstance(error, ssl.SSLEOFError | ConnectionResetError):
        reason = "it closed the connection"
    return Unavailable(f"no TLS with {where} (--queue-source): {reason or error.strerror or error}")
