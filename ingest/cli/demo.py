"""``ingest demo``: the whole way in a temporary directory, with a small fleet, a live display and a few queries."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ingest.config.settings import SETTINGS, Config
from ingest.core.passwords import hide_passwords
from ingest.embedded.broker.starting import embedded_broker
from ingest.embedded.postgresql import embedded_database
from ingest.engine.run import open_database
from ingest.errors import Unavailable
from ingest.observe.asking import read_status
from ingest.store.catalog.reading import exported_resources
from ingest.transport.publisher import Publisher

START_TIMEOUT_S = 30.0
CHANGED_SHARE = 0.1  # of the runs after the first: most catalogs never change


def demo(config: Config, *, seconds: float, nodes: int) -> int:
    """Runs it; returns the exit code. Everything it made is gone afterwards."""
    console = Console(stderr=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ingest-demo-")))
        console.print(
            f"A demonstration, with embedded parts, in [bold]{directory}[/]; it leaves nothing behind."
        )
        url = stack.enter_context(embedded_broker(0))
        console.print(f"Embedded STOMP broker (for evaluation): {hide_passwords(url)}")
        uri = stack.enter_context(embedded_database(directory / "postgresql"))
        console.print("Embedded PostgreSQL (for evaluation): started")
        config = msgspec.structs.replace(
            config,
            queue_source=url,
            database=uri,
            log_level="warning",
            metrics_host="127.0.0.1",
            metrics_port=_free_port(),
        )
        stack.enter_context(engine(config))
        console.print(f"ingest run --workers {config.workers}: ready\n")
        sent = _publish(config, console, seconds, nodes)
        _ask(config, console, nodes)
        console.print(f"\n{sent} catalogs published, all stored. The same with your own parts:")
        console.print(
            "  ingest run --queue-source stomp://USER@BROKER:61613 --queue-password-file FILE --database postgresql://..."
        )
    return 0


@contextlib.contextmanager
def engine(config: Config) -> Iterator[None]:
    """``ingest run`` as a process of its own, ready when this gives control."""
    environment = os.environ | {
        f"INGEST_{setting.name.upper()}": str(getattr(config, setting.name)) for setting in SETTINGS
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ingest", "run"], env=environment, start_new_session=True
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _status(config).get("health", {}).get("ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable("the engine did not become ready; its own line above says why")
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(config.drain_timeout_s + 5)
        process.kill()
        process.wait()


def _publish(config: Config, console: Console, seconds: float, nodes: int) -> int:
    """The fleet's runs, until the time is up and the last catalog is stored; returns how many were sent."""
    chance = random.Random(1)  # the same fleet every time
    versions = dict.fromkeys(range(nodes), 0)
    publisher = Publisher(config)
    sent = 0
    started = time.monotonic()
    try:
        with Live(console=console, refresh_per_second=4, transient=False) as live:
            while True:
                late = time.monotonic() - started > seconds
                if not late or sent < nodes:
                    node = sent % nodes
                    if sent >= nodes and chance.random() < CHANGED_SHARE:
                        versions[node] += 1
                    sent += publisher.publish([(catalog(node, versions[node]), {})])
                status = _status(config)
                live.update(_table(status, sent, time.monotonic() - started))
                if late and sent >= nodes and _settled(status) >= sent:
                    return sent
                if time.monotonic() - started > seconds + START_TIMEOUT_S:
                    raise Unavailable(
                        "the engine has not settled everything in time: 'ingest status' tells more"
                    )
                time.sleep(0.01)
    finally:
        publisher.close()


def _ask(config: Config, console: Console, nodes: int) -> None:
    connection = open_database(config)
    try:
        console.print("\n[bold]ingest query exported --type Sshkey[/]: what a collector would get")
        keys = list(exported_resources(connection, "Sshkey"))
        for resource in keys[:3]:
            console.print(
                f"  {resource['certname']:<28} {resource['title']:<28} {resource['parameters']['type']}"
            )
        console.print(f"  ... {len(keys)} of {nodes} nodes")
        for text in (
            "SELECT count(*) AS nodes, sum(resources) AS resources FROM node_catalogs",
            "SELECT count(*) AS distinct_resources_stored FROM resources",
            "SELECT relationship, count(*) FROM edges GROUP BY relationship",
        ):
            console.print(f"[bold]{text}[/]")
            for row in connection.execute(text):
                console.print("  " + "  ".join(str(value) for value in row))
    finally:
        connection.close()


def _table(status: dict[str, Any], sent: int, seconds: float) -> Table:
    processes = status.get("processes", {})
    receiver = processes.get("receiver", {})
    table = Table(title=f"{seconds:.0f} s", title_justify="left")
    for name in ("published", "stored", "unchanged", "a second", "not settled", "oldest", "rows written"):
        table.add_column(name, justify="right")
    settled = _settled(status)
    table.add_row(
        str(sent),
        f"{receiver.get('stored', 0):.0f}",
        f"{receiver.get('unchanged', 0):.0f}",
        f"{settled / max(seconds, 0.1):.1f}",
        f"{max(0, sent - settled):.0f}",
        f"{receiver.get('ingest_oldest_unsettled_seconds', 0) * 1000:.0f} ms",
        f"{sum(p.get('ingest_rows_written_total', 0) for p in processes.values()):.0f}",
    )
    return table


def _settled(status: dict[str, Any]) -> float:
    receiver = status.get("processes", {}).get("receiver", {})
    return sum(
        float(receiver.get(name, 0)) for name in ("stored", "unchanged", "stale", "superseded", "quarantined")
    )


def _status(config: Config) -> dict[str, Any]:
    try:
        return read_status(config, timeout_s=2)
    except Unavailable:
        return {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def catalog(node: int, version: int) -> bytes:
    """A native catalog of a small web server; ``version`` changes one parameter."""
    certname = f"web-{node:02d}.example.com"
    resources: list[dict[str, Any]] = [_resource("Class", "main", {"name": "main"})]
    resources += [
        _resource("Package", name, {"ensure": "installed"}) for name in ("apache2", "openssl", "rsync")
    ]
    resources.append(
        _resource(
            "File",
            "/etc/motd",
            {"content": f"welcome {version}", "mode": "0644", "require": "Package[apache2]"},
        )
    )
    resources.append(_resource("Service", "apache2", {"ensure": "running", "subscribe": ["File[/etc/motd]"]}))
    key = _resource("Sshkey", certname, {"type": "ed25519", "key": f"AAAAC3{node:04d}"})
    resources.append(key | {"exported": True})
    return json.dumps(
        {
            "tags": ["settings"],
            "name": certname,
            "version": int(time.time()),
            "environment": "production",
            "catalog_uuid": str(uuid.uuid4()),
            "catalog_format": 1,
            "producer_timestamp": datetime.now(UTC).isoformat(),
            "resources": resources,
            "edges": [
                {"source": "Class[main]", "target": f"{r['type']}[{r['title']}]"} for r in resources[1:]
            ],
            "classes": ["settings"],
        }
    ).encode()


def _resource(type_: str, title: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": type_,
        "title": title,
        "tags": sorted({type_.lower(), "class"}),
        "file": "/etc/puppetlabs/code/environments/production/manifests/site.pp",
        "line": 3,
        "exported": False,
        "parameters": parameters,
    }
