"""``make bench-receipts``: what a receipt of the embedded broker costs, kept on disk and in memory alone.

Idle: one publisher, one message at a time, pauses between them. Under load: publishers with a window of messages without a
receipt each, as many as the broker takes, nobody who reads. Rounds with and without a journal take turns: a machine is not always
as fast.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.records import record
from ingest.config.loading import load
from ingest.transport.publisher import Publisher
from lab.servers import embedded_broker

IDLE_MESSAGES = 200
PAUSE_S = 0.01
PUBLISHERS = 3  # processes: one alone cannot keep the broker busy
DESTINATION = "/queue/catalog"


def publisher_to(url: str) -> Publisher:
    return Publisher(load({"queue_source": url, "destination": DESTINATION}, {}).config)


@contextmanager
def broker(kept: bool) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ingest-bench-", dir=Path.cwd()) as directory:
        # Not in /tmp, which may be memory.
        arguments = ["--directory", directory, "--disk-bytes-max", str(20 * 1024**3)] if kept else []
        with embedded_broker(
            *arguments, "--memory-bytes-max", str(4 * 1024**3), "--log-level", "error"
        ) as url:
            yield url


def idle(url: str, body: bytes) -> list[float]:
    """Milliseconds of each receipt."""
    publisher, took = publisher_to(url), []
    for _ in range(IDLE_MESSAGES):
        time.sleep(PAUSE_S)
        began_s = time.perf_counter()
        publisher.publish([(body, {})])
        took.append((time.perf_counter() - began_s) * 1000)
    publisher.close()
    return took


def flood(url: str, messages: int, body_bytes: int) -> float:
    """Messages a second of all publishers together."""
    command = [sys.executable, "-m", "bench.receipts", "--publish", url, "--messages", str(messages)]
    processes = [
        subprocess.Popen(
            [*command, "--body-bytes", str(body_bytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(PUBLISHERS)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # connected
    began_s = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        assert process.wait() == 0
    return PUBLISHERS * messages / (time.perf_counter() - began_s)


def publish(url: str, messages: int, body: bytes) -> None:
    """In a process of its own."""
    publisher = publisher_to(url)
    print("connected", flush=True)
    sys.stdin.read()
    assert publisher.publish((body, {}) for _ in range(messages)) == messages
    publisher.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--body-bytes", type=int, action="append", help="(default: 10 and 160 KB)")
    parser.add_argument("--messages", type=int, default=0, help="of each publisher (default: 60 MB of them)")
    parser.add_argument("--publish", metavar="URL", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.publish:
        publish(asked.publish, asked.messages, bytes(asked.body_bytes[0]))
        return
    rows = [row_of(size, asked) for size in asked.body_bytes or (10_000, 160_000)]
    for row in rows:
        print(row)
    print("record:", record("receipts", {"rounds": asked.rounds, "publishers": PUBLISHERS}, rows))


def row_of(size: int, asked: argparse.Namespace) -> dict[str, Any]:
    messages = asked.messages or 60_000_000 // size
    waits: dict[bool, list[float]] = {True: [], False: []}
    rates: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(asked.rounds):
        for kept in (True, False):
            with broker(kept) as url:
                waits[kept] += idle(url, bytes(size))
            with broker(kept) as url:
                rates[kept].append(flood(url, messages, size))
    kept_per_s, memory_per_s = statistics.median(rates[True]), statistics.median(rates[False])
    return {
        "body_bytes": size,
        "receipt_idle_p50_ms": round(statistics.median(waits[True]), 2),
        "receipt_idle_p99_ms": round(statistics.quantiles(waits[True], n=100)[98], 2),
        "in_memory_idle_p50_ms": round(statistics.median(waits[False]), 2),
        "kept_per_s": round(kept_per_s),
        "in_memory_per_s": round(memory_per_s),
        "part_of_in_memory": round(kept_per_s / memory_per_s, 2),
    }


if __name__ == "__main__":
    main()
