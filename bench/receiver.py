"""Receive and drop: what the wire, the broker and a client allow, without anything behind the client.

The engine's own connection beside stock stomp.py with a listener, on the same messages in one run.
"""

from __future__ import annotations

import argparse
import selectors
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import stomp

from bench.catalogs import fleet
from bench.records import record
from bench.servers import broker_of, publish
from ingest.config.loading import load
from ingest.engine.signals import leave_on_signals
from ingest.errors import Unavailable
from ingest.ipc.arena import Arena, memory
from ingest.transport.protocol import brokers
from ingest.transport.stomp.address import stomp_endpoint


def main() -> None:
    leave_on_signals()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogs", type=Path, help="a directory of ROLE/run-K/catalog-wire.json")
    parser.add_argument("--clones", type=int, default=8)
    parser.add_argument("--broker", help="its URL, instead of RabbitMQ (or the embedded one) started here")
    options = parser.parse_args()
    rows = []
    with ExitStack() as stack:
        broker = broker_of(options.broker, stack)
        for roles in ("minimal-*", "*"):
            clones = options.clones * (20 if roles != "*" else 1)
            bodies = fleet(options.catalogs, clones, roles=roles)[2]
            for name, receive in RECEIVERS.items():
                row = {"receiver": name, "roles": roles, **receive(broker, bodies)}
                rows.append(row)
                print(
                    f"{name:<9} {row['mean_kib']:>6.0f} KiB bodies: {row['per_s']:>6.0f}/s, {row['cpu_ms']:.2f} ms CPU each"
                )
    print("record:", record("receiver", vars(options), rows))


def drop(broker: str, bodies: list[bytes]) -> dict[str, Any]:
    """The engine's connection: into shared memory, acknowledged one by one, and freed."""
    config = load({"queue_source": broker}, {}).config
    publish(broker, bodies)
    arena = Arena(memory("bench", config.window_bytes_max))
    connection = brokers(config)[0].connect(arena)
    connection.subscribe(config.destination, "drop", config.window_messages_max, config.window_bytes_max)
    start, cpu = time.perf_counter(), time.process_time()
    got = 0
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while got < len(bodies):
            selector.select(1)
            for message in connection.read():
                got += 1
                if message.offset is not None:
                    arena.free(message.offset, message.length)
                headers = message.headers
                connection.acknowledge([(headers.get("ack", ""), headers.get("message-id", ""))], "drop")
            connection.flush()
    found = _figures(bodies, start, cpu)
    connection.disconnect("bye")
    with suppress(Unavailable):  # some brokers close as soon as they have answered
        while "bye" not in connection.receipts:
            for _ in connection.read():
                pass
            time.sleep(0.01)
    connection.close()
    return found


def drop_with_stomp_py(broker: str, bodies: list[bytes]) -> dict[str, Any]:
    """stomp.py as its documentation shows it: a listener, individual acknowledgement."""
    config = load({"queue_source": broker}, {}).config
    publish(broker, bodies)
    endpoint = stomp_endpoint(broker, config)
    # auto_decode would make a text of each body, which not every body is.
    connection = stomp.Connection12([(endpoint.host, endpoint.port)], vhost=endpoint.vhost, auto_decode=False)
    done = threading.Event()
    got = 0

    class Listener(stomp.ConnectionListener):  # type: ignore[misc]
        def on_message(self, frame: Any) -> None:
            nonlocal got
            got += 1
            connection.ack(frame.headers["ack"])
            if got == len(bodies):
                done.set()

    connection.set_listener("", Listener())
    connection.connect(endpoint.user, endpoint.password, wait=True)
    start, cpu = time.perf_counter(), time.process_time()
    window = {"prefetch-count": str(config.window_messages_max)}
    connection.subscribe(config.destination, "drop", "client-individual", window)
    done.wait()
    found = _figures(bodies, start, cpu)
    connection.disconnect()
    return found


RECEIVERS: dict[str, Callable[[str, list[bytes]], dict[str, Any]]] = {
    "ingest": drop,
    "stomp.py": drop_with_stomp_py,
}


def _figures(bodies: list[bytes], start: float, cpu: float) -> dict[str, Any]:
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    return {
        "catalogs": len(bodies), "mean_kib": sum(map(len, bodies)) / len(bodies) / 1024, "seconds": seconds,
        "per_s": len(bodies) / seconds, "cpu_ms": used * 1000 / len(bodies),
    }  # fmt: skip


if __name__ == "__main__":
    main()
