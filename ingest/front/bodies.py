"""Bodies of requests: as they come, bounded in size and in silence; large ones in a file without a name.

So many large commands at once cost disk, or page cache, and not memory: the broker is sent the file's own pages.
"""

from __future__ import annotations

import asyncio
import mmap
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import IO

from starlette.requests import ClientDisconnect, Request

from ingest.front.refusal import Refusal

IN_MEMORY_BYTES = 1024 * 1024  # most catalogs have less
SMALL_BYTES = 64 * 1024  # of each of as many clients as there may be connections
INFLATED_BYTES = 256 * 1024  # what is taken out of a compressed piece at once
DRAINED_BYTES = (
    1024 * 1024 * 1024
)  # a body that is too large is heard out so far: many read no answer before they have sent all
GZIP_WINDOW = 31  # zlib's number for "with a gzip header"
ENCODINGS = ("", "identity", "gzip")


class Body:
    """Written once, then read as a view."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115  closed by ``close``
        self.size = 0

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self.size += len(piece)

    def view(self) -> bytes | memoryview:
        """It holds as long as somebody has it, also when the body has been closed."""
        if self.size <= IN_MEMORY_BYTES:
            self._file.seek(0)
            return self._file.read()
        self._file.flush()
        return memoryview(mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ))

    def close(self) -> None:
        self._file.close()


async def pieces(request: Request, silence_s: float) -> AsyncIterator[bytes]:
    """What comes, as it comes. Raises Refusal for a client that falls silent or leaves."""
    stream = request.stream().__aiter__()
    while True:
        try:
            piece = await asyncio.wait_for(anext(stream, None), silence_s)
        except TimeoutError:
            raise Refusal(408, f"nothing more of the request came for {silence_s:g} s") from None
        except ClientDisconnect:
            raise Refusal(400, "the client left in the middle of its request") from None
        if piece is None:
            return
        yield piece


def has_body(request: Request) -> bool:
    """Whether any comes: what has neither a length nor is sent in chunks has none."""
    headers = request.headers
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def read_body(request: Request, bytes_max: int, silence_s: float) -> bytes:
    """All of a small one. Raises Refusal."""
    found: list[bytes] = []
    size = 0
    async for piece in pieces(request, silence_s):
        size += len(piece)
        if size <= bytes_max:
            found.append(piece)
        elif size > DRAINED_BYTES:
            break
    if size > bytes_max:
        raise Refusal(413, f"the request has more than {bytes_max} bytes")
    return b"".join(found)


async def read_into(
    body: Body,
    request: Request,
    *,
    bytes_max: int,
    silence_s: float,
    before_large: Callable[[], Awaitable[None]],
) -> None:
    """The request's body, unpacked. ``before_large`` is waited for before a body takes room. Raises Refusal."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ENCODINGS:
        raise Refusal(415, f"content encoding {encoding[:100]} not supported")
    inflating = zlib.decompressobj(GZIP_WINDOW) if encoding == "gzip" else None
    limit, came = body.size + bytes_max, 0
    async for piece in pieces(request, silence_s):
        came += len(piece)
        if came > DRAINED_BYTES:
            break
        if body.size > limit:
            continue
        for plain in [piece] if inflating is None else _inflated(piece, inflating):
            body.write(plain)
            if body.size > limit:
                break
        if body.size > SMALL_BYTES:
            await before_large()
    if body.size > limit:
        raise Refusal(413, "Command size exceeds max-command-size")
    if inflating is not None and not inflating.eof:
        raise Refusal(400, "the gzip of the body ends in the middle", is_json=True)


def _inflated(piece: bytes, inflating: zlib._Decompress) -> Iterator[bytes]:
    """A bounded part of its contents at a time."""
    while piece and not inflating.eof:
        try:
            yield inflating.decompress(piece, INFLATED_BYTES)
        except zlib.error as error:
            raise Refusal(400, f"the body is not gzip: {error}", is_json=True) from error
        piece = inflating.unconsumed_tail
