"""Mixed hostile messages between good ones, for any time, while children are killed: what must hold of it at the end."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from ingest.config.loading import load
from ingest.config.settings import Config
from ingest.store.connection import Connection
from ingest.transport.publisher import Publisher
from lab.engine import Engine, wait_for
from lab.store_model import expected, resource, stored, wire_body
from tests.hostile.messages import KINDS
from tests.hostile.watching import Watch, watched

NODES = 40
FLAGS = (
    "--workers", "2", "--decode-memory-bytes-max", "256MiB", "--body-bytes-max", "32MiB",
    "--quarantine-bytes-max", "64MiB", "--quarantine-rows-max", "1000", "--alone-after-s", "1",
)  # fmt: skip
CONFIG: Config = load({"decode_memory_bytes_max": "256MiB", "body_bytes_max": "32MiB"}, {}).config
KILL_EVERY_S = 5.0
QUIET_S = 120.0  # until everything is settled


@dataclass
class Outcome:
    """What happened, to be looked at as a whole."""

    good: int = 0
    hostile: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    wrong_nodes: list[str] = field(default_factory=list)
    deaths: list[dict[str, Any]] = field(default_factory=list)
    over: dict[str, str] = field(default_factory=dict)
    peaks_mib: dict[str, int] = field(default_factory=dict)
    kept_bytes: int = 0
    rows: int = 0
    exit_code: int | None = None

    def complaints(self) -> list[str]:
        found = [f"not the newest of {node}" for node in self.wrong_nodes]
        if len(self.deaths) > self.kills:
            found.append(f"{self.kills} kills, {len(self.deaths)} deaths: {self.deaths}")
        found += [f"{process} had {what}" for process, what in self.over.items()]
        if self.kept_bytes > 2 * 64 * 1024 * 1024 or self.rows > 2 * 1000:
            found.append(f"{self.rows} rows and {self.kept_bytes} bytes in quarantine")
        if self.exit_code != 0:
            found.append(f"exit code {self.exit_code}")
        return found


class Soak:
    def __init__(self, engine: Engine, broker: str, connection: Connection, seed: int) -> None:
        self.engine = engine
        self.outcome = Outcome()
        self._connection = connection
        self._random = random.Random(seed)
        self._publisher = Publisher(load({"queue_source": broker}, {}).config)
        self._newest: dict[str, bytes] = {}

    def run(self, seconds: float) -> Outcome:
        with watched(self.engine) as watch:
            try:
                self._send_and_kill(seconds)
                self._wait_until_stored()
            finally:
                self._publisher.close()
        self._conclude(watch)
        return self.outcome

    def _send_and_kill(self, seconds: float) -> None:
        began_s = time.monotonic()
        kill_at_s = began_s + KILL_EVERY_S
        kinds = list(KINDS)
        round_ = 0
        while (now := time.monotonic()) - began_s < seconds:
            if round_ % len(kinds) == 0:
                self._random.shuffle(kinds)
            self._send_good()
            self._send_hostile(kinds[round_ % len(kinds)], round_)
            self._send_good()
            round_ += 1
            if now >= kill_at_s:
                self._kill_one()
                kill_at_s = now + KILL_EVERY_S

    def _send_good(self) -> None:
        for _ in range(3):
            self.outcome.good += 1
            number = self.outcome.good
            node = f"good{number % NODES}.example.com"
            body = wire_body(node, number, [resource(f"/{number}"), resource(f"/shared/{number % 7}")])
            self._newest[node] = body
            self._publisher.publish([(body, {})])

    def _send_hostile(self, kind: str, round_: int) -> None:
        messages = KINDS[kind](round_)
        self.outcome.hostile[kind] = self.outcome.hostile.get(kind, 0) + len(messages)
        self._publisher.publish(messages)
        # Not more at a time than the engine settles: then memory would be the broker's.
        marker = f"marker{round_ % 3}.example.com"
        self._publisher.publish([(wire_body(marker, round_, [resource(f"/{round_}")]), {})])
        self._newest[marker] = wire_body(marker, round_, [resource(f"/{round_}")])
        wait_for(lambda: self._is_stored(marker), self.engine, f"{marker} behind {kind}", timeout_s=QUIET_S)

    def _kill_one(self) -> None:
        children = self.engine.children()
        if children:
            name = self._random.choice(sorted(children))
            os.kill(children[name], signal.SIGKILL)
            self.outcome.kills += 1

    def _is_stored(self, node: str) -> bool:
        try:
            return bool(stored(self._connection, node) == expected(self._newest[node]))
        except Exception:  # nothing of it yet
            return False

    def _wait_until_stored(self) -> None:
        for node in self._newest:
            try:
                wait_for(
                    lambda node=node: self._is_stored(node), self.engine, f"{node} stored", timeout_s=QUIET_S
                )  # type: ignore[misc]
            except AssertionError:
                self.outcome.wrong_nodes.append(node)

    def _conclude(self, watch: Watch) -> None:
        outcome = self.outcome
        outcome.exit_code = self.engine.stop(60)
        outcome.deaths = watch.deaths()
        outcome.over = watch.over(CONFIG)
        outcome.peaks_mib = {name: peak >> 20 for name, peak in watch.peaks.items()}
        row: Any = self._connection.execute(
            "SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM quarantine"
        ).fetchone()
        outcome.rows, outcome.kept_bytes = int(row[0]), int(row[1])
