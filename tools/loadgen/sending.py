"""Publishes what is due when it is due, and never pretends: a late message keeps the time at which it was due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from ingest.capacity.catalogs import Sheet
from ingest.transport.publisher import Publisher
from tools.loadgen.fleet import Fleet, Node, headers
from tools.loadgen.results import Lines, Sent
from tools.loadgen.schedule import Due

# What to look for: the kind, the node, its run, its producer_timestamp, and since when it can be there.
Expect = Callable[[str, int, int, datetime, datetime], None]
NAP_S = 0.1  # the longest sleep: a progress bar that moves, and Ctrl-C at once


class Sender:
    """One connection; ``newest`` has the producer_timestamp of each node's last message."""

    def __init__(self, publisher: Publisher, fleet: Fleet) -> None:
        self.newest: dict[int, datetime] = {}
        self.sent = 0
        self.receipted = 0
        self.send_s = 0.0
        self.late_s = 0.0  # how late the last message was handed over
        self._publisher = publisher
        self._fleet = fleet
        self._sheet = Sheet()

    def prime(self, nodes: Sequence[Node], step: Callable[[], None], at: datetime | None = None) -> None:
        """Every node's first run, as fast as the broker takes them; compiled ``at`` that time, or now."""
        compiled = at or datetime.now(UTC)

        def bodies() -> Iterator[tuple[memoryview, dict[str, str]]]:
            for node in nodes:
                self._fleet.change(node)
                self.newest[node.number] = compiled
                for _, parts in self._fleet.messages(node, compiled):
                    yield self._sheet.write(parts), headers(node, compiled)
                step()

        self._publisher.publish(bodies())

    def run(
        self,
        dues: Iterable[Due],
        speed: float,
        start_s: float,
        lines: Lines,
        expect: Expect,
        step: Callable[[float], None],
    ) -> None:
        """Sends each due message at its time on the fleet's clock, which is ``speed`` times as quick as ours and
        stood at zero at the monotonic ``start_s``. ``step`` is told how many seconds went by since then."""
        begin = time.monotonic()

        def receipted(count: int) -> None:
            self.receipted = count

        try:
            self._publisher.publish(
                self._bodies(dues, speed, start_s, lines, expect, step), receipted=receipted
            )
        finally:
            self.send_s = time.monotonic() - begin

    def _bodies(
        self,
        dues: Iterable[Due],
        speed: float,
        start_s: float,
        lines: Lines,
        expect: Expect,
        step: Callable[[float], None],
    ) -> Iterator[tuple[memoryview, dict[str, str]]]:
        # The wall clock at the start; both clocks run alike from there.
        zero = datetime.now(UTC) - timedelta(seconds=time.monotonic() - start_s)
        for due in dues:
            due_s = due.at_s / speed
            while (left_s := start_s + due_s - time.monotonic()) > 0:
                step(due_s - left_s)
                time.sleep(min(left_s, NAP_S))
            node = self._fleet.nodes[due.node]
            kind = self._fleet.change(node, due.forced)
            at = zero + timedelta(seconds=due_s)
            self.newest[node.number] = at
            for what, parts in self._fleet.messages(node, at):
                body = self._sheet.write(parts)
                now_s = time.monotonic() - start_s
                self.sent += 1
                self.late_s = now_s - max(0.0, due_s)
                next_s = due.next_s / speed
                lines.write(Sent(node.number, node.runs, kind, due_s, now_s, next_s, len(body), what))
                expect(what, node.number, node.runs, at, zero + timedelta(seconds=now_s))
                yield body, headers(node, at) | {"due": at.isoformat()}
                step(now_s)
