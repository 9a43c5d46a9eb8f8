"""A client's connection: uvicorn's, with what it does not do: whose certificate it was, and limits on what comes before a body.

No ASGI server tells the application of client certificates yet; ``scope["client_cn"]`` is ours.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from contextlib import suppress
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 256 * 1024  # an address with a query of thousands of names; what others need is in a POST
HEADERS_MAX = 200
CONTINUE = b"HTTP/1.1 100 "


class FrontProtocol(HttpToolsProtocol):
    """``allowlist``: the names that are let in; None: all who got this far. With tokens a name is needed, or a token."""

    def __init__(
        self,
        *arguments: Any,
        allowlist: frozenset[str] | None = None,
        has_tokens: bool = False,
        silence_s: float = 30.0,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._allowlist = allowlist
        self._has_tokens = has_tokens
        self._silence_s = silence_s
        self._cn: str | None = None
        self._head_bytes = self._unread_bytes = 0
        self._too_late: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Future[None]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cn = common_name(transport.get_extra_info("peercert"))
        self._leaving = self.loop.create_future()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        if not self._leaving.done():
            self._leaving.set_result(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # The parser tells of a name when all of it has come, and keeps it until then.
        if self._too_late is not None:
            self._unread_bytes += len(data)
            if self._unread_bytes > HEAD_BYTES_MAX + len(data):
                self.send_400_response("Invalid HTTP request received.")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._wait_for_head()
        scope: Any = self.scope
        scope["client_cn"] = self._cn
        scope["abort"] = self.transport.abort
        scope["leaving"] = self._leaving  # done when the client has left
        scope["is_behind"] = self._is_behind  # whether more than a little of what was sent is still here
        scope["taken"] = self.flow.drain  # waits until it is not
        scope["unsent"] = self._unsent
        is_anonymous = self._cn is None and self._has_tokens  # who then needs one
        scope["is_let_in"] = not is_anonymous and (self._allowlist is None or self._cn in self._allowlist)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if len(self.headers) >= HEADERS_MAX:
            raise httptools.HttpParserError(f"more than {HEADERS_MAX} headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()
        cycle: Any = self.cycle
        if cycle is not None:
            cycle.transport = _OneWrite(cycle.transport, self.loop)

    def _is_behind(self) -> bool:
        return bool(self.flow.write_paused)

    def _unsent(self) -> int:
        """Bytes that the client's machine has not acknowledged."""
        transport: Any = self.transport
        waiting = array.array("i", [0])
        with suppress(OSError, ValueError):  # it has been closed
            fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
        return int(transport.get_write_buffer_size()) + waiting[0]

    def _count(self, more: int) -> None:
        self._head_bytes += more
        if self._head_bytes > HEAD_BYTES_MAX:
            raise httptools.HttpParserError(f"more than {HEAD_BYTES_MAX} bytes before the body")

    def _wait_for_head(self) -> None:
        self._head_came()
        self._too_late = self.loop.call_later(self._silence_s, self.transport.close)

    def _head_came(self) -> None:
        self._unread_bytes = 0
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None


class _OneWrite:
    """What one answer is written to: its head goes with what follows at once, in one packet, and wakes nobody before."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head: bytes | None = b""  # None: it has been written

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._transport.write(data)
        elif self._head:
            self._transport.write(self._head + data)
            self._head = None
        elif data.startswith(CONTINUE):
            self._transport.write(data)
        else:
            self._head = data
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = None

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


def common_name(certificate: Any) -> str | None:
    """Of a certificate as Python's ssl gives it; the last one, where there are several, as Java's libraries have it."""
    names = [
        value
        for part in (certificate or {}).get("subject", ())
        for name, value in part
        if name == "commonName"
    ]
    return names[-1] if names else None
