"""The head of a STOMP frame, its command and headers, to and from bytes in each version of the protocol: for the
engine, the publisher and the embedded broker alike.

STOMP 1.0 has no escapes; 1.1 escapes line feed, colon and backslash; 1.2 carriage return as well, and lets lines end in
CR LF. CONNECT and CONNECTED are never escaped, so that every version can read them; neither is anything before a version
is agreed on (``version`` is None). Of a repeated header the first counts (STOMP 1.2, "Repeated Header Entries"). Bytes
that are not UTF-8 become lone surrogates (PEP 383) and these the same bytes again, so that an acknowledgement can say
what stood there, and a broker loses nothing.

There is a lenient way to read and a strict one. The engine is lenient: whatever a broker passes on from a producer, the
message can be acknowledged. The embedded broker is strict, as its clients are then told what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ingest.errors import IngestError

DIGITS_MAX = 15  # of a content-length: a petabyte
EMPTY_LINE_BYTES = 3  # LF CR LF at most

_UNESCAPED_COMMANDS = frozenset({"CONNECT", "STOMP", "CONNECTED"})
_LF_ONLY = ("1.0", "1.1")  # where a carriage return belongs to the header
_DEFINED_IN_1_2 = re.compile(r"(?:[^\\]|\\[nrc\\])*+")


class Malformed(IngestError):
    """The frame breaks the protocol: say why in an ERROR frame, then hang up."""


def read_head(head: bytes, version: str | None) -> tuple[str, dict[str, str]]:
    """Command and headers of the bytes before the empty line, whatever they are: a line without a colon is a header
    without a value, an escape that is none stands for itself, CR LF ends a line in each version."""
    if b"\r" in head:
        head = head.replace(b"\r\n", b"\n").removesuffix(b"\r")
    return _read_lines(head.decode("utf-8", "surrogateescape").split("\n"), version)


def read_head_strictly(head: bytes, version: str | None, *, headers_max: int) -> tuple[str, dict[str, str]]:
    """The same of bytes that have to be as the version says. Raises Malformed."""
    if b"\0" in head:
        raise Malformed("a frame ended before the empty line that ends its headers")
    lines = head.decode("utf-8", "surrogateescape").split("\n")
    if b"\r" in head and version not in _LF_ONLY:
        lines = [line.removesuffix("\r") for line in lines]
    if len(lines) - 1 > headers_max:
        raise Malformed(f"a frame has more than {headers_max} headers")
    if [line for line in lines[1:] if ":" not in line]:
        raise Malformed("a header line has no colon")
    if b"\\" in head and version == "1.2" and lines[0] not in _UNESCAPED_COMMANDS:
        for line in lines[1:]:
            _check_escapes(line)
    return _read_lines(lines, version)


def write_head(command: str, headers: Mapping[str, str], version: str | None) -> bytes:
    """The bytes up to and including the empty line. A NUL, or a body and a NUL, make a frame of them."""
    if version is None or command in _UNESCAPED_COMMANDS:
        lines = [f"{name}:{value}" for name, value in headers.items()]
    else:
        lines = [f"{_escape(name, version)}:{_escape(value, version)}" for name, value in headers.items()]
    return "\n".join((command, *lines, "\n")).encode("utf-8", "surrogateescape")


def write_acks(messages: Sequence[tuple[str, str]], subscription: str, version: str) -> bytes:
    """A frame for each (ack header, message-id). Not with ``write_head``, which takes three times as long: one of these
    is written for each message."""
    if version == "1.2":
        frames = [f"ACK\nid:{_escape(ack, version)}\n\n\0" for ack, _ in messages]
    elif version == "1.1":
        own = _escape(subscription, version)
        frames = [f"ACK\nmessage-id:{_escape(id_, version)}\nsubscription:{own}\n\n\0" for _, id_ in messages]
    else:
        frames = [f"ACK\nmessage-id:{_escape(id_, version)}\n\n\0" for _, id_ in messages]
    return "".join(frames).encode("utf-8", "surrogateescape")


def end_of_head(buffer: bytearray, start: int, end: int, version: str | None = None) -> tuple[int, int]:
    """(where the headers end, where the body starts), or (-1, -1) while the empty line is not here."""
    plain = buffer.find(b"\n\n", start, end)
    if version not in _LF_ONLY:
        # Not beyond the first line feed of "plain", but up to it: in LF CR LF LF the body begins with the last one.
        carriage = buffer.find(b"\n\r\n", start, end if plain < 0 else plain + 1)
        if carriage >= 0:
            return carriage, carriage + 3
    return (plain, plain + 2) if plain >= 0 else (-1, -1)


def content_length(headers: Mapping[str, str]) -> int | None:
    """None without that header, and where it is not a length: a NUL ends such a body."""
    text = headers.get("content-length", "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > DIGITS_MAX:
        return None
    return int(text)


def _read_lines(lines: list[str], version: str | None) -> tuple[str, dict[str, str]]:
    command = lines[0]
    is_escaped = version not in (None, "1.0") and command not in _UNESCAPED_COMMANDS
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if is_escaped:
            if "\\" in line:
                name, value = _unescape(name, version), _unescape(value, version)
        elif version == "1.0":
            name, value = name.strip(), value.strip()  # its specification writes "login: user"
        headers.setdefault(name, value)
    return command, headers


def _unescape(text: str, version: str | None) -> str:
    if "\\\\" in text:  # what stands between two of them has escapes of its own
        return "\\".join([_unescape(part, version) for part in text.split("\\\\")])
    text = text.replace("\\n", "\n").replace("\\c", ":")
    return text.replace("\\r", "\r") if version == "1.2" else text


def _escape(text: str, version: str) -> str:
    if version == "1.0":
        return text.replace("\n", "\\n")  # it cannot say a line feed; a raw one would forge a header
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace(":", "\\c")
    return text.replace("\r", "\\r") if version == "1.2" else text


def _check_escapes(line: str) -> None:
    if "\\" in line:
        rest = _DEFINED_IN_1_2.sub("", line, count=1)
        if rest:
            raise Malformed(f"a header holds the undefined escape {rest[:2]}")
