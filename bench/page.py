"""What looking costs: the live page with nobody, one and ten viewers, and ``ingest top``, over a fleet of 3000 nodes.

CPU is that of engine, front, PostgreSQL and ``ingest top`` together, as shares of a core, above what the same engine takes
when nobody looks; the page's own then is that of its front. The first picture is Chromium's, where that is installed.
"""

from __future__ import annotations

import argparse
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.records import record
from bench.servers import POSTGRESQL, broker_of, cpu_s, publish, workplace
from ingest.engine.signals import leave_on_signals
from lab.browser import CHROMIUM, browser
from lab.engine import Engine
from lab.runs import Run, report_of
from lab.servers import Postgres, free_port
from lab.store_model import START, resource, wire_body

DATABASE = "ingest"
WARM_S = 5.0  # imports, first connections, first plans
# As if the fleet had been here for long: every node's interval is known, and its last catalog at a time of its own.
RHYTHMS = "INSERT INTO node_rhythms (node_id, usual_s) SELECT id, 1800 FROM nodes"
SPREAD = "UPDATE catalogs SET received_at = received_at - (node_id % 2000) * interval '1 second'"


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each row (default: %(default)s)")
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    options = parser.parse_args()
    with workplace() as (directory, stack):
        rows = _measure(options, directory, stack)
    print("record:", record("page", vars(options), rows))


def _measure(options: argparse.Namespace, directory: Path, stack: ExitStack) -> list[dict[str, Any]]:
    broker = broker_of(options.broker, stack)
    server = Postgres(directory)
    server.start(**POSTGRESQL)
    stack.callback(server.stop)
    server.execute("postgres", f"CREATE DATABASE {DATABASE}")
    port = free_port()
    log = directory / "engine.log"
    flags = ("--workers", "2", "--log-level", "warning", "--listen", f"127.0.0.1:{port}")
    engine = Engine(broker, server.conninfo(DATABASE), *flags, log=log)
    stack.callback(engine.kill)
    engine.wait_ready()
    _fill(engine, broker, server, options.nodes)
    watched = Watched(engine, server, options.seconds)
    rows = [watched.row("nobody looks")]
    for viewers in (1, 10):
        with _viewers(port, viewers):
            rows.append(watched.row(f"{viewers} look at the page"))
    with _top(engine, server) as pid:
        rows.append(watched.row("ingest top", pid))
    if CHROMIUM is not None:
        rows.append(_first_picture(port))
    engine.stop()
    return rows


def _fill(engine: Engine, broker: str, server: Postgres, nodes: int) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    minute = round((now - START) / timedelta(minutes=1)) - 1
    names = [f"node-{number:05d}.example.com" for number in range(nodes)]
    contents = [resource(f"/etc/{place}") for place in range(20)]
    publish(broker, [wire_body(name, minute, contents) for name in names])
    publish(broker, [report_of(Run(name, place, 1, now)) for place, name in enumerate(names)])
    engine.wait_settled(2 * nodes)
    for statement in (RHYTHMS, SPREAD, "VACUUM ANALYZE"):
        server.execute(DATABASE, statement)


class Watched:
    """Who computes when somebody looks."""

    def __init__(self, engine: Engine, server: Postgres, seconds: float) -> None:
        assert server.process is not None
        self._engine, self._postgresql, self._seconds = engine.process.pid, server.process.pid, seconds
        self._front = next(pid for pid in _children(self._engine) if b"ingest.front" in _command(pid))
        self._nobody = 0.0

    def row(self, what: str, own: int | None = None) -> dict[str, Any]:
        """``own``: a process that is there for it alone."""
        time.sleep(WARM_S)
        before, start_s = self._cpu_s(own), time.perf_counter()
        time.sleep(self._seconds)
        seconds = time.perf_counter() - start_s
        shares = {name: (cpu - before[name]) / seconds for name, cpu in self._cpu_s(own).items()}
        total = shares["engine"] + shares["postgresql"] + shares["own"]
        if what == "nobody looks":
            self._nobody = total
        found = {"what": what, "core_share": round(total - self._nobody, 5)}
        found |= {f"{name}_share": round(share, 5) for name, share in shares.items()}
        print(
            f"{what}: {found['core_share']:.2%} of a core more than with nobody (the front alone {shares['front']:.2%})"
        )
        return found

    def _cpu_s(self, own: int | None) -> dict[str, float]:
        return {
            "engine": cpu_s(self._engine),
            "front": cpu_s(self._front),  # of the engine's
            "postgresql": cpu_s(self._postgresql),
            "own": 0.0 if own is None else cpu_s(own),
        }


@contextmanager
def _viewers(port: int, count: int) -> Iterator[None]:
    """Each reads the page's events as a browser does."""
    opened = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(count)]
    threads = []
    for viewer in opened:
        viewer.sendall(b"GET /page/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        assert b"200" in viewer.recv(4096).split(b"\r\n")[0]
        threads.append(threading.Thread(target=_read, args=(viewer,)))
        threads[-1].start()
    try:
        yield
    finally:
        for viewer in opened:
            viewer.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for viewer in opened:
            viewer.close()


def _read(viewer: socket.socket) -> None:
    while viewer.recv(65536):
        pass


@contextmanager
def _top(engine: Engine, server: Postgres) -> Iterator[int]:
    """``ingest top`` in a terminal of its own; gives its pid."""
    terminal, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest", "top", "--metrics-port", str(engine.port), "--database", server.conninfo(DATABASE)],
        stdin=its, stdout=its, stderr=its, start_new_session=True, env=os.environ | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(its)
    drain = threading.Thread(target=_drain, args=(terminal,))
    drain.start()
    try:
        yield process.pid
    finally:
        os.write(terminal, b"q")
        assert process.wait(20) == 0
        drain.join()
        os.close(terminal)


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass  # the other side is closed


def _first_picture(port: int) -> dict[str, Any]:
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    with browser() as tab:
        found_ms = []
        for _ in range(5):
            tab.show(f"http://127.0.0.1:{port}/")
            tab.until("document.querySelectorAll('#fleet dd').length > 3")
            numbers_ms = tab.value("performance.now()")
            found_ms.append((tab.until(paint), numbers_ms))
            tab.show("about:blank")
    first_ms, numbers_ms = (sorted(each)[len(each) // 2] for each in zip(*found_ms, strict=True))
    print(f"first picture after {first_ms:.0f} ms, its numbers after {numbers_ms:.0f} ms (middle of 5)")
    return {"what": "first picture", "paint_ms": round(first_ms, 1), "numbers_ms": round(numbers_ms, 1)}


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


if __name__ == "__main__":
    main()
