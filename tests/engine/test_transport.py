"""Another protocol is a setting and a class: a package of somebody else brings it, and the engine is not changed."""

from __future__ import annotations

import textwrap
from pathlib import Path

from ingest.store.connection import Connection
from lab.engine import Engine, wait_for

# A queue that is a directory: each file a message, acknowledged by deleting it.
SPOOL = '''
import os
from pathlib import Path

from ingest.transport.message import Message


class Directory:
    """Has all that the engine asks of a broker and of a connection to it."""

    server, protocol, acknowledges_cumulatively = "a directory", "files", False
    listens, wants_write = True, False

    def __init__(self, config):
        self.path = Path(config.queue_source)
        self.receipts, self.taken = set(), set()
        self.unread = True

    def __str__(self):
        return str(self.path)

    def connect(self, space=None, *, heartbeats=True):
        self.space = space
        self.event = os.eventfd(0)
        return self

    def fileno(self):
        return self.event

    def next_beat_s(self):
        return 0.05

    def subscribe(self, destination, subscription, prefetch_messages, window_bytes):
        pass

    def read(self):
        for file in sorted(self.path.iterdir()):
            if file.name not in self.taken:
                body = file.read_bytes()
                offset = self.space.allocate(len(body))
                self.space.view(offset, len(body))[:] = body
                self.taken.add(file.name)
                yield Message({"message-id": file.name}, offset, len(body), len(body))

    listen = flush = beat = lambda self: None

    def acknowledge(self, messages, subscription):
        for _, message_id in messages:
            (self.path / message_id).unlink()

    def disconnect(self, receipt):
        self.receipts.add(receipt)

    def close(self):
        os.close(self.event)


def brokers(config):
    return [Directory(config)]
'''


def test_a_registered_transport_carries_catalogs(
    tmp_path: Path, database: str, connection: Connection
) -> None:
    """An entry point of another distribution is found by its name; its messages are stored, then acknowledged."""
    site, queue = tmp_path / "site", tmp_path / "queue"
    described = site / "spool_transport-1.0.dist-info"
    described.mkdir(parents=True)
    queue.mkdir()
    (site / "spool_transport.py").write_text(SPOOL)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: spool-transport\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(
        textwrap.dedent("""\
            [puppet_ingest.transports]
            directory = spool_transport:brokers
            """)
    )
    (queue / "1").write_text('{"name": "a.example", "version": "1", "resources": [], "edges": []}')
    engine = Engine(
        str(queue), database, "--queue-type", "directory", log=tmp_path / "log", environment={"PYTHONPATH": str(site)}
    )  # fmt: skip
    try:
        assert engine.wait_settled(1)["stored"] == 1
        wait_for(lambda: not list(queue.iterdir()), engine, "acknowledged")
        assert engine.stop() == 0
    finally:
        engine.kill()
    assert connection.execute("SELECT certname FROM nodes").fetchall() == [("a.example",)]
