"""What slow clients have not taken yet waits in files without a name, so that it keeps no statement and no connection waiting."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import IO

from starlette.types import Message

from ingest.front.client import Client

SPOOLS_BYTES_MAX = 2 * 1024 * 1024 * 1024  # of a process: seventy times all facts of 1000 nodes
SPOOL_BYTES_MAX = 256 * 1024 * 1024  # of one answer
READ_BYTES = 192 * 1024


class Spools:
    """Of one process. ``turn``: one of them at a time is put away, so that nobody's small question waits behind fifty."""

    def __init__(self) -> None:
        self.free_bytes = SPOOLS_BYTES_MAX
        self.turn = asyncio.Semaphore(1)


class Spool:
    """Of one answer: filled, then emptied, several times if its room is too small."""

    def __init__(self, spools: Spools) -> None:
        self._spools = spools
        self._file: IO[bytes] | None = None
        self._size = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spools.free_bytes += self._size
        if self._file is not None:
            self._file.close()

    @property
    def turn(self) -> asyncio.Semaphore:
        return self._spools.turn

    def put(self, piece: bytes) -> bool:
        """Whether there was room for it, on the disk too."""
        if self._size + len(piece) > SPOOL_BYTES_MAX or len(piece) > self._spools.free_bytes:
            return False
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  closed by __exit__
            self._file.seek(self._size)
            written = 0
            while written < len(piece):
                written += self._file.write(piece[written:])
        except OSError:
            return False
        self._size += len(piece)
        self._spools.free_bytes -= len(piece)
        return True

    def take(self) -> Iterator[bytes]:
        """All that was put in, in pieces; then it is empty."""
        at = 0
        while self._file is not None and at < self._size:
            self._file.seek(at)
            piece = self._file.read(min(READ_BYTES, self._size - at))
            at += len(piece)
            yield piece
        self._spools.free_bytes += self._size
        self._size = 0


async def give_or_put_away(
    client: Client, spool: Spool, piece: bytes, more: Callable[[asyncio.Semaphore | None], Awaitable[bytes]]
) -> None:
    """The piece and all that comes after it, until ``more`` has nothing; what he has not taken then is in the spool. ``more`` is
    told whose turn it waits for when what it gives is to be put away."""
    while piece:
        if not await client.takes(part(piece)):
            while piece and spool.put(piece):
                piece = await more(spool.turn)
            if not piece:
                return
            for before in spool.take():  # there is no room for all of it: it waits for him here
                await client.give(part(before))
            await client.give(part(piece))
        await asyncio.sleep(0)  # whoever else waits, however fast it comes
        piece = await more(None)


def part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}
