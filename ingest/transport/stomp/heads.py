"""Heads of frames that are not as they should be: longer than anybody needs, without an end, or with a wrong length.

Nothing of it is ever met with a broker and a producer in good order; its cost lies there alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from ingest.transport.stomp.codec import end_of_head, read_head

HEADERS_BYTES_MAX = 64 * 1024  # a frame's command and headers; ours take about 500 bytes
VALUE_BYTES_MAX = 8 * 1024  # of one header in a head that is too long
# What is kept of such a head: what settles the message, and what says whose it is.
_KEPT = re.compile(
    rb"\n(content-length|message-id|ack|subscription|destination|redelivered|receipt-id|message|certname|producer|"
    rb"producer_timestamp|transaction_uuid|environment|job_id|command|version|content-type):([^\n]{0,%d}+)(?=\n)"
    % VALUE_BYTES_MAX
)
# A frame that ends within its head: a NUL where no header can begin, or one behind which another frame begins.
_ENDED = re.compile(rb"(?<=\n)\0|\0(?=[\r\n]*(?:MESSAGE|RECEIPT|ERROR)\r?\n)")
_MARK_BYTES = 64  # in which that can be told
# What another delivery of the same message has other values of.
_OF_A_DELIVERY = ("message-id", "ack", "subscription", "redelivered")


def end_within(buffer: bytearray, start: int, end: int) -> int:
    """Where the NUL stands that ends a frame before its body begins, or -1."""
    if buffer.find(b"\0", start, end) < 0:
        return -1
    found = _ENDED.search(buffer, start, end)
    return found.start() if found else -1


class LongHead:
    """A head of any length in bounded memory: its lines pass by, what is known of them stays.

    Of the buffer it leaves the last line feed and what follows it, so that the blank line is found wherever the
    bytes were cut.
    """

    def __init__(self) -> None:
        self.bytes = 0  # that have passed
        self.has_body = True
        self._command: bytes | None = None
        self._headers: dict[bytes, bytes] = {}
        self._is_inside_line = False

    def take(self, buffer: bytearray, start: int, end: int) -> tuple[int, bool]:
        """(where what is not looked at yet begins, whether the head ended there). Called until it has."""
        head_end, body_start = end_of_head(buffer, start, end)
        nul = end_within(buffer, start, end if head_end < 0 else head_end)
        if nul >= 0:
            head_end = body_start = nul
            self.has_body = False
        if head_end >= 0:
            self._look_at(bytes(memoryview(buffer)[start:head_end]) + b"\n")
            self.bytes += head_end - start
            return body_start, True
        until, is_cut = self._last_line(buffer, start, end)
        self._look_at(bytes(memoryview(buffer)[start:until]) + (b"" if is_cut else b"\n"))
        self._is_inside_line = is_cut
        self.bytes += until - start
        return until, False

    def parsed(self, version: str) -> tuple[str, dict[str, str]]:
        lines = [(self._command or b"").rstrip(b"\r")]
        lines += [name + b":" + value.rstrip(b"\r") for name, value in self._headers.items()]
        return read_head(b"\n".join(lines), version)

    def _last_line(self, buffer: bytearray, start: int, end: int) -> tuple[int, bool]:
        """(where the last line feed stands, False); where a line is cut and True when there is none for long."""
        # A NUL shortly before the end may turn out to be the end of the frame.
        nul = buffer.rfind(b"\0", max(start, end - _MARK_BYTES), end)
        limit = end if nul < 0 else nul
        last = buffer.rfind(b"\n", start, limit)
        if last > start or (last == start and self._is_inside_line):
            return last, False
        if self._is_inside_line or limit - start > 2 * VALUE_BYTES_MAX:
            return limit, True
        return start, False

    def _look_at(self, lines: bytes) -> None:
        """Whole lines behind their line feeds; the first one may be the rest of one that is too long."""
        if self._command is None:
            command, feed, rest = lines.partition(b"\n")
            self._command = command[:_MARK_BYTES]
            lines = feed + rest
        elif self._is_inside_line:
            lines = lines[lines.find(b"\n") :] if b"\n" in lines else b""
        for match in _KEPT.finditer(lines):
            self._headers.setdefault(match[1], match[2])


class DamagedFrames:
    """Frames whose end was not where they said, remembered over reconnects: at their next delivery it is looked for.

    The same message is told by its id, or by its other headers where the broker numbers deliveries (RabbitMQ).
    """

    REMEMBERED_MAX = 1000

    def __init__(self) -> None:
        self._marks: dict[bytes, None] = {}

    def remember(self, headers: Mapping[str, str]) -> None:
        for mark in _marks(headers):
            self._marks[mark] = None
        while len(self._marks) > self.REMEMBERED_MAX:
            del self._marks[next(iter(self._marks))]

    def know(self, headers: Mapping[str, str]) -> bool:
        return bool(self._marks) and any(mark in self._marks for mark in _marks(headers))


def _marks(headers: Mapping[str, str]) -> list[bytes]:
    others = sorted(item for item in headers.items() if item[0] not in _OF_A_DELIVERY)
    return [_digest(headers.get("message-id") or repr(others)), _digest(repr(others))]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
