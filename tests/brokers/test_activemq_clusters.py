"""Two ActiveMQ Classic: one store that the second takes over, and a network of two that pass messages to each other."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.store.connection import Connection
from lab.brokers import PASSWORD, USER, ActiveMQ
from lab.engine import Engine, wait_for
from lab.servers import free_port
from lab.stomp_client import Client
from lab.store_model import resource, wire_body

pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(ActiveMQ.missing()), reason=ActiveMQ.missing() or "")]
QUEUE = "/queue/catalog"
BODIES = {
    f"n{number}.example.com": wire_body(f"n{number}.example.com", 1, [resource(f"/{number}")]) for number in range(400)
}  # fmt: skip
BACK_S = 90.0


class Member(ActiveMQ):
    """``store`` is its configuration of that, where it is not its own; ``more`` stands beside. One that ``waits`` opens no
    port before its turn."""

    def __init__(self, store: str = "", more: str = "", *, waits: bool = False) -> None:
        self._store, self._more, self._waits = store, more, waits
        super().__init__()

    def prepare(self) -> None:
        super().prepare()
        file = self.directory / "activemq.xml"
        text = file.read_text()
        own = f'<kahaDB directory="{self.directory}/data/kahadb"/>'
        assert own in text
        text = text.replace(own, self._store or own)
        text = text.replace('brokerName="ingest"', f'brokerName="b{self.port}"')
        file.write_text(text.replace("<transportConnectors>", self._more + "<transportConnectors>"))

    def start(self) -> None:
        super().start()
        self._waits = False

    def ports(self) -> list[int]:
        return [] if self._waits else super().ports()

    def _wait_for_login(self, process: subprocess.Popen[bytes]) -> None:
        if not self._waits:
            super()._wait_for_login(process)


class Publisher(threading.Thread):
    """Every body until it has a receipt, at whichever of the ports gives it one."""

    def __init__(self, *ports: int) -> None:
        super().__init__(daemon=True)
        self._ports = ports
        self.receipts = 0
        self.begun = threading.Event()  # a part of them
        self.start()

    def run(self) -> None:
        place = 0
        client: Client | None = None
        for body in BODIES.values():
            while True:
                try:
                    port = self._ports[place % len(self._ports)]
                    client = client or Client(port, USER, PASSWORD, answer_timeout_s=4)
                    client.publish(QUEUE, body)
                    break
                except (AssertionError, OSError):
                    if client is not None:
                        client.close()
                    client, place = None, place + 1
            self.receipts += 1
            if self.receipts > len(BODIES) // 4:
                self.begun.set()
            time.sleep(0.01)
        if client is not None:
            client.close()


@pytest.fixture
def members() -> Iterator[list[Member]]:
    started: list[Member] = []
    yield started
    for member in started:
        member.remove()


def catalogs(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM catalogs").fetchone()
    assert row is not None
    return int(str(row[0]))


def wait_stored(connection: Connection, engine: Engine, count: int = len(BODIES)) -> None:
    wait_for(lambda: catalogs(connection) >= count, engine, "stored", BACK_S)


def test_the_second_broker_takes_the_store_over(
    members: list[Member], connection: Connection, database: str, tmp_path: Path
) -> None:
    """One is killed under a stream; the other, which waited for the lock of their directory, has all that had a receipt."""
    store = Path(tempfile.mkdtemp(prefix="ingest-activemq-store-"))
    kaha = (
        f'<kahaDB directory="{store}" lockKeepAlivePeriod="1000"><locker>'
        '<shared-file-locker lockAcquireSleepInterval="1000"/></locker></kahaDB>'
    )
    first, second = Member(kaha), Member(kaha, waits=True)
    members += [first, second]
    first.start()
    second.start()
    engine = Engine(f"{first.url()},{second.url()}", database, "--backoff-max-s", "1", log=tmp_path / "log")
    try:
        engine.wait_ready()
        publisher = Publisher(first.port, second.port)
        assert publisher.begun.wait(60)
        first.kill()
        publisher.join(BACK_S)
        assert publisher.receipts == len(BODIES)
        wait_stored(connection, engine)
        assert not [line for line in engine.lines() if line["event"] == "child_died"]
    finally:
        engine.kill()
        shutil.rmtree(store, ignore_errors=True)


_REPLAY = """<destinationPolicy><policyMap><policyEntries><policyEntry queue=">" enableAudit="false">
  <networkBridgeFilterFactory><conditionalNetworkBridgeFilterFactory replayWhenNoConsumers="true"/>
  </networkBridgeFilterFactory></policyEntry></policyEntries></policyMap></destinationPolicy>"""


@pytest.mark.parametrize("replays", [True, False], ids=["replayWhenNoConsumers", "without"])
def test_what_a_broker_of_a_network_has_taken_over_waits_for_it(
    members: list[Member], connection: Connection, database: str, tmp_path: Path, replays: bool
) -> None:
    """The first gives what it is sent to the second, where a consumer is, and that one is killed. Engines go on at the first;
    what the second had is with it until it is back, and then needs the policy that lets it go back to where it came from, or
    an engine of its own."""
    between = free_port()
    policy = _REPLAY * replays
    bridge = f"""<networkConnectors><networkConnector uri="static:(tcp://127.0.0.1:{between})" duplex="true"
        userName="{USER}" password="{PASSWORD}"/></networkConnectors>"""
    second = Member(more=policy)
    file = second.directory / "activemq.xml"
    openwire = f'<transportConnector name="openwire" uri="tcp://127.0.0.1:{between}"/>'
    file.write_text(file.read_text().replace("</transportConnectors>", openwire + "</transportConnectors>"))
    first = Member(more=policy + bridge)
    members += [first, second]
    second.start()
    first.start()
    engines: list[Engine] = []
    with Client(second.port, USER, PASSWORD) as consumer:
        consumer.subscribe(QUEUE)
        publisher = Publisher(first.port)
        publisher.join(BACK_S)
        assert publisher.receipts == len(BODIES)
        second.kill()
    try:
        engines.append(Engine(first.url(), database, log=tmp_path / "first"))
        engines[0].wait_ready()
        second.start()
        if not replays:
            time.sleep(5)
            assert catalogs(connection) < len(BODIES), "nothing waits at the second"
            engines.append(Engine(second.url(), database, log=tmp_path / "second"))
        wait_stored(connection, engines[0])
    finally:
        for engine in engines:
            engine.kill()
