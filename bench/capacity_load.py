"""A load for the engine: made-up catalogs at random times, and when PostgreSQL committed each of them."""

from __future__ import annotations

import os
import random
import threading
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.capacity_table import quantile
from ingest.capacity.catalogs import Sheet
from ingest.capacity.engine import MeasuredEngine, cpu_of, machine_busy_s
from ingest.capacity.rounds import Node
from ingest.capacity.world import Arrival
from ingest.config.settings import Config
from ingest.core.delivery.routing import decoders_at_work
from ingest.ipc.names import kind_of
from ingest.store.connection import connect
from ingest.transport.publisher import Publisher

# p99 shall be one of the upgrades, not the border between two kinds: that is chance.
MIX = {"unchanged": 0.9, "few": 0.08, "upgrade": 0.02}
POLL_S = 0.2
MESSAGES_MIN = 400  # p99 of fewer says nothing
LIMIT_MESSAGES = 2000


class Fleet:
    """Publishes at random times, watches PostgreSQL."""

    def __init__(
        self, config: Config, engine: MeasuredEngine, nodes: list[Node], seed: int, pids: dict[str, int]
    ) -> None:
        self.config, self.engine, self.nodes, self.pids = config, engine, nodes, pids
        self.chance = random.Random(seed)
        self.sheet = Sheet()
        self.publisher = Publisher(config)
        self.settled = 0
        self.place = 0
        self.releases: set[tuple[str, int, int]] = set()

    def close(self) -> None:
        self.publisher.close()

    def load_all(self) -> None:
        now = datetime.now(UTC)
        self.publisher.publish(
            (self.sheet.write(node.template.parts(node.certname, now)), {}) for node in self.nodes
        )
        self._wait(len(self.nodes))

    def run(self, rate: float | None, seconds: float) -> dict[str, Any]:
        """Random arrivals at a rate, or, without one, all at once: as fast as they can be published."""
        count = max(int(rate * seconds), MESSAGES_MIN) if rate else LIMIT_MESSAGES
        arrivals = list(self._arrivals(count, rate))
        seen: dict[tuple[str, datetime], datetime] = {}
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop, seen))
        watcher.start()
        cpu = cpu_of(self.pids)
        busy_s, own_s = machine_busy_s(), time.process_time()
        start = datetime.now(UTC) + timedelta(seconds=0.05)
        sent: list[tuple[str, datetime]] = []
        sizes: list[int] = []
        kinds: list[str] = []
        late = [0.0]

        def bodies() -> Iterator[tuple[memoryview, dict[str, str]]]:
            for number, (due_s, kind, node) in enumerate(arrivals):
                # All at once, and yet one after the other: of two catalogs with one timestamp the second is stale.
                due = start + (timedelta(seconds=due_s) if rate else timedelta(milliseconds=number))
                wait_s = (due - datetime.now(UTC)).total_seconds()
                if rate and wait_s > 0:
                    time.sleep(wait_s)
                late[0] = max(late[0], -wait_s)
                kind = self._possible(node, kind)
                body = self._body(node, kind, due)
                sent.append((node.certname, due))
                sizes.append(len(body))
                kinds.append(self._kind(node, kind))
                yield body, {}

        publisher_start_s = time.thread_time()
        self.publisher.publish(bodies())
        published = datetime.now(UTC)
        published_s = time.thread_time() - publisher_start_s
        self._wait(count)
        settled_s = (datetime.now(UTC) - start).total_seconds()
        spent = {name: after - cpu[name] for name, after in cpu_of(self.pids).items()}
        engine_s = sum(spent.values())
        time.sleep(2 * POLL_S)
        stop.set()
        watcher.join()
        if rate:
            found = [(seen[key] - key[1]).total_seconds() for key in sent if key in seen]
        else:
            found = [(seen[key] - start).total_seconds() for key in sent if key in seen]
        ends = [seen[key] for key in sent if key in seen]
        seconds_ = (max(ends) - start).total_seconds()
        return {
            "workers": self.config.workers,
            "rate": rate,
            "messages": count,
            "bytes": sum(sizes),
            "per_s": count / seconds_,
            "published_per_s": count / (published - start).total_seconds(),
            "late_s": late[0],
            "p50": quantile(found, 0.5),
            "p99": quantile(found, 0.99),
            "unseen": count - len(found),
            "publisher_s": published_s,
            "cpu_ms": _stages(
                {name: one * 1000 / count for name, one in (spent | {"publisher": published_s}).items()}
            ),
            "cores_busy": (machine_busy_s() - busy_s) / (settled_s + 2 * POLL_S),
            "elsewhere": (machine_busy_s() - busy_s - engine_s - (time.process_time() - own_s)) / settled_s,
            "freshness": [
                (seen[key] - (key[1] if rate else start)).total_seconds() if key in seen else None
                for key in sent
            ],
            "arrivals": [
                Arrival(due_s, kind, size, zlib.crc32(node.certname.encode()))
                for (due_s, _, node), kind, size in zip(arrivals, kinds, sizes, strict=True)
            ],
        }

    def _arrivals(self, count: int, rate: float | None) -> Iterator[tuple[float, str, Node]]:
        at_s = 0.0
        for _ in range(count):
            if rate:
                at_s += self.chance.expovariate(rate)
            self.place += 1
            node = self.nodes[self.place % len(self.nodes)]
            yield at_s, self.chance.choices(list(MIX), list(MIX.values()))[0], node

    def _possible(self, node: Node, kind: str) -> str:
        """Releases come in waves: a role has the next one when all its nodes have the last one. Between two, who has
        it already changes a few parameters instead."""
        role = [other.release for other in self.nodes if other.template is node.template]
        return "few" if kind == "upgrade" and node.release == max(role) != min(role) else kind

    def _body(self, node: Any, kind: str, due: datetime) -> memoryview:
        return self.sheet.write(node.next_parts(kind, due))

    def _kind(self, node: Node, kind: str) -> str:
        """An upgrade is new when its role's release comes to the node's decoder for the first time."""
        if kind != "upgrade":
            return kind
        decoder = zlib.crc32(node.certname.encode()) % min(
            self.config.workers, decoders_at_work(os.cpu_count() or 1)
        )
        key = (node.template.name, node.release, decoder)
        is_new = key not in self.releases
        self.releases.add(key)
        return "upgrade_new" if is_new else kind

    def _watch(self, stop: threading.Event, seen: dict[tuple[str, datetime], datetime]) -> None:
        connection = connect(self.config.database)
        since = datetime.now(UTC) - timedelta(seconds=1)
        while not stop.wait(POLL_S):
            rows: Any = connection.execute(
                "SELECT n.certname, c.producer_timestamp, pg_xact_commit_timestamp(c.xmin) FROM catalogs c"
                " JOIN nodes n ON n.id = c.node_id WHERE c.producer_timestamp > %s", [since],
            ).fetchall()  # fmt: skip
            for certname, due, committed in rows:
                seen[certname, due] = committed
        connection.close()

    def _wait(self, messages: int) -> None:
        self.settled += messages

        def done() -> bool:
            time.sleep(0.1)  # each look costs the supervisor a millisecond
            return bool(self.engine.settled() >= self.settled)

        self.engine.wait(done, f"{messages} catalogs", 120)


def _stages(cpu: dict[str, float]) -> dict[str, float]:
    """Summed over the processes of a stage."""
    found: dict[str, float] = {}
    for name, value in cpu.items():
        stage = kind_of(name)
        found[stage] = found.get(stage, 0.0) + value
    return found
