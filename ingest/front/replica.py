"""Queries that a replica answers: each says how far behind it is, and one that asks for it waits until it has caught up."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from ingest.config.settings import Config
from ingest.core.query.ast import BadQuery
from ingest.front.patience import Patience
from ingest.front.readers import Readers
from ingest.front.refusal import Refusal
from ingest.store.query.running import RunningQuery, written_so_far

BEHIND = b"x-replica-behind"  # of an answer: seconds
WAIT = "x-replica-wait"  # of a request: seconds
WAIT_S_MAX = 600.0
POLL_S = 0.01

Header = tuple[bytes, bytes]


class Replica:
    """Of one process. Where queries are asked of the primary itself it has nothing to say."""

    def __init__(self, config: Config) -> None:
        self._primary = Readers(config, config.database) if config.http_database and config.database else None

    async def look(self, request: Request, patience: Patience, running: RunningQuery) -> list[Header]:
        """What the answer says of it, after the wait that the request asks for. Raises BadQuery or Refusal."""
        wait_s = _wanted_s(request.headers.get(WAIT))
        behind_s = await patience.carry_out(running.lag_s())
        if behind_s is None:
            return []
        if wait_s is not None:
            await self._wait(wait_s, patience, running)
            behind_s = await patience.carry_out(running.lag_s(is_new=True))
        return [] if behind_s is None else [(BEHIND, b"%.1f" % behind_s)]

    async def _wait(self, wait_s: float, patience: Patience, running: RunningQuery) -> None:
        """Until the replica shows all that the primary had committed when the request came."""
        position = await self._written_so_far()
        ends_s = asyncio.get_running_loop().time() + wait_s
        while not await patience.carry_out(running.has_replayed(position)):
            if asyncio.get_running_loop().time() >= ends_s:
                raise Refusal(503, f"the replica has not caught up within {wait_s:g} s ({WAIT})")
            await asyncio.sleep(POLL_S)

    async def _written_so_far(self) -> str:
        position = None
        if self._primary is not None:
            async with self._primary.connection() as connection:
                position = await self._primary.step(written_so_far, connection)
        if position is None:
            raise Refusal(503, f"{WAIT}: this server knows no primary to compare with (--database)")
        return position

    def close(self) -> None:
        if self._primary is not None:
            self._primary.close()


def _wanted_s(given: str | None) -> float | None:
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_S_MAX:
        raise BadQuery(
            f"Illegal value '{given[:200]}' of the header {WAIT}; expected 0 to {WAIT_S_MAX:g} seconds"
        )
    return seconds
