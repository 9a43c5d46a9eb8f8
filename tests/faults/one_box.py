"""One box with nothing named: whole runs through the embedded broker into the embedded PostgreSQL, and a ``kill -9`` a second of
any process of it: the engine's own, the broker, PostgreSQL's first one or any other. ``make test-one-box``.

Whoever kills the first process starts it again, as systemd does. Kills that fell due while there was nothing to kill, or
in a start that was left in peace, are made up for: in the end there were as many as seconds. And each message that had a receipt
is there.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from bench.records import record
from ingest.config.loading import load
from ingest.engine.running import RunningEngine, running_engine
from ingest.errors import IngestError
from ingest.transport.publisher import Publisher, headers_of
from lab.engine import Engine
from lab.runs import Run, facts_of, report_of
from lab.store_model import START, resource, wire_body

NODES = 40
RUNS_PER_S = 10.0  # a message is sent until it has its receipt: what is lost is not covered by the next
RESTARTED_AFTER_S = 0.5
PATIENCE_S = 120.0  # until all is stored when nobody kills any more
LOOK_S = 0.05
APART_S = 0.25  # kills that are made up for: nearer to one another they would hit one and the same recovery
STARTS_HURT = 0.3  # of the starts: hit each, the box would never come up, and that would show little
LONGER = 1.1  # than asked: when the kills are not made up for by then, the row says how many there were
FLAGS = ("--embedded-broker-port", "0", "--workers", "2", "--writers", "2", "--report-ttl-s", "0", "--deaths-max", "100",
         "--backoff-max-s", "1", "--embedded-broker-disk-bytes-max", "2GiB", "--log-level", "warning")  # fmt: skip
NEWEST = {
    "facts": "SELECT certname, producer_timestamp FROM node_facts JOIN nodes ON id = node_id",
    "catalog": "SELECT certname, producer_timestamp FROM node_catalogs",
}
REPORTS = "SELECT certname, producer_timestamp FROM node_reports JOIN nodes ON id = node_id"


class Lost(NamedTuple):
    kind: str
    certname: str
    at: datetime


class Box:
    """The engine with its embedded parts in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.starts = 0
        os.environ["RUNTIME_DIRECTORY"] = str(directory / "runtime")  # ours too: to find it by
        self.engine = self._started()

    def _started(self) -> Engine:
        self.starts += 1
        data = ("--data-dir", str(self._directory / "data"))
        return Engine("", "", *data, *FLAGS, log=self._directory / "log")

    def restart_if_dead(self) -> None:
        if self.engine.process.poll() is not None:
            time.sleep(RESTARTED_AFTER_S)
            self.engine = self._started()

    def is_up(self) -> bool:
        """It says of itself where it is: all of it was started."""
        engine = running_engine("")
        return engine is not None and engine.pid == self.engine.process.pid

    def pids(self) -> list[int]:
        """Of the whole tree, its first process too."""
        found, waiting = [], [self.engine.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            with suppress(OSError):
                waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
                for task in Path(f"/proc/{pid}/task").iterdir():  # what another thread has started
                    if task.name != str(pid):
                        waiting += map(int, (task / "children").read_text().split())
        return found


class Producer(threading.Thread):
    """Sends runs one after the other; each message until it has its receipt."""

    def __init__(self) -> None:
        super().__init__(name="producer")
        self.receipted: set[Lost] = set()
        self.tries = 0
        self.stop = threading.Event()
        self._publisher: Publisher | None = None

    def run(self) -> None:
        for run in self._runs():
            due_s = time.monotonic() + 1 / RUNS_PER_S
            for kind, body in _messages(run):
                while not self._sent(body):
                    if self.stop.is_set():
                        return  # it has no receipt: nothing is promised
                    time.sleep(0.1)
                self.receipted.add(Lost(kind, run.certname, run.at))
            if self.stop.wait(max(0.0, due_s - time.monotonic())):
                return

    def _runs(self) -> Iterator[Run]:
        number = 0
        while True:
            round_, node = divmod(number, NODES)
            yield Run(f"node-{node:03d}.example.com", node, round_, START + timedelta(minutes=round_))
            number += 1

    def _sent(self, body: bytes) -> bool:
        self.tries += 1
        try:
            if self._publisher is None:
                engine = running_engine("")
                if engine is None:
                    return False
                self._publisher = Publisher(load({"queue_source": engine.queue_source}, {}).config)
            return self._publisher.publish([(body, headers_of(body))]) == 1
        except (IngestError, OSError):
            if self._publisher is not None:
                self._publisher.close()
            self._publisher = None
            return False


def _messages(run: Run) -> Iterator[tuple[str, bytes]]:
    yield "facts", facts_of(run)
    contents = [resource(f"/etc/{place}", parameters={"content": str(run.run)}) for place in range(20)]
    yield "catalog", wire_body(run.certname, run.run, contents)
    yield "report", report_of(run, changed=run.run % 3, release=run.run)


class Kills(NamedTuple):
    of_name: Counter[str]  # of what was killed
    in_starts: int  # of a tree that was not up yet
    down_s: float  # of the time, in which there was none


def kill(box: Box, seconds: float, every_s: float, chance: random.Random) -> Kills:
    """One is due every ``every_s``, until there were as many as that makes."""
    wanted = round(seconds / every_s)
    killed: Counter[str] = Counter()
    in_starts, down_s = 0, 0.0
    seen = 0  # the last start whose fate is decided
    began_s = last_s = now_s = time.monotonic()
    while killed.total() < wanted and now_s - began_s < LONGER * seconds:
        time.sleep(LOOK_S)
        box.restart_if_dead()
        is_up = box.is_up()
        before_s, now_s = now_s, time.monotonic()
        down_s += 0.0 if is_up else now_s - before_s
        is_due = now_s - began_s >= (killed.total() + 1) * every_s and now_s - last_s >= APART_S
        if not is_due or (not is_up and seen == box.starts):
            continue
        if not is_up:
            seen = box.starts
            if chance.random() > STARTS_HURT:
                continue
        if name := _kill_one(box, chance):
            killed[name] += 1
            in_starts += not is_up
            last_s = now_s
    return Kills(killed, in_starts, down_s)


def _kill_one(box: Box, chance: random.Random) -> str:
    """Each kind as often: PostgreSQL has many processes."""
    of_name: dict[str, list[int]] = {}
    for pid in box.pids():
        of_name.setdefault(_name(pid), []).append(pid)
    of_name.pop("ended", None)
    name = chance.choice(sorted(of_name))
    with suppress(ProcessLookupError):
        os.kill(chance.choice(of_name[name]), signal.SIGKILL)
        return name
    return ""


def _name(pid: int) -> str:
    try:
        words = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
        )
    except OSError:
        return "ended"
    if "ingest.engine.child" in words:
        return words[words.index("ingest.engine.child") + 1].partition("-")[0]
    if words and words[0].startswith("postgres:"):
        return "PostgreSQL: " + (words[1] if len(words) > 1 else "")
    if any(word.endswith("/postgres") for word in words):
        return "PostgreSQL's first process"
    return "broker" if "ingest.embedded.broker" in words else "supervisor"


