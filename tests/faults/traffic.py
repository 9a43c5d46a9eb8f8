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

from lab.facts import facts_body
from lab.store_model import START, resource, wire_body
from tests.core.test_report import event, log, report
from tests.core.test_report import resource as reported

NODES = 40
RUN = ("facts", "catalog", "report")  # what a node sends with each run, in its order
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
    kind: str = ""  # of RUN


class Traffic:
    """An endless, seeded stream; remembers what it gave out."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._minutes = dict.fromkeys(range(NODES), 0)
        self._rest_of_run: list[tuple[str, str, int]] = []
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
                message = self._part_of_run(number)
            self.messages[message.id] = message
            previous = message
            yield message

    def _part_of_run(self, number: int) -> Message:
        if not self._rest_of_run:
            certname, minute = self._next_run()
            self._rest_of_run = [(kind, certname, minute) for kind in RUN]
        kind, certname, minute = self._rest_of_run.pop(0)
        if certname == "n1.example.com" and minute < 0 and kind == "report":
            minute += MINUTES_OF_CENTURY // 4  # one from that long ago is as new as its arrival
        body = {"facts": self._facts, "catalog": self._body, "report": self._report}[kind]
        return Message(f"m{number}", certname, minute, body(certname, minute), "", kind)

    def _next_run(self) -> tuple[str, int]:
        node = self._random.randrange(NODES)
        minute = self._minutes[node] = self._minutes[node] + 10
        if self._once_in(OUT_OF_ORDER):
            minute -= 15  # between its two predecessors
        if node == 0 and self._once_in(3):
            minute += MINUTES_AHEAD  # a clock that jumps ahead, and back again
        if node == 1 and self._once_in(3):
            minute -= MINUTES_OF_CENTURY // 4
        return f"n{node}.example.com", minute

    def _facts(self, certname: str, minute: int) -> bytes:
        values = {"uptime": minute, "os": {"release": self._random.randrange(3)}, "name": certname}
        if self._once_in(LARGE):
            values["another shape"] = [{"n": n} for n in range(self._random.randrange(200))]
        when = (START + timedelta(minutes=minute)).isoformat()
        return facts_body(certname, 0, values, [["bash", str(minute // 300), "apt"]], producer_timestamp=when)

    def _report(self, certname: str, minute: int) -> bytes:
        when = (START + timedelta(minutes=minute)).isoformat()
        events = [f"changed {self._random.randrange(50)}" for _ in range(self._random.randrange(4))]
        if self._once_in(LARGE):
            events += [f"changed {minute // 30 % KINDS} {n}" for n in range(300)]
        made = report(
            certname=certname, producer_timestamp=when, start_time=when, end_time=when, transaction_uuid=_uuid(minute),
            resources=[reported(f"/{n}", event(message=said)) for n, said in enumerate(events)],
            logs=[log(said) for said in [*events, f"Applied catalog in {minute % 7} seconds"]],
        )  # fmt: skip
        return json.dumps({"command": "store report", "version": 8, "payload": made}).encode()

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

    def newest(self, kind: str = "catalog") -> dict[str, Message]:
        """What of that kind must be stored, by certname."""
        found: dict[str, Message] = {}
        for message in self.messages.values():
            if (
                message.kind == kind
                and message.certname is not None
                and (message.certname not in found or message.minute > found[message.certname].minute)
            ):
                found[message.certname] = message
        return found

    def reports(self) -> dict[tuple[str, str], Message]:
        """All that must be stored, by certname and transaction."""
        return {
            (message.certname, _uuid(message.minute)): message
            for message in self.messages.values()
            if message.kind == "report" and message.certname is not None
        }

    def refused(self) -> dict[bytes, str]:
        """The bodies that must be in quarantine, each once, and why."""
        return {
            message.body: message.reason for message in self.messages.values() if message.certname is None
        }


def dated(body: bytes, minute: int) -> bytes:
    """The body with that time, which may be in another century, and a transaction of its own."""
    document: dict[str, Any] = json.loads(body)
    when = (START + timedelta(minutes=minute)).isoformat()
    document["payload"] |= {
        "producer_timestamp": when,
        "version": str(minute),
        "transaction_uuid": _uuid(minute),
    }
    return json.dumps(document).encode()


def _uuid(minute: int) -> str:
    return f"00000000-0000-0000-0000-{minute % 10**12:012d}"


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
