"""As much of HTTP as a few small pages need: one request's head in, one answer's bytes out. No socket, no clock."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

HEAD_BYTES_MAX = 8192  # what most servers allow
HEADERS_MAX = 100  # http.client's own limit

_END = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(r"([!-~]+) ([!-~]+) HTTP/(\d)\.\d")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/]+)(?::\d{0,5})?")


class Request(NamedTuple):
    method: str  # GET | HEAD
    path: str  # without the query


class Page(NamedTuple):
    status: int
    type: str
    body: bytes


class Refusal(Exception):
    """The request is answered with this status and a line of text."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.page = Page(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def head_end(received: bytes | bytearray) -> int | None:
    """Where the head is over; None while more of it has to come. Raises Refusal for one that is too large."""
    found = _END.search(received, 0, HEAD_BYTES_MAX)
    if found is not None:
        return found.end()
    if len(received) >= HEAD_BYTES_MAX:
        raise Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {HEAD_BYTES_MAX} bytes")
    return None


def read_request(head: bytes, hosts: frozenset[str] | None) -> Request:
    """``hosts``: names under which we may be asked, beside addresses; None: any (a Unix socket). Raises Refusal."""
    lines = head.decode("latin-1").replace("\r\n", "\n").rstrip("\n").split("\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    if line is None:
        raise Refusal(HTTPStatus.BAD_REQUEST, "this is not HTTP/1")
    method, target, major = line.groups()
    if major != "1":
        raise Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.0 and HTTP/1.1 are understood")
    found_hosts = _hosts_of(lines[1:])
    if len(found_hosts) > 1:
        raise Refusal(HTTPStatus.BAD_REQUEST, "a request has one Host")
    # None at all is let pass, though HTTP/1.1 demands one: browsers always send it, scripts may not.
    if hosts is not None and found_hosts and not is_allowed(found_hosts[0], hosts):
        # A page of somebody else's whose name was made to mean this address (DNS rebinding) must read nothing.
        raise Refusal(HTTPStatus.MISDIRECTED_REQUEST, "nothing is served under that Host")
    if method not in ("GET", "HEAD"):
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "GET and HEAD are understood")
    if not target.startswith("/"):
        raise Refusal(HTTPStatus.BAD_REQUEST, "ask for a path")
    return Request(method, target.partition("?")[0])


def _hosts_of(lines: list[str]) -> list[str]:
    if len(lines) > HEADERS_MAX:
        raise Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {HEADERS_MAX} headers")
    found = []
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None or not header[2].isprintable():
            raise Refusal(HTTPStatus.BAD_REQUEST, "a header cannot be read")
        if header[1].lower() == "host":
            found.append(header[2])
    return found


def is_allowed(host: str, names: Iterable[str]) -> bool:
    """Whether a Host header names this machine: loopback, an address, or one of the names."""
    authority = _AUTHORITY.fullmatch(host)
    if authority is None:
        return False
    name = authority[1].strip("[]").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        name = name.removesuffix(".")
        return name == "localhost" or name.endswith(".localhost") or name in names
    return True


def write_answer(page: Page, method: str = "GET") -> bytes:
    """The whole answer; it ends the connection."""
    allow = "Allow: GET, HEAD\r\n" if page.status == HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\n"
        f"Content-Type: {page.type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        f"{allow}"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if method == "HEAD" else page.body)
