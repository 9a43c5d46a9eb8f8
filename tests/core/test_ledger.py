"""The receiver's book against a plain one: every delivery is in one place, and none is forgotten."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ingest.core.delivery.importance import CATALOG, FACTS, REPORT
from ingest.core.delivery.ledger import Delivery, Ledger
from ingest.core.delivery.work import Outcome, Settled

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEATHS_MAX = 2
ALONE_AFTER_S = 5
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
        self.ledger = Ledger(DEATHS_MAX, ALONE_AFTER_S)
        self.next_id = 1
        self.places: dict[int, str | None] = {}
        self.line: list[int] = []
        self.lengths: dict[int, int] = {}
        self.deaths: dict[int, int] = {}
        self.verdicts: dict[int, tuple[str, str] | None] = {}
        self.suspects: list[int] = []  # those that wait aside
        self.alone_at: dict[int, int] = {}
        self.bare: dict[int, int] = {}  # deaths since the verdict
        self.now = 0
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
        self.ledger.forwarded(self.attempt(id_), writer)
        if id_ in self.places:
            self.moves(id_, writer)

    @rule(id_=ids, outcome=st.sampled_from(SETTLING))
    def is_settled(self, id_: int, outcome: Outcome) -> None:
        """Once; whoever says it again is told that it is out of the book."""
        attempt = self.attempt(id_)
        found = self.ledger.settle(settled(attempt, outcome))
        assert (found.id if found else None) == (id_ if id_ in self.places else None)
        if found is not None:
            assert found.holder is None
            self.forget(id_)
        assert self.ledger.settle(settled(attempt, outcome)) is None

    @rule(id_=ids, verdict=st.sampled_from([None, VERDICT]))
    def is_to_be_redone(self, id_: int, verdict: tuple[str, str] | None) -> None:
        assert self.ledger.settle(Settled(self.attempt(id_), Outcome.REDO, verdict)) is None
        if id_ in self.places:
            self.moves(id_, None)
            self.complete.add(id_)
            self.verdicts[id_] = verdict or self.verdicts[id_]

    @rule(place=st.sampled_from(DECODERS + WRITERS), held=st.none() | ids)
    def process_dies(self, place: str, held: int | None) -> None:
        lost = sorted(id_ for id_, at in self.places.items() if at == place)
        found = self.ledger.reassign(place, held, self.now)
        assert (found and found.id) == (held if held in lost else None)
        if held in lost:
            self.deaths[held] += 1
            if self.verdicts[held] is not None:
                self.bare[held] = self.bare.get(held, 0) + 1
                if self.bare[held] >= DEATHS_MAX:
                    self.verdicts[held] = ("killed_its_process", "")
            elif held in self.alone_at:
                self.verdicts[held] = ("killed_its_process", "")
            elif self.deaths[held] >= DEATHS_MAX:
                self.alone_at[held] = self.now + ALONE_AFTER_S
            assert self.objects[held].is_bare is (self.bare.get(held, 0) >= DEATHS_MAX)
        # Suspects wait in the order in which they came back, the others in front of the line.
        for id_ in [
            *filter(self.is_suspect, lost),
            *filter(lambda id_: not self.is_suspect(id_), reversed(lost)),
        ]:
            self.moves(id_, None)

    @rule(seconds=st.integers(1, 6))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(place=st.sampled_from(DECODERS))
    def a_suspect_is_tried(self, place: str) -> None:
        """The first that is due, not before its time."""
        due = [id_ for id_ in self.suspects if self.alone_at[id_] <= self.now]
        found = self.ledger.next_suspect(self.now)
        assert (found.id if found else None) == (due[0] if due else None)
        if found is not None:
            self.ledger.assign(found, place)
            self.moves(found.id, place)
            assert self.ledger.has_suspect(place)

    @invariant()
    def the_books_agree(self) -> None:
        assert self.ledger.messages == len(self.places)
        undecoded = [id_ for id_, place in self.places.items() if place not in WRITERS]
        assert self.ledger.undecoded_bytes == sum(self.lengths[id_] for id_ in undecoded)
        assert self.ledger.waiting == len(self.line) + len(self.suspects)
        for place in DECODERS + WRITERS:
            assert self.ledger.count_at(place) == list(self.places.values()).count(place)
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
        """Everything that still waits comes out in the order of the line, each once; then the suspects."""
        came = []
        while (found := self.ledger.next()) is not None:
            self.ledger.assign(found, DECODERS[0])
            came.append(found.id)
        assert came == self.line
        while (found := self.ledger.next_suspect(math.inf)) is not None:
            self.ledger.assign(found, DECODERS[0])
            came.append(found.id)
        assert came == self.line + self.suspects

    @rule(id_=ids, outcome=st.sampled_from(SETTLING))
    def an_older_copy_is_settled(self, id_: int, outcome: Outcome) -> None:
        """Its report counts for nothing: the body must stay where it lies until the newest attempt's report."""
        if id_ in self.objects and self.objects[id_].given_again:
            assert self.ledger.settle(settled(id_, outcome)) is None
            self.ledger.forwarded(id_, WRITERS[0])

    def is_suspect(self, id_: int) -> bool:
        return id_ in self.alone_at and self.verdicts[id_] is None

    def attempt(self, id_: int) -> int:
        """The number of the attempt that counts."""
        return self.objects[id_].attempt if id_ in self.objects else id_

    def moves(self, id_: int, place: str | None) -> None:
        """Back in the line means at its head: it waited before."""
        for waiting in (self.line, self.suspects):
            if id_ in waiting:
                waiting.remove(id_)
        self.places[id_] = place
        if place is None and self.is_suspect(id_):
            self.suspects.append(id_)
        elif place is None:
            self.line.insert(0, id_)

    def forget(self, id_: int) -> None:
        del self.places[id_]
        for waiting in (self.line, self.suspects):
            if id_ in waiting:
                waiting.remove(id_)


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
    ledger.reassign("decoder-0", None)
    came = []
    while (found := ledger.next()) is not None:
        ledger.assign(found, "decoder-1")
        came.append(found.id)
    assert came == [1, 2, 3, 4, 5]


