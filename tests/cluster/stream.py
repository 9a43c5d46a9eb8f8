"""A steady stream of catalogs with receipts: half from nodes that publish once and never again, so that each loss shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from lab.cluster import QUEUE
from lab.stomp_client import Client
from lab.store_model import resource, wire_body

PER_S = 6
NODES_AGAIN = 20  # those that publish again and again
RECEIPT_TIMEOUT_S = 4.0  # then another broker is tried, with the same message
Address = tuple[str, int]
SLOW_S = 1.0  # a receipt that takes longer is an outage


class Message(NamedTuple):
    certname: str
    body: bytes


class Outages:
    """How long something did not work, as one client saw it."""

    def __init__(self) -> None:
        self._found: list[tuple[float, float]] = []

    def note(self, began_s: float, ended_s: float) -> None:
        if ended_s - began_s > SLOW_S:
            self._found.append((began_s, ended_s))

    def recovered_after(self, since_s: float) -> float:
        """From that moment to the end of the longest outage behind it: a busy machine makes short ones."""
        behind = [(ended - began, ended - since_s) for began, ended in self._found if ended > since_s]
        return max(behind)[1] if behind else 0.0


class Producer(threading.Thread):
    """Sends one message at a time, each again until it has its receipt, to whichever of the brokers takes it."""

    def __init__(
        self, addresses: Sequence[Address], place: int = 0, destination: str = f"/amq/queue/{QUEUE}"
    ) -> None:
        super().__init__(daemon=True)
        self._destination = destination
        self._addresses = addresses
        self._place = place
        self._client: Client | None = None
        self._ended = threading.Event()
        self.outages = Outages()

    def end(self) -> None:
        self._ended.set()
        self.join()

    def leave(self) -> None:
        if self._client is not None:
            self._client.close()

    def publish(self, body: bytes) -> bool:
        """False when the stream was ended before anybody took it."""
        tried = False
        while True:
            try:
                if self._client is None:
                    host, port = self._addresses[self._place % len(self._addresses)]
                    self._client = Client(
                        port, "guest", "guest", answer_timeout_s=RECEIPT_TIMEOUT_S, host=host
                    )
                tried = True
                self._client.publish(self._destination, body)
                return True
            except (AssertionError, OSError):
                self.leave()
                self._client = None
                self._place += 1
                if self._ended.wait(0.2) and not tried:
                    return False


class Stream(Producer):
    """What was due in an outage follows at once. A message's number is its time, too."""

    def __init__(self, addresses: Sequence[Address], *, destination: str, per_s: float = PER_S) -> None:
        super().__init__(addresses, destination=destination)
        self._per_s = per_s
        self._started_s = 0.0
        self.sent: dict[int, Message] = {}
        self.receipts: dict[int, float] = {}  # when

    def run(self) -> None:
        number, self._started_s = 0, time.monotonic()
        while not self._ended.wait(max(0.0, self._started_s + number / self._per_s - time.monotonic())):
            number += 1
            once = number % 2
            certname = (
                f"once-{number}.example.com" if once else f"again-{number // 2 % NODES_AGAIN}.example.com"
            )
            resources = [
                resource(f"/{place}", parameters={"text": f"{number} {place}"}) for place in range(5)
            ]
            self.sent[number] = Message(certname, wire_body(certname, number, resources))
            before_s = time.monotonic()
            if not self.publish(self.sent[number].body):
                del self.sent[number]
                break
            self.receipts[number] = time.monotonic()
            self.outages.note(before_s, self.receipts[number])
        self.leave()

    def key(self, number: int) -> str:
        """What is stored of it, or of one newer, in the words of ``watch.CATALOGS``."""
        return self.sent[number].certname

    def is_on_time(self) -> bool:
        """Whether what was due a second ago has its receipt: after an outage there is much to catch up with."""
        return len(self.receipts) >= (time.monotonic() - 1.0 - self._started_s) * self._per_s

    def newest(self) -> dict[str, tuple[int, Message]]:
        """Of each node: what must be stored at the end."""
        return {message.certname: (number, message) for number, message in sorted(self.sent.items())}
