"""A message that comes again without any time stays behind what was stored meanwhile, and before what was not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ingest.core.delivery.work import Claim, Deactivate, Full, Outcome
from ingest.engine.kinds import open_lane
from ingest.store import engines
from ingest.store.asking import Asking
from ingest.store.connection import Connection, connect
from ingest.store.housekeeping import forget_engines
from ingest.store.lane import LaneSettings
from lab.store_model import Pipeline, at, resource, stored, wire_body
from tests.store.test_state_machine import empty

EXAMPLES = int(os.environ.get("INGEST_TEST_STORE_EXAMPLES", "25"))
NODE = "n.example.com"
ONE, TWO = 1, 2  # engines


def body(number: int, certname: str = NODE) -> bytes:
    return wire_body(certname, number, [resource(f"/{number}", exported=True)], timed=False)


def title(connection: Connection) -> str:
    return str(stored(connection, NODE)["resources"][0]["title"])


def again(pipeline: Pipeline, number: int, received_at: datetime) -> Outcome:
    work = pipeline.decode(body(number), received_at=received_at, redelivered=True)
    return pipeline.settle([work], [body(number)])[0]


def test_what_another_engine_stored_since_stays(connection: Connection) -> None:
    """The first engine got the message before the second one stored what was sent later."""
    engines.tell(connection, ONE, at(1), takes_new=False)
    engines.tell(connection, TWO, at(3), takes_new=True)
    pipeline = Pipeline(connection)
    pipeline.take(body(2), received_at=at(2))
    assert again(pipeline, 1, at(4)) is Outcome.STALE
    assert title(connection) == "/2"


def test_what_was_stored_before_gives_way(connection: Connection) -> None:
    """The first engine had settled all that it got until after that."""
    engines.tell(connection, ONE, at(3), takes_new=True)
    engines.tell(connection, TWO, at(5), takes_new=True)
    pipeline = Pipeline(connection)
    pipeline.take(body(1), received_at=at(2))
    assert again(pipeline, 2, at(5)) is Outcome.STORED
    assert at(3).isoformat() < stored(connection, NODE)["producer_timestamp"] < at(4).isoformat()
    pipeline.take(body(3), received_at=at(4))
    assert title(connection) == "/3"


@pytest.mark.parametrize(
    "others", ["none", "one that had nothing new", "one that was lost long ago", "itself"]
)
def test_where_nobody_can_have_stored_newer_ones_it_counts_as_received(
    connection: Connection, others: str
) -> None:
    """A single engine, or the successors of one that was killed: not even what was stored a moment before is newer."""
    engines.tell(connection, ONE, at(1), takes_new=True)
    if others == "one that had nothing new":
        engines.leave(connection, ONE)
        engines.tell(connection, ONE, at(1), takes_new=False)
        engines.tell(connection, TWO, at(0), takes_new=False)
    elif others == "one that was lost long ago":
        engines.tell(connection, TWO, at(0), takes_new=True)
        connection.execute("UPDATE engines SET seen = %s WHERE id = %s", [at(0), TWO])
    elif others == "none":
        engines.leave(connection, ONE)
    pipeline = Pipeline(connection)
    pipeline.take(body(1), received_at=at(3) - timedelta(microseconds=1))
    assert again(pipeline, 2, at(3)) is Outcome.STORED
    assert stored(connection, NODE)["producer_timestamp"] == at(3).isoformat(timespec="milliseconds")


def of_engine(connection: Connection, engine: int, new_since: datetime | None) -> Pipeline:
    """The lane of that engine, which got its first new message then."""
    pipeline = Pipeline(connection)
    pipeline.lane = open_lane(connection, LaneSettings(1000, asking=lambda: Asking(engine, new_since)))
    return pipeline


@pytest.mark.parametrize("new_since", [None, at(4), at(5)])
def test_what_a_killed_engine_had_is_newer_than_what_it_stored(
    connection: Connection, new_since: datetime | None
) -> None:
    """Its successor gets it again before anything new: that it takes new messages too changes nothing, although the killed
    one held another node's message from long before."""
    engines.tell(connection, ONE, at(1), takes_new=True)  # the killed one
    engines.tell(connection, TWO, at(4), takes_new=True)
    successor = of_engine(connection, TWO, new_since)
    successor.take(body(1), received_at=at(2))  # the killed one stored that
    assert again(successor, 2, at(4)) is Outcome.STORED
    assert title(connection) == "/2"


def test_what_an_engine_took_before_something_came_again_stays(connection: Connection) -> None:
    """The connection of another one was lost late: this one may have stored what was sent after."""
    engines.tell(connection, ONE, at(1), takes_new=True)
    engines.tell(connection, TWO, at(4), takes_new=True)
    survivor = of_engine(connection, TWO, at(2))
    survivor.take(body(2), received_at=at(3))
    assert again(survivor, 1, at(4)) is Outcome.STALE
    assert title(connection) == "/2"