def give_all(ledger: Ledger, place: str) -> list[int]:
    given = []
    while (found := ledger.next()) is not None:
        ledger.assign(found, place)
        given.append(found.id)
    return given


def test_what_an_earlier_connection_brought_is_not_its_oldest() -> None:
    """It went back to the broker with that connection, and is only worked on to its end."""
    ledger = Ledger(2)
    for id_, epoch in ((1, 1), (2, 1), (3, 2), (4, 2)):
        one = delivery(id_)
        one.epoch = epoch
        ledger.add(one)
    found = ledger.oldest_of(2)
    assert found is not None
    assert found.id == 3
    assert ledger.oldest_of(3) is None


def test_a_message_that_kills_is_condemned_alone() -> None:
    """After deaths_max processes it waits aside, and when it kills by itself too it is condemned; what was with it in
    those processes is innocent."""
    ledger = Ledger(3, ALONE_AFTER_S)
    ledger.add(delivery(1))
    ledger.add(delivery(2))
    for now_s in range(3):
        assert give_all(ledger, "decoder-0") == [1, 2]
        held = ledger.reassign("decoder-0", 2, now_s)
        assert held is not None
        assert held.verdict is None
    assert give_all(ledger, "decoder-0") == [1]
    assert ledger.next_suspect(2 + ALONE_AFTER_S - 0.1) is None
    suspect = ledger.next_suspect(2 + ALONE_AFTER_S)
    assert suspect is not None
    ledger.assign(suspect, "decoder-1")
    held = ledger.reassign("decoder-1", 2, 10)
    assert held is not None
    assert held.verdict is not None
    assert (held.id, held.verdict[0]) == (2, "killed_its_process")
    assert give_all(ledger, "decoder-1") == [2]  # to be quarantined, with the others
    assert ledger.next_suspect(math.inf) is None


def test_an_innocent_one_is_settled() -> None:
    """Two processes were killed by chance; alone it goes through, also when it must be decoded once more."""
    ledger = Ledger(2, ALONE_AFTER_S)
    ledger.add(delivery(1))
    for _ in range(2):
        give_all(ledger, "decoder-0")
        ledger.reassign("decoder-0", 1, 0)
    for _ in range(2):
        suspect = ledger.next_suspect(10)
        assert suspect is not None
        ledger.assign(suspect, "decoder-0")
        ledger.forwarded(suspect.attempt, "writer-0")
        assert ledger.settle(Settled(suspect.attempt, Outcome.REDO)) is None
        assert ledger.next() is None
    assert ledger.next_suspect(10) is suspect
    ledger.assign(suspect, "decoder-0")
    assert ledger.settle(settled(suspect.attempt)) is suspect


CHANCES = [
    [(1, "decoder-0"), (1, "decoder-0")],
    [(1, "decoder-0"), (1, "writer-0")],
    [(1, "writer-0"), (1, "decoder-1")],
    [(1, "writer-0"), (1, "writer-1")],
    [(1, "decoder-0"), (2, "decoder-0"), (1, "decoder-1"), (2, "decoder-1")],
    [(1, "writer-0"), (2, "decoder-0"), (2, "writer-0"), (1, "writer-0")],
    [(2, "decoder-0"), (None, "decoder-0"), (None, "writer-0"), (9, "decoder-0"), (2, "writer-1")],
    [
        (1, "decoder-0"),
        (1, "decoder-1"),
        (2, "decoder-0"),
        (2, "decoder-1"),
        (3, "writer-0"),
        (3, "writer-0"),
    ],
]


