"""The generator into a sink: how many catalogs a second it can publish when nobody else limits it."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack

import msgspec

from ingest.config.loading import load
from ingest.transport.publisher import Publisher
from tools.loadgen.fleet import Fleet
from tools.loadgen.progress import Bar
from tools.loadgen.sending import Sender


class Alone(msgspec.Struct):
    catalogs: int
    mean_kib: int
    per_s: float
    cpu_ms: float  # of the generator, a catalog


def publish_alone(fleet: Fleet) -> Alone:
    """Every node's catalog once, through a real connection, to a process that forgets it."""
    with ExitStack() as stack:
        sink = subprocess.Popen(
            [sys.executable, "-m", "tools.loadgen.sink"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert sink.stdin is not None
        assert sink.stdout is not None
        stack.callback(sink.wait)
        stack.callback(sink.stdin.close)  # that ends it
        stack.callback(sink.stdout.close)
        port = sink.stdout.readline().strip()
        publisher = Publisher(load({"queue_source": f"stomp://127.0.0.1:{port}"}, {}).config)
        stack.callback(publisher.close)
        sender = Sender(publisher, fleet)
        bar = stack.enter_context(Bar("publishing", len(fleet.nodes)))
        begin_s, begin_cpu_s = time.monotonic(), time.process_time()
        sender.prime(fleet.nodes, lambda: bar.advance(1))
        seconds, cpu_s = time.monotonic() - begin_s, time.process_time() - begin_cpu_s
    count = len(fleet.nodes)
    return Alone(
        count, round(fleet.mean_bytes / 1024), round(count / seconds, 1), round(cpu_s * 1000 / count, 3)
    )
