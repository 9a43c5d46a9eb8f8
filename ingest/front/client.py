"""Who takes an answer: at his own pace, as long as he takes anything at all."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.types import Message, Scope, Send

from ingest.front.patience import ClientGone

PATIENCE_S = 0.5  # that a statement waits for him in all; a quick one takes 192 KiB in a millisecond


class Client:
    """``silence_s``: one that takes nothing for that long has gone."""

    def __init__(self, scope: Scope, send: Send, silence_s: float) -> None:
        self._scope: Any = scope
        self._send, self._silence_s = send, silence_s
        self._patience_s = PATIENCE_S

    async def ready(self) -> None:
        """When he has taken what was sent before. Raises ClientGone."""
        while self._scope["is_behind"]():
            unsent = self._scope["unsent"]()
            try:
                async with asyncio.timeout(self._silence_s):
                    await self._scope["taken"]()
                break
            except TimeoutError:
                if self._scope["unsent"]() >= unsent:
                    raise ClientGone from None
        self.require_here()

    def require_here(self) -> None:
        """Raises ClientGone for one that has left."""
        if self._scope["leaving"].done():
            raise ClientGone

    async def give(self, message: Message) -> None:
        """When he is ready. Raises ClientGone."""
        await self.ready()
        await self._send(message)

    async def takes(self, message: Message) -> bool:
        """The same, as long as there is patience: else it has not been sent."""
        if not self._scope["is_behind"]():
            await self.give(message)
            return True
        start_s = time.monotonic()
        try:
            async with asyncio.timeout(self._patience_s):
                await self.ready()
        except TimeoutError:
            return False
        finally:
            self._patience_s = max(0.0, self._patience_s - (time.monotonic() - start_s))
        await self._send(message)
        return True
