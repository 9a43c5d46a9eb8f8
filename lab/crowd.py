"""Clients that nobody likes, in a process of their own: idle ones, some that take an answer slowly, some that send slowly.

``python -m lab.crowd PORT IDLE READERS SENDERS BYTES_PER_S PATH``. Whoever is let go comes again. It says ``ready`` when all have
come, and when its standard input ends, as JSON, what they met with.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

KERNEL_BYTES = 16 * 1024  # what a client's kernel takes for it: as little as it can
HEAD = b"GET /pdb/query/v4/nodes HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 64
BODY = b"POST /pdb/query/v4 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n"


@contextmanager
def crowd(
    port: int, *, idle: int, readers: int, senders: int, bytes_per_s: int, path: str
) -> Iterator[dict[str, int]]:
    """They are there within; what they met with is in the dict afterwards."""
    numbers = map(str, (port, idle, readers, senders, bytes_per_s))
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.crowd", *numbers, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    met: dict[str, int] = {}
    try:
        yield met
    finally:
        met |= json.loads(process.communicate(timeout=30)[0] or "{}")


class _Crowd:
    def __init__(self, port: int, bytes_per_s: int, path: str) -> None:
        self._port, self._bytes_per_s, self._path = port, bytes_per_s, path
        self._loop = asyncio.get_running_loop()
        self.met: Counter[str] = Counter()

    async def _come(self) -> socket.socket:
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)
        await self._loop.sock_connect(client, ("127.0.0.1", self._port))
        self.met["came"] += 1
        return client

    async def idle(self) -> None:
        with await self._come() as client:
            await self._loop.sock_recv(client, 1)

    async def reads(self) -> None:
        """As slowly as it may."""
        with await self._come() as client:
            await self._loop.sock_sendall(
                client, f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            first = True
            while piece := await self._loop.sock_recv(client, self._bytes_per_s):
                if first:
                    self.met[f"answered {piece[9:12].decode()}"] += 1
                    first = False
                self.met["bytes read"] += len(piece)
                await asyncio.sleep(1)
        self.met["readers let go"] += 1

    async def sends(self, text: bytes, bytes_at_once: int) -> None:
        with await self._come() as client:
            while True:
                await self._loop.sock_sendall(client, text[:bytes_at_once])
                text = text[bytes_at_once:] or b" "
                with suppress(TimeoutError):
                    if not await asyncio.wait_for(self._loop.sock_recv(client, 1 << 16), 1):
                        break
        self.met["senders let go"] += 1


async def _keeps_coming(make: Any, *arguments: Any) -> None:
    while True:
        made: Coroutine[Any, Any, None] = make(*arguments)
        with suppress(ConnectionError):
            await made
        await asyncio.sleep(0.2)


async def _live(port: str, idle: str, readers: str, senders: str, bytes_per_s: str, path: str) -> None:
    found = _Crowd(int(port), int(bytes_per_s), path)
    tasks = [asyncio.create_task(_keeps_coming(found.idle)) for _ in range(int(idle))]
    tasks += [asyncio.create_task(_keeps_coming(found.reads)) for _ in range(int(readers))]
    for number in range(int(senders)):
        task = (
            _keeps_coming(found.sends, HEAD, 1)
            if number % 2
            else _keeps_coming(found.sends, BODY, len(BODY) // 2)
        )
        tasks.append(asyncio.create_task(task))
    while found.met["came"] < len(tasks):
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps(found.met), flush=True)
    os._exit(0)  # whatever they were at


if __name__ == "__main__":
    asyncio.run(_live(*sys.argv[1:]))
