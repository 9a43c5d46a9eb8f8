"""What the benchmarks have in common: a broker, a PostgreSQL as in production, CPU of a process tree."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ingest.config.loading import load
from ingest.transport.publisher import Publisher
from lab.brokers import RabbitMQ, rabbitmq
from lab.servers import embedded_broker

TICKS = os.sysconf("SC_CLK_TCK")
# Sync is on, as in production; no checkpoint falls into a round but those that the benchmark asks for.
POSTGRESQL = {
    "fsync": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
}


@contextmanager
def workplace() -> Iterator[tuple[Path, ExitStack]]:
    """A directory for servers, which may be another user's, and a stack for what ends before that is removed."""
    directory = Path(tempfile.mkdtemp(prefix="ingest-bench-"))
    directory.chmod(0o755)
    try:
        with ExitStack() as stack:
            yield directory, stack
    finally:
        shutil.rmtree(directory)


def broker_of(url: str | None, stack: ExitStack) -> str:
    """The URL given, or that of a RabbitMQ started here, or where that is not installed of the embedded broker,
    which competes for the cores more than a real one."""
    if url is not None:
        return url
    return stack.enter_context(embedded_broker() if RabbitMQ.missing() else rabbitmq())


def publish(broker: str, bodies: Iterable[bytes]) -> None:
    publisher = Publisher(load({"queue_source": broker}, {}).config)
    try:
        publisher.publish((body, {}) for body in bodies)
    finally:
        publisher.close()


def cpu_s(pid: int) -> float:
    """User and system seconds of a process and all below it, the ended ones included."""
    total = 0.0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(") ")[2].split()
            children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15])) / TICKS
        waiting += map(int, children)
    return total