def test_an_engine_never_takes_back_what_it_told(connection: Connection) -> None:
    """A value that comes late is no newer knowledge; and one that left is gone, at the latest after a day."""
    for minute in (3, 2, 5):
        engines.tell(connection, ONE, at(minute), takes_new=True)
    row = connection.execute("SELECT id, unsettled_since, takes_new FROM engines").fetchall()
    assert row == [(ONE, at(5), True)]
    engines.tell(connection, TWO, at(5), takes_new=True)
    engines.leave(connection, TWO)
    assert forget_engines(connection) == 0
    connection.execute("UPDATE engines SET seen = now() - interval '25 hours'")
    assert forget_engines(connection) == 1


def test_a_deactivation_that_comes_again_has_its_place_too(connection: Connection) -> None:
    """Of a version without a time: it does not take out a node that was heard of since."""
    command = b'{"command": "deactivate node", "version": 2, "payload": "n.example.com"}'
    engines.tell(connection, ONE, at(1), takes_new=False)
    engines.tell(connection, TWO, at(3), takes_new=True)
    pipeline = Pipeline(connection)
    pipeline.take(body(2), received_at=at(2))
    work = pipeline.decode(command, received_at=at(4), redelivered=True)
    assert pipeline.settle([work], [command]) == [Outcome.STALE]
    engines.leave(connection, ONE)
    assert pipeline.settle([work], [command]) == [Outcome.STORED]


# Two engines on one queue

Held = tuple[int, Claim | Full | Deactivate]


class Queue:
    """A queue of one node's catalogs, and two engines that take them; one of them is killed. Each tells with every step."""

    def __init__(self, connection: Connection, pipelines: dict[int, Pipeline], messages: int) -> None:
        self.connection = connection
        self.pipelines = pipelines
        self.ready = [(number, False) for number in range(messages)]
        self.held: dict[int, list[Held]] = {engine: [] for engine in pipelines}
        self.takes_new = dict.fromkeys(pipelines, False)
        self.last_taken: dict[int, datetime] = {}
        self.steps = 0
        self.tell()

    def take(self, engine: int) -> None:
        if self.ready:
            number, redelivered = self.ready.pop(0)
            self.takes_new[engine] |= not redelivered
            work = self.pipelines[engine].decode(body(number), received_at=self.now, redelivered=redelivered)
            self.held[engine].append((number, work))
            self.last_taken[engine] = work.received_at
        self.tell()

    def settle(self, engine: int, count: int) -> None:
        batch, self.held[engine] = self.held[engine][:count], self.held[engine][count:]
        if batch:
            self.pipelines[engine].settle([work for _, work in batch], [body(number) for number, _ in batch])
        self.tell()

    def kill(self, engine: int) -> None:
        """Without a word: what it told last stays."""
        self.ready = [(number, True) for number, _ in self.held.pop(engine)] + self.ready
        del self.pipelines[engine]

    def is_open(self, engine: int) -> bool:
        """Whether it holds the last one, and another engine holds one, or has had one since this one's oldest."""
        held = self.held[engine]
        if self.ready or not held:
            return False
        others = [other for other in self.held if other != engine]
        since = held[0][1].received_at
        return any(self.held[other] or self.last_taken.get(other, since) > since for other in others)

    def tell(self) -> None:
        self.steps += 1
        for engine, held in self.held.items():
            since = held[0][1].received_at if held else self.now
            engines.tell(self.connection, engine, since, takes_new=self.takes_new[engine])

    @property
    def now(self) -> datetime:
        return at(0) + timedelta(seconds=self.steps)


@pytest.fixture
def two(database: str) -> Iterator[dict[int, Pipeline]]:
    opened = {engine: connect(database) for engine in (ONE, TWO)}
    yield {engine: Pipeline(connection) for engine, connection in opened.items()}
    for connection in opened.values():
        connection.close()


steps = st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.sampled_from([0, 1, 3])), max_size=14)


@settings(
    max_examples=EXAMPLES * 4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(messages=st.integers(1, 4), before=steps, killed=st.sampled_from([ONE, TWO]), after=steps)
def test_whoever_dies_the_one_that_was_sent_last_is_stored_if_none_came_to_the_other_meanwhile(
    connection: Connection,
    two: dict[int, Pipeline],
    messages: int,
    before: list[tuple[int, int]],
    killed: int,
    after: list[tuple[int, int]],
) -> None:
    """Two engines take a node's catalogs in turn and settle them when they will; one is killed with what it holds; the other
    gets that again, between what else it holds and what is new. Not promised (docs/decisions/0008-order.md): the last one in
    the hands of the one that dies, and another one of the node at the other, not settled or received since."""
    empty(connection)
    connection.execute("DELETE FROM engines")
    queue = Queue(connection, dict(two), messages)
    for pipeline in two.values():
        pipeline.known.clear()
    for engine, count in before:
        queue.settle(engine, count) if count else queue.take(engine)
    assume(not queue.is_open(killed))
    queue.kill(killed)
    (survivor,) = queue.pipelines
    for _, count in after:
        queue.settle(survivor, count) if count else queue.take(survivor)
    while queue.ready:
        queue.take(survivor)
    queue.settle(survivor, 100)
    assert title(connection) == f"/{messages - 1}"
