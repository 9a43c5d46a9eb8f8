"""What one engine stored, the decoders of another one know."""

from __future__ import annotations

from datetime import UTC, datetime

from ingest.core.catalog.decoding import Decoding
from ingest.core.delivery.work import Descriptor
from ingest.engine.learning import COUNTS_EVERY_S, LOOKS_EVERY_S, Learning
from ingest.store.catalog.reading import StoredDigest
from ingest.store.connection import Connection, connect
from lab.store_model import Pipeline, resource, wire_body


def catalog(name: str, minute: int, content: str = "") -> bytes:
    return wire_body(name, minute, [resource(f"/{content}")])


def digest_of(body: bytes) -> bytes:
    descriptor = Descriptor(1, 1, 0, len(body), len(body), datetime.now(UTC), {})
    (*_, work) = Decoding(1 << 20).decode(descriptor, memoryview(body), {})
    return work.sections.raw_digest


class Engine:
    """What it has learned, at hand-made times: it works for a while, then rests."""

    def __init__(self, connection: Connection) -> None:
        self.now_s = 0.0
        self._learning = Learning(lambda: self.now_s)
        self._connection = connection

    def learned(self, works_s: float = LOOKS_EVERY_S) -> list[StoredDigest]:
        found: list[StoredDigest] = []
        end_s = self.now_s + works_s
        while self.now_s < end_s:
            self.now_s += 0.5
            self._learning.worked()
            if self._learning.due_in_s() == 0.0:
                found += self._learning.news(self._connection)
        while (due_s := self._learning.due_in_s()) is not None:
            self.now_s += due_s
            found += self._learning.news(self._connection)
        return found


def instance(database: str) -> Connection:
    """A writer of one."""
    return connect(database, application_name="ingest writer-0 0.0.0")


def test_what_others_store_is_learned_once(connection: Connection, database: str) -> None:
    """At the start everything, with its digest; then what was stored since, unchanged ones not."""
    writer = Pipeline(connection)
    first = catalog("a", 1)
    writer.take(first)
    with instance(database), instance(database):
        engine = Engine(connection)
        assert engine.learned() == [("a", digest_of(first))]
        assert engine.learned() == []
        second = catalog("b", 1, "b")
        writer.take(second)
        writer.take(catalog("a", 2))
        assert engine.learned() == [("b", digest_of(second))]
        assert engine.learned() == []


def test_what_was_being_stored_is_not_missed(connection: Connection, database: str) -> None:
    """A transaction that began before a look and committed after it."""
    with instance(database), instance(database), connect(database) as slow:
        Pipeline(connection).take(catalog("a", 1))
        engine = Engine(connection)
        engine.learned()
        with slow.transaction():
            slow.execute("UPDATE catalogs SET content_xid = pg_current_xact_id()")
            Pipeline(connection).take(catalog("b", 1, "b"))
            assert [name for name, _ in engine.learned()] == ["b"]
        assert {name for name, _ in engine.learned()} == {"a", "b"}


def test_an_engine_that_is_alone_looks_only_for_others(connection: Connection, database: str) -> None:
    """And finds them when they come."""
    with instance(database):
        writer = Pipeline(connection)
        engine = Engine(connection)
        engine.learned()
        writer.take(catalog("a", 1))
        assert engine.learned(100) == []
        with instance(database):
            assert [name for name, _ in engine.learned(COUNTS_EVERY_S)] == ["a"]
