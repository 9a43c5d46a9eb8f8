"""The head of a STOMP frame, its command and headers, to and from bytes in each version of the protocol.

STOMP 1.0 has no escapes; 1.1 escapes line feed, colon and backslash; 1.2 carriage return as well, and lets
lines end in CR LF. CONNECT and CONNECTED are never escaped, so that every version can read them. Bytes that
are not UTF-8 pass through unchanged (surrogateescape): a broker has no reason to lose them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ingest.errors import IngestError

UNESCAPED_COMMANDS = frozenset({"CONNECT", "STOMP", "CONNECTED"})

_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
_MEANINGS = {"n": "\n", "c": ":", "\\": "\\", "r": "\r"}
_ESCAPES = {
    # 1.0 cannot express a line feed; written raw it would forge a header line.
    "1.0": str.maketrans({"\n": "\\n"}),
    "1.1": str.maketrans({"\\": "\\\\", "\n": "\\n", ":": "\\c"}),
    "1.2": str.maketrans({"\\": "\\\\", "\n": "\\n", ":": "\\c", "\r": "\\r"}),
}


class HangUp(IngestError):
    """The peer broke the protocol or a limit: say why in an ERROR frame, then hang up.

    ``receipt`` is what the offending frame asked to have confirmed, as far as it could be read.
    """

    def __init__(self, text: str, receipt: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.receipt = receipt


def read_head(head: bytes, version: str | None, *, headers_max: int) -> tuple[str, dict[str, str]]:
    """Command and headers of the bytes before the empty line. ``version`` is None until it is agreed."""
    if b"\0" in head:
        raise HangUp("a frame ended before the empty line that ends its headers")
    lines = head.decode("utf-8", "surrogateescape").split("\n")
    if version not in ("1.0", "1.1"):
        lines = [line.removesuffix("\r") for line in lines]
    if len(lines) - 1 > headers_max:
        raise HangUp(f"a frame has more than {headers_max} headers")
    command = lines[0]
    escaped = version in ("1.1", "1.2") and command not in UNESCAPED_COMMANDS
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise HangUp("a header line has no colon")
        if version == "1.0":
            name, value = name.strip(), value.strip()  # its specification writes "login: user"
        elif escaped and "\\" in line:
            name, value = _unescape(name, version), _unescape(value, version)
        headers.setdefault(name, value)  # the first of a repeated header counts
    return command, headers


def write_head(command: str, headers: Mapping[str, str], version: str | None) -> bytes:
    """The bytes up to and including the empty line."""
    lines = [command]
    escapes = None if command in UNESCAPED_COMMANDS else _ESCAPES.get(version or "")
    if escapes is None:
        lines += [f"{name}:{value}" for name, value in headers.items()]
    elif version == "1.0":
        lines += [f"{name}:{value}".translate(escapes) for name, value in headers.items()]
    else:
        lines += [f"{name.translate(escapes)}:{value.translate(escapes)}" for name, value in headers.items()]
    lines.append("\n")
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _unescape(text: str, version: str | None) -> str:
    def meaning(match: re.Match[str]) -> str:
        letter = match[1]
        if letter == "r" and version == "1.1":
            return match[0]  # not an escape of that version
        if letter not in _MEANINGS:
            if version == "1.1":
                return match[0]  # only 1.2 calls the undefined ones fatal
            raise HangUp(f"a header holds the undefined escape \\{letter}")
        return _MEANINGS[letter]

    return _ESCAPED.sub(meaning, text)
