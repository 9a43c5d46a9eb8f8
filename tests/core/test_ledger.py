"""The receiver's book against a plain one: every delivery is in one place, and none is forgotten."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ingest.core.delivery.ledger import Delivery, Ledger
from ingest.core.delivery.work import Outcome, Settled

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEATHS_MAX = 2
DECODERS, WRITERS = ("decoder-0", "decoder-1"), ("writer-0", "writer-1")
SETTLING = [outcome for outcome in Outcome if outcome is not Outcome.REDO]
VERDICT = ("refused_by_postgresql", "no")
# Any delivery: some are in the book, some were, some never come.
ids = st.integers(1, 12)


def delivery(id_: int, length: int = 10) -> Delivery:
    return Delivery(
        id=id_, epoch=1, ack=str(id_), message_id=str(id_), offset=0, length=length, body_bytes=length,
        received_at=NOW, received_s=0.0, headers={},
    )  # fmt: skip


def settled(id_: int, outcome: Outcome = Outcome.STORED) -> Settled:
    return Settled(id_, outcome)


class Book(RuleBasedStateMachine):
    """The model: where each delivery is by id (None: waiting), and the waiting ones in order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(DEATHS_MAX)
        self.next_id = 1
        self.places: dict[int, str | None] = {}
        self.line: list[int] = []
        self.lengths: dict[int, int] = {}
        self.deaths: dict[int, int] = {}
        self.verdicts: dict[int, tuple[str, str] | None] = {}
        self.complete: set[int] = set()
        self.objects: dict[int, Delivery] = {}

    @rule(length=st.integers(0, 1000))
    def arrives(self, length: int) -> None:
        self.objects[self.next_id] = delivery(self.next_id, length)
        self.ledger.add(self.objects[self.next_id])
        self.places[self.next_id] = None
        self.line.append(self.next_id)
        self.lengths[self.next_id], self.deaths[self.next_id] = length, 0
        self.verdicts[self.next_id] = None
        self.next_id += 1

    @rule(place=st.sampled_from(DECODERS))
    def next_is_assigned(self, place: str) -> None:
        found = self.ledger.next()
        assert (found.id if found else None) == (self.line[0] if self.line else None)
        if found is not None:
            self.ledger.assign(found, place)
            self.moves(found.id, place)

    @rule(id_=ids, writer=st.sampled_from((None, *WRITERS)))
    def passed_on(self, id_: int, writer: str | None) -> None:
        self.ledger.passed(self.copy(id_), writer)
        if id_ in self.places:
            self.moves(id_, writer)

    @rule(id_=ids, outcome=st.sampled_from(SETTLING))
    def is_settled(self, id_: int, outcome: Outcome) -> None:
        """Once; whoever says it again is told that it is out of the book."""
        copy = self.copy(id_)
        found = self.ledger.settle(settled(copy, outcome))
        assert (found.id if found else None) == (id_ if id_ in self.places else None)
        if found is not None:
            assert found.place is None
            self.forget(id_)
        assert self.ledger.settle(settled(copy, outcome)) is None

    @rule(id_=ids, verdict=st.sampled_from([None, VERDICT]))
    def is_to_be_redone(self, id_: int, verdict: tuple[str, str] | None) -> None:
        assert self.ledger.settle(Settled(self.copy(id_), Outcome.REDO, verdict)) is None
        if id_ in self.places:
            self.moves(id_, None)
            self.complete.add(id_)
            self.verdicts[id_] = verdict or self.verdicts[id_]

    @rule(place=st.sampled_from(DECODERS + WRITERS), held=st.none() | ids)
    def process_dies(self, place: str, held: int | None) -> None:
        lost = sorted(id_ for id_, at in self.places.items() if at == place)
        condemned = [one.id for one in self.ledger.lost(place, held)]
        expected = []
        if held in lost:
            self.deaths[held] += 1
            if self.deaths[held] >= DEATHS_MAX and self.verdicts[held] is None:
                expected = [held]
                self.verdicts[held] = ("killed_its_process", "")
        assert condemned == expected
        for id_ in reversed(lost):
            self.moves(id_, None)

    @rule(sure=st.integers(0, 9))
    def let_go(self, sure: int) -> None:
        if sure:
            return  # seldom: it ends everything that was going on
        assert {one.id for one in self.ledger.clear()} == set(self.places)
        for id_ in list(self.places):
            self.forget(id_)

    @invariant()
    def the_books_agree(self) -> None:
        assert self.ledger.messages == len(self.places)
        undecoded = [id_ for id_, place in self.places.items() if place not in WRITERS]
        assert self.ledger.undecoded_bytes == sum(self.lengths[id_] for id_ in undecoded)
        assert self.ledger.waiting == len(self.line)
        for place in DECODERS + WRITERS:
            assert self.ledger.at(place) == list(self.places.values()).count(place)
        oldest = self.ledger.oldest()
        assert (oldest.id if oldest else None) == min(self.places, default=None)

    @invariant()
    def the_next_one_carries_what_is_known_of_it(self) -> None:
        found = self.ledger.next()
        assert (found.id if found else None) == (self.line[0] if self.line else None)
        if found is not None:
            assert found.deaths == self.deaths[found.id]
            assert (found.verdict or ("",))[0] == (self.verdicts[found.id] or ("",))[0]
            assert found.complete is (found.id in self.complete)

    def teardown(self) -> None:
        """Everything that still waits comes out in the order of the line, each once."""
        came = []
        while (found := self.ledger.next()) is not None:
            self.ledger.assign(found, DECODERS[0])
            came.append(found.id)
        assert came == self.line

    @rule(id_=ids, outcome=st.sampled_from(SETTLING))
    def an_older_copy_is_settled(self, id_: int, outcome: Outcome) -> None:
        """Its report counts for nothing: the body must stay where it lies until the newest copy's report."""
        if id_ in self.objects and self.objects[id_].given_again:
            assert self.ledger.settle(settled(id_, outcome)) is None
            self.ledger.passed(id_, WRITERS[0])

    def copy(self, id_: int) -> int:
        """The number of the copy that counts."""
        return self.objects[id_].copy if id_ in self.objects else id_

    def moves(self, id_: int, place: str | None) -> None:
        """Back in the line means at its head: it waited before."""
        if id_ in self.line:
            self.line.remove(id_)
        self.places[id_] = place
        if place is None:
            self.line.insert(0, id_)

    def forget(self, id_: int) -> None:
        del self.places[id_]
        if id_ in self.line:
            self.line.remove(id_)


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_what_a_dead_process_had_comes_again_in_its_old_order() -> None:
    """And before what came later."""
    ledger = Ledger(DEATHS_MAX)
    for id_ in range(1, 6):
        ledger.add(delivery(id_))
    for _ in range(3):
        found = ledger.next()
        assert found is not None
        ledger.assign(found, "decoder-0")
    ledger.lost("decoder-0", None)
    came = []
    while (found := ledger.next()) is not None:
        ledger.assign(found, "decoder-1")
        came.append(found.id)
    assert came == [1, 2, 3, 4, 5]


def test_a_message_that_kills_is_condemned_alone() -> None:
    """After deaths_max processes, not before; what was with it in those processes is innocent."""
    ledger = Ledger(3)
    ledger.add(delivery(1))
    ledger.add(delivery(2))
    condemned = []
    for _ in range(4):
        while (found := ledger.next()) is not None:
            ledger.assign(found, "decoder-0")
        condemned.append([one.id for one in ledger.lost("decoder-0", 2)])
    assert condemned == [[], [], [2], []]
    verdicts = {}
    while (found := ledger.next()) is not None:
        ledger.assign(found, "decoder-0")
        verdicts[found.id] = found.verdict and found.verdict[0]
    assert verdicts == {1: None, 2: "killed_its_process"}
