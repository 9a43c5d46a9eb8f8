"""Publishes what is due when it is due, and never pretends: a late message keeps the time at which it was due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ingest.capacity.catalogs import Sheet
from ingest.transport.publisher import Publisher
from lab import synthetic_runs
from tools.loadgen.fleet import Fleet, Node, headers
from tools.loadgen.results import Lines, Sent
from tools.loadgen.schedule import Due

NAP_S = 0.1  # the longest sleep: a progress bar that moves, and Ctrl-C at once
MILLISECOND_US = 1000  # reports have no finer times


class Newest(NamedTuple):
    """What was sent last of a node."""

    at: datetime  # producer_timestamp
    change: str  # since the run before


Message = tuple[bytes | memoryview, dict[str, str]]


class Sender:
    """One connection; ``newest`` has the last run of each node. ``whole``: a run sends facts before its catalog and a report
    after it."""

    def __init__(self, publisher: Publisher, fleet: Fleet, *, whole: bool = False) -> None:
        self.newest: dict[int, Newest] = {}
        self.sent = 0
        self.receipted = 0
        self.send_s = 0.0
        self.late_s = 0.0  # how late the last message was handed over
        self._publisher = publisher
        self._fleet = fleet
        self._whole = whole
        self._sheet = Sheet()

    def prime(self, nodes: Sequence[Node], step: Callable[[], None], at: datetime | None = None) -> None:
        """Every node's first catalog, as fast as the broker takes them; compiled ``at`` that time, or now."""
        compiled = _milliseconds(at or datetime.now(UTC))

        def bodies() -> Iterator[Message]:
            for node in nodes:
                change = self._fleet.change(node)
                self.newest[node.number] = Newest(compiled, change)
                for _, message in self._messages(node, change, compiled):
                    yield message
                step()

        self._publisher.publish(bodies())

    def run(
        self,
        dues: Iterable[Due],
        speed: float,
        start_s: float,
        lines: Lines,
        expect: Callable[[str, int, int, datetime, datetime], None],
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
        expect: Callable[[str, int, int, datetime, datetime], None],
        step: Callable[[float], None],
    ) -> Iterator[Message]:
        # The wall clock at the start; both clocks run alike from there.
        zero = datetime.now(UTC) - timedelta(seconds=time.monotonic() - start_s)
        for due in dues:
            due_s = due.at_s / speed
            while (left_s := start_s + due_s - time.monotonic()) > 0:
                step(due_s - left_s)
                time.sleep(min(left_s, NAP_S))
            node = self._fleet.nodes[due.node]
            change = self._fleet.change(node, due.forced)
            at = _milliseconds(zero + timedelta(seconds=due_s))
            self.newest[node.number] = Newest(at, change)
            for what, (body, its) in self._messages(node, change, at):
                now_s = time.monotonic() - start_s
                self.sent += 1
                self.late_s = now_s - max(0.0, due_s)
                named = change if what == "catalog" else what
                lines.write(
                    Sent(node.number, node.runs, named, due_s, now_s, due.next_s / speed, len(body), what)
                )
                expect(what, node.number, node.runs, at, zero + timedelta(seconds=now_s))
                yield body, its | {"due": at.isoformat()}
                step(now_s)

    def _messages(self, node: Node, change: str, at: datetime) -> Iterator[tuple[str, Message]]:
        """What one run of a node sends, in its order: (kind, message)."""
        named = headers(node, at)
        if self._whole:
            yield "facts", (synthetic_runs.facts(node.certname, node.number, at), named)
        yield "catalog", (self._sheet.write(self._fleet.parts(node, at)), named)
        if self._whole:
            yield "report", (synthetic_runs.report(node.certname, node.runs, change, at), named)


def _milliseconds(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // MILLISECOND_US * MILLISECOND_US)