@pytest.mark.parametrize("outcome", SETTLING)
@pytest.mark.parametrize("kills", CHANCES, ids=str)
def test_whoever_was_there_by_chance_is_tried_alone(
    kills: list[tuple[int | None, str]], outcome: Outcome
) -> None:
    """Decoders and writers, in any order, of one message or of several at once: nobody is condemned, each suspect is tried
    with nothing else, the rest never waits for it, and it may turn out to be an old catalog by then."""
    ledger = Ledger(DEATHS_MAX, ALONE_AFTER_S)
    for id_ in (1, 2, 3, 4):
        ledger.add(delivery(id_))
    for held, process in kills:
        given = give_all(ledger, "decoder-0" if process.startswith("writer") else process)
        if process.startswith("writer"):
            for id_ in given:
                ledger.forwarded(ledger._deliveries[id_].attempt, process)
        suspect = ledger.reassign(process, held, 0)
        assert suspect is None or suspect.verdict is None
    for id_ in give_all(ledger, "decoder-1"):
        assert ledger.settle(settled(ledger._deliveries[id_].attempt)) is not None
    blamed = [held for held, _ in kills if held in (1, 2, 3, 4)]
    assert ledger.messages == len({held for held in blamed if blamed.count(held) >= DEATHS_MAX})
    while (found := ledger.next_suspect(ALONE_AFTER_S)) is not None:
        ledger.assign(found, "decoder-0")
        assert ledger.count_at("decoder-0") == 1
        assert ledger.has_suspect("decoder-0")
        ledger.forwarded(found.attempt, "writer-0")
        assert ledger.settle(settled(found.attempt, outcome)) is found
        assert found.verdict is None
    assert ledger.messages == 0


def test_a_process_that_dies_with_empty_hands_blames_nobody() -> None:
    """Nor does one that had something else."""
    ledger = Ledger(1, ALONE_AFTER_S)
    ledger.add(delivery(1))
    for held in (None, 7):
        give_all(ledger, "decoder-0")
        assert ledger.reassign("decoder-0", held, 0) is None
    assert give_all(ledger, "decoder-0") == [1]


def test_what_kills_on_its_way_to_quarantine_goes_there_without_its_body() -> None:
    """So that it cannot go on for ever."""
    ledger = Ledger(2)
    one = delivery(1)
    one.verdict = VERDICT
    ledger.add(one)
    for _ in range(2):
        assert not one.is_bare
        give_all(ledger, "writer-0")
        ledger.reassign("writer-0", 1, 0)
    assert one.is_bare
    assert one.verdict[0] == "killed_its_process"
    assert VERDICT[0] in one.verdict[1]


def test_no_two_attempts_at_a_message_are_the_same() -> None:
    """However often it was given again: what an earlier one's process says late counts for nothing."""
    ledger, one = Ledger(10), delivery(1)
    ledger.add(one)
    attempts = []
    for _ in range(5):
        ledger.assign(one, "decoder-0")
        attempts.append(one.attempt)
        ledger.reassign("decoder-0", None)
    ledger.assign(one, "decoder-1")
    assert len({*attempts, one.attempt}) == 6
    for attempt in attempts:
        ledger.forwarded(attempt, "writer-0")
        assert ledger.settle(settled(attempt)) is None
        assert one.holder == "decoder-1"
    assert ledger.settle(settled(one.attempt)) is one


def test_each_rank_has_its_own_oldest() -> None:
    """In the order of arrival, whoever has it; settled, the next one is."""
    ledger = Ledger(DEATHS_MAX, ALONE_AFTER_S)
    for id_, rank in enumerate((REPORT, CATALOG, REPORT, CATALOG, REPORT), start=1):
        each = delivery(id_)
        each.rank = rank
        ledger.add(each)
        ledger.assign(each, "decoder-0")

    def told() -> list[tuple[int, int]]:
        found = [ledger.unsettled(rank) for rank in (CATALOG, FACTS, REPORT)]
        return [(count, oldest.id if oldest else 0) for count, oldest in found]

    assert told() == [(2, 2), (0, 0), (3, 1)]
    ledger.settle(settled(1))
    ledger.settle(settled(4))
    ledger.settle(settled(3, Outcome.REDO))
    assert told() == [(1, 2), (0, 0), (2, 3)]