def lost(database: str, receipted: set[Lost]) -> list[Lost]:
    """What had a receipt and is not stored: newest facts and catalogs, and every report."""
    newest: dict[tuple[str, str], datetime] = {}
    for each in receipted:
        if each.kind != "report":
            key = (each.kind, each.certname)
            newest[key] = max(each.at, newest.get(key, each.at))
    with psycopg.connect(database) as connection:
        stored: dict[str, Any] = {
            kind: dict(connection.execute(sql).fetchall()) for kind, sql in NEWEST.items()
        }
        reports = set(connection.execute(REPORTS).fetchall())
    missing = [
        Lost(kind, name, at) for (kind, name), at in newest.items() if (stored[kind].get(name) or START) < at
    ]
    return missing + [
        each for each in receipted if each.kind == "report" and (each.certname, each.at) not in reports
    ]


def _wait_stored(box: Box, receipted: set[Lost]) -> tuple[list[Lost], float]:
    started_s = time.monotonic()
    while True:
        box.restart_if_dead()
        with suppress(psycopg.Error):
            engine: RunningEngine | None = running_engine("")
            if engine is not None:
                missing = lost(engine.database, receipted)
                if not missing or time.monotonic() - started_s > PATIENCE_S:
                    return missing, time.monotonic() - started_s
        assert time.monotonic() - started_s < 2 * PATIENCE_S, "the engine does not come back"
        time.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.one_box", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of kills (default: %(default)s)")
    parser.add_argument(
        "--every-s", type=float, default=1.0, help="between two of them (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ingest-one-box-"))
    directory.chmod(0o755)
    box = Box(directory)
    producer = Producer()
    try:
        box.engine.wait_ready()
        producer.start()
        kills = kill(box, asked.seconds, asked.every_s, random.Random(asked.seed))
        producer.stop.set()
        producer.join()
        missing, seconds = _wait_stored(box, producer.receipted)
    finally:
        producer.stop.set()
        box.engine.stop()
        shutil.rmtree(directory, ignore_errors=True)
    row = {
        "kills": kills.of_name.total(), "killed": dict(kills.of_name), "in_starts": kills.in_starts,
        "down_s": round(kills.down_s, 1), "starts": box.starts, "receipts": len(producer.receipted),
        "tries": producer.tries, "lost": len(missing), "stored_after_s": round(seconds, 1),
    }  # fmt: skip
    print(row, *missing[:20], sep="\n")
    print("record:", record("one-box", vars(asked), [row]))
    return 1 if missing or kills.of_name.total() < round(asked.seconds / asked.every_s) else 0


if __name__ == "__main__":
    sys.exit(main())
