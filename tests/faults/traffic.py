"""What the producers send and what must be stored in the end: the plain reference of a run."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from lab.store_model import START, resource, wire_body

NODES = 40
KINDS = 4  # of large catalogs
# What is not in order, and how often: one in so many messages.
OUT_OF_ORDER, SENT_TWICE, LARGE, REFUSED, UNREADABLE = 10, 15, 25, 60, 40
MINUTES_OF_CENTURY = 100 * 365 * 24 * 60
MINUTES_AHEAD = (
    200 * 24 * 60
)  # of the other nodes, and still in the past: what is in the future counts as of its arrival


class Message(NamedTuple):
    """One SEND. ``certname`` is None for what can only be quarantined, for that reason."""

    id: str
    certname: str | None
    minute: int
    body: bytes
    reason: str = ""


class Traffic:
    """An endless, seeded stream; remembers what it gave out."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._minutes = dict.fromkeys(range(NODES), 0)
        self.messages: dict[str, Message] = {}

    def __iter__(self) -> Iterator[Message]:
        previous: Message | None = None
        while True:
            number = len(self.messages)
            if previous is not None and self._once_in(SENT_TWICE):
                message = previous._replace(id=f"m{number}")
            elif self._once_in(REFUSED):
                # 1000 letters are allowed, and a btree entry has 2704 bytes at most: PostgreSQL refuses the row.
                name = "".join(chr(self._random.randrange(0x10000, 0x20000)) for _ in range(1000))
                # Each of a node of its own, or only the newest would be kept.
                node = f"refused-{number}.example.com"
                body = self._body(node, number).replace(b"production", name.encode())
                message = Message(f"m{number}", None, number, body, "refused_by_postgresql")
            elif self._once_in(UNREADABLE):
                message = Message(f"m{number}", None, number, b'{"number": %d' % number, "unreadable")
            else:
                message = self._catalog(number)
            self.messages[message.id] = message
            previous = message
            yield message

    def _catalog(self, number: int) -> Message:
        node = self._random.randrange(NODES)
        minute = self._minutes[node] = self._minutes[node] + 10
        if self._once_in(OUT_OF_ORDER):
            minute -= 15  # between its two predecessors
        if node == 0 and self._once_in(3):
            minute += MINUTES_AHEAD  # a clock that jumps ahead, and back again
        if node == 1 and self._once_in(3):
            minute -= MINUTES_OF_CENTURY // 4
        certname = f"n{node}.example.com"
        return Message(f"m{number}", certname, minute, self._body(certname, minute))

    def _body(self, certname: str, minute: int) -> bytes:
        count, parameters = self._random.randrange(1, 15), {}
        if self._once_in(LARGE):
            # Of few kinds, since a disk is to be full at times only; a decoder that has just started has met none.
            count, parameters = 300, {"content": str(minute // 30 % KINDS) * 600}
        resources = [resource(f"/shared-{n}", parameters=parameters) for n in range(count)]
        changed = self._random.randrange(count)
        resources[changed] = resource(f"/own-{certname}-{minute // 30}", parameters={"n": minute // 30})
        edges = [(n, n + 1, "before") for n in range(0, count - 1, 2)]
        return dated(wire_body(certname, 1, resources, edges), minute)

    def _once_in(self, many: int) -> bool:
        return self._random.randrange(many) == 0

    def newest(self) -> dict[str, Message]:
        """The catalog that must be stored, by certname."""
        found: dict[str, Message] = {}
        for message in self.messages.values():
            if message.certname is not None and (
                message.certname not in found or message.minute > found[message.certname].minute
            ):
                found[message.certname] = message
        return found

    def refused(self) -> dict[bytes, str]:
        """The bodies that must be in quarantine, each once, and why."""
        return {
            message.body: message.reason for message in self.messages.values() if message.certname is None
        }


def dated(body: bytes, minute: int) -> bytes:
    """The body with that time, which may be in another century, and a transaction of its own."""
    document: dict[str, Any] = json.loads(body)
    when = (START + timedelta(minutes=minute)).isoformat()
    uuid = f"00000000-0000-0000-0000-{minute % 10**12:012d}"
    document["payload"] |= {"producer_timestamp": when, "version": str(minute), "transaction_uuid": uuid}
    return json.dumps(document).encode()


class Producer:
    """The foreign process, and who has got a receipt."""

    def __init__(self, addresses: str, login: str = "") -> None:
        self.receipts: set[str] = set()
        self.sent = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.producer", addresses, *([login] if login else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, id_: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Blocks while the broker takes nothing."""
        line = json.dumps({"id": id_, "headers": headers or {}, "body": base64.b64encode(body).decode()})
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        self.sent += 1

    def finish(self, timeout_s: float = 60) -> None:
        """Until everything has its receipt."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(timeout_s) == 0
        self._reader.join(timeout_s)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # what it had not read goes with it

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.receipts.add(line.decode().strip())
