"""Publishes what is due when it is due, and never pretends: a late message keeps the time at which it was due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from ingest.publish import Publisher
from tools.loadgen.fleet import Fleet, Node, headers
from tools.loadgen.results import Lines, Sent
from tools.loadgen.schedule import Due

PRIMED_BEFORE = timedelta(hours=2)  # longer than any outage that a scenario begins with


class Sender:
    """One connection; ``newest`` has the producer_timestamp of each node's last message."""

    def __init__(self, publisher: Publisher, fleet: Fleet) -> None:
        self.newest: dict[int, datetime] = {}
        self.sent = 0
        self.receipted = 0
        self.send_s = 0.0
        self.latest_s = 0.0  # how late the latest message was handed over
        self._publisher = publisher
        self._fleet = fleet

    def prime(self, step: Callable[[], None]) -> None:
        """Every node's first catalog, as fast as the broker takes them."""
        at = datetime.now(UTC) - PRIMED_BEFORE

        def bodies() -> Iterator[tuple[bytes, dict[str, str]]]:
            for node in self._fleet.nodes:
                self._fleet.change(node)
                self.newest[node.number] = at
                yield self._fleet.body(node, at), headers(node, at)
                step()

        self._publisher.publish(bodies())

    def run(
        self,
        dues: Iterable[Due],
        speed: float,
        start_s: float,
        lines: Lines,
        expect: Callable[[int, int, datetime, datetime], None],
        step: Callable[[float], None],
    ) -> None:
        """Sends each due message at its time on the fleet's clock, which is ``speed`` times as quick as ours and
        stood at zero at the monotonic ``start_s``."""
        begin = time.monotonic()
        try:
            self.receipted += self._publisher.publish(self._bodies(dues, speed, start_s, lines, expect, step))
        finally:
            self.send_s = time.monotonic() - begin

    def _bodies(
        self,
        dues: Iterable[Due],
        speed: float,
        start_s: float,
        lines: Lines,
        expect: Callable[[int, int, datetime, datetime], None],
        step: Callable[[float], None],
    ) -> Iterator[tuple[bytes, dict[str, str]]]:
        # The wall clock at the start; both clocks run alike from there.
        zero = datetime.now(UTC) - timedelta(seconds=time.monotonic() - start_s)
        for due in dues:
            due_s = due.at_s / speed
            while (left := start_s + due_s - time.monotonic()) > 0:
                step(due_s - left)
                time.sleep(min(left, 0.1))
            node = self._fleet.nodes[due.node]
            kind = self._fleet.change(node, due.forced)
            at = zero + timedelta(seconds=due_s)
            body = self._fleet.body(node, at)
            now_s = time.monotonic() - start_s
            self._note(node, kind, due, due_s, now_s, speed, at, len(body), lines)
            expect(node.number, node.runs, at, zero + timedelta(seconds=now_s))
            yield body, headers(node, at) | {"due": at.isoformat()}
            step(now_s)

    def _note(
        self, node: Node, kind: str, due: Due, due_s: float, now_s: float, speed: float, at: datetime,
        bytes_: int, lines: Lines,
    ) -> None:  # fmt: skip
        self.newest[node.number] = at
        self.sent += 1
        self.latest_s = max(self.latest_s, now_s - max(0.0, due_s))
        lines.write(Sent(node.number, node.runs, kind, due_s, now_s, due.next_s / speed, bytes_))
