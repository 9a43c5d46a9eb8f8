"""One part of a multipart/form-data body, as it comes: a file of any size is in memory a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from ingest.front.refusal import Refusal

BOUNDARY_BYTES_MAX = 200


def boundary_of(content_type: str) -> bytes:
    """Raises Refusal, 415, for another type."""
    kind, parameters = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise Refusal(415, "an archive is sent as multipart/form-data, in a part named 'archive'")
    boundary = parameters.get(b"boundary", b"")
    if not 0 < len(boundary) <= BOUNDARY_BYTES_MAX:
        raise Refusal(400, "the multipart body has no boundary")
    return boundary


class PartReader:
    """``feed`` it the body; ``found`` says whether the part was there, ``is_whole`` whether its end was."""

    def __init__(self, boundary: bytes, name: str) -> None:
        self._name = name.encode()
        self._pieces: list[bytes] = []  # of the part, since the last ``feed``
        self._field = self._value = b""  # of the head that is read
        self._is_wanted = False
        self.found = self.is_whole = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._hear_field,
                "on_header_value": self._hear_value,
                "on_header_end": self._end_header,
                "on_part_data": self._hear_data,
                "on_part_end": self._end_part,
            },
        )

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What of the part is in it. Raises Refusal for what is not multipart."""
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise Refusal(400, f"the multipart body cannot be read: {str(error)[:200]}") from error
        pieces, self._pieces = self._pieces, []
        yield from pieces

    def _hear_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _hear_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, parameters = parse_options_header(self._value)
            self._is_wanted = parameters.get(b"name") == self._name and not self.found
            self.found = self.found or self._is_wanted
        self._field = self._value = b""

    def _hear_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_wanted:
            self._pieces.append(data[start:end])

    def _end_part(self) -> None:
        self.is_whole = self.is_whole or self._is_wanted
        self._is_wanted = False
