"""One part of a multipart/form-data body, as it comes: a file of any size is in memory a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.front.refusal import Refusal

HEAD_BYTES_MAX = 16 * 1024  # of one part
_END = b"\r\n\r\n"


def boundary_of(content_type: str) -> bytes:
    """Raises Refusal, 415, for another type."""
    kind, *parameters = content_type.split(";")
    if kind.strip().lower() != "multipart/form-data":
        raise Refusal(415, "an archive is sent as multipart/form-data, in a part named 'archive'")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "boundary" and 0 < len(value.strip('"')) <= 200:
            return value.strip('"').encode("latin-1", "replace")
    raise Refusal(400, "the multipart body has no boundary")


class PartReader:
    """``feed`` it the body; ``found`` says whether the part was there, ``is_whole`` whether its end was."""

    def __init__(self, boundary: bytes, name: str) -> None:
        self._mark = b"\r\n--" + boundary
        self._name = name
        self._buffer = bytearray(b"\r\n")  # the first boundary has no line before it
        self._state = "outside"  # then "head", then "wanted" or "outside"
        self.found = self.is_whole = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What of the part is in it."""
        self._buffer += piece
        while not self.is_whole:
            if self._state == "head":
                if not self._read_head():
                    return
                continue
            at = self._buffer.find(self._mark)
            if at < 0:
                known = len(self._buffer) - len(self._mark)  # what follows may be a mark's beginning
                if known > 0:
                    yield from self._part(known)
                return
            yield from self._part(at)
            del self._buffer[: len(self._mark)]
            self.is_whole = self._state == "wanted"
            self._state = "head"

    def _part(self, size: int) -> Iterator[bytes]:
        if self._state == "wanted" and size:
            yield bytes(self._buffer[:size])
        del self._buffer[:size]

    def _read_head(self) -> bool:
        if self._buffer.startswith(b"--"):
            self._state = "outside"  # the last boundary; what comes now is nobody's
            return True
        at = self._buffer.find(_END)
        if at < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise Refusal(400, "a part's head in the multipart body is too long")
            return False
        head = bytes(self._buffer[:at]).decode("utf-8", "replace")
        del self._buffer[: at + len(_END)]
        wanted = _name_of(head) == self._name
        self._state = "wanted" if wanted and not self.found else "outside"
        self.found = self.found or wanted
        return True


def _name_of(head: str) -> str:
    for line in head.split("\r\n"):
        field, _, value = line.partition(":")
        if field.strip().lower() == "content-disposition":
            for parameter in value.split(";"):
                name, _, text = parameter.strip().partition("=")
                if name.lower() == "name":
                    return text.strip('"')
    return ""
