"""Which decoder gets what: by the book, the cores and the time."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from ingest.core.delivery.dispatching import (
    CATALOGS_COME_S,
    DECODER_DEPTH,
    LESSER_DEPTH,
    LESSER_GIVEN_MAX,
    READ_AHEAD_BYTES,
    STUCK_S,
    Dispatcher,
)
from ingest.core.delivery.importance import CATALOG, FACTS, PASSED_MAX, REPORT
from ingest.core.delivery.ledger import Delivery, Ledger
from ingest.core.delivery.work import Outcome, Settled

AT = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["decoder-0", "decoder-1", "decoder-2"]


class Book:
    """A ledger with its dispatcher, and messages one after the other."""

    def __init__(
        self, cores: int, decoders: int = 3, *, deaths_max: int = 2, alone_after_s: float = 60
    ) -> None:
        self.ledger = Ledger(deaths_max, alone_after_s)
        self.dispatcher = Dispatcher(self.ledger, NAMES[:decoders], cores)
        self._last = 0

    def arrive(self, count: int = 1, *, length: int = 1000, key: int = 0) -> None:
        for _ in range(count):
            self._last += 1
            self.ledger.add(Delivery(self._last, 1, "", "", 0, length, length, AT, 0.0, {}, routing_key=key))

    def due(self, now_s: float, **how: bool) -> dict[str, list[int]]:
        return {name: [one.id for one in found] for name, found in self.dispatcher.due(now_s, **how).items()}


def test_a_node_comes_back_to_its_decoder() -> None:
    """By the routing key, as long as that one has not too much to do."""
    book = Book(cores=4)
    book.arrive(3, key=1)
    book.arrive(1, key=2)
    assert book.due(0) == {"decoder-1": [1, 2, 3], "decoder-2": [4]}


def test_one_core_is_left_for_the_rest_of_the_engine() -> None:
    """More decoders than cores for them would only share what they know."""
    book = Book(cores=2)
    for key in range(3):
        book.arrive(key=key)
    assert book.due(0) == {"decoder-0": [1, 2, 3]}


def test_a_full_decoder_ends_the_round() -> None:
    """What is left waits, in its order."""
    book = Book(cores=2)
    book.arrive(DECODER_DEPTH + 5)
    assert len(book.due(0)["decoder-0"]) == DECODER_DEPTH
    assert book.due(0) == {}
    assert book.ledger.waiting == 5


def test_another_decoder_takes_over_from_one_that_does_not_get_on() -> None:
    """A hard message, or a writer that is blocked; when it moves again it counts again."""
    book = Book(cores=2)
    book.arrive()
    assert book.due(0) == {"decoder-0": [1]}
    book.arrive(DECODER_DEPTH)
    assert "decoder-1" not in book.due(STUCK_S)
    assert "decoder-1" in book.due(STUCK_S + 0.01) or book.ledger.count_at("decoder-0") == DECODER_DEPTH
    book.arrive(2)
    assert set(book.due(STUCK_S + 0.02)) == {"decoder-1"}
    book.dispatcher.moved("decoder-0", STUCK_S + 0.03)
    for attempt in range(1, 20):
        book.ledger.forwarded(attempt, "writer-0")
    book.arrive()
    assert set(book.due(STUCK_S + 0.04)) == {"decoder-0"}


def test_a_stuck_decoder_does_not_stop_the_reading() -> None:
    """What it has is no longer read ahead for anybody: with a hard message in one decoder the others go on."""
    book = Book(cores=2, decoders=2)
    book.arrive(length=READ_AHEAD_BYTES)
    book.due(0)
    assert book.dispatcher.is_ahead(0)
    assert not book.dispatcher.is_ahead(STUCK_S + 1)
    book.arrive(DECODER_DEPTH, length=READ_AHEAD_BYTES // DECODER_DEPTH)
    assert "decoder-1" in book.due(STUCK_S + 1)
    book.arrive(DECODER_DEPTH, length=READ_AHEAD_BYTES // DECODER_DEPTH)
    assert book.dispatcher.is_ahead(STUCK_S + 1)


def test_a_suspect_is_tried_alone_when_its_time_has_come() -> None:
    """In a decoder that has nothing else, and gets nothing else; the others go on meanwhile."""
    book = Book(cores=4, deaths_max=1, alone_after_s=60)
    book.arrive(key=0)
    book.due(0)
    book.ledger.reassign("decoder-0", 1, 0)
    assert book.due(59) == {}
    for key in range(3):
        book.arrive(key=key)
    assert book.due(60)["decoder-0"] == [1]
    book.arrive(6, key=0)
    assert "decoder-0" not in book.due(61)
    attempt = book.ledger._deliveries[1].attempt
    book.ledger.forwarded(attempt, "writer-0")
    book.arrive(key=0)
    assert "decoder-0" in book.due(62)


def test_a_suspect_waits_for_a_decoder_that_is_empty() -> None:
    """The one that has least is kept free of new work until it is."""
    book = Book(cores=4, decoders=1, deaths_max=1, alone_after_s=0)
    book.arrive()
    book.due(0)
    book.ledger.reassign("decoder-0", 1, 0)
    book.arrive()
    book.ledger.assign(book.ledger.next(), "decoder-0")  # type: ignore[arg-type]
    assert book.due(0) == {}
    book.ledger.forwarded(2, "writer-0")
    assert book.due(0) == {"decoder-0": [1]}


def test_at_the_end_no_suspect_waits() -> None:
    """A drain shall not take as long as a suspect would have had to wait."""
    book = Book(cores=4, deaths_max=1, alone_after_s=1e9)
    book.arrive()
    book.due(0)
    book.ledger.reassign("decoder-0", 1, 0)
    assert book.due(1) == {}
    assert book.due(1, is_last_chance=True) == {"decoder-0": [1]}


class Kinds(Book):
    """Messages by their rank."""

    def come(self, rank: int, count: int = 1) -> None:
        for _ in range(count):
            self._last += 1
            delivery = Delivery(self._last, 1, "", "", 0, 1000, 1000, AT, 0.0, {}, rank=rank)
            self.ledger.add(delivery)

    def settle(self, ids: list[int]) -> None:
        for id_ in ids:
            self.ledger.settle(Settled(id_, Outcome.STORED))


def test_a_catalog_does_not_wait_behind_reports() -> None:
    """However many wait, it is given out before them all, and finds no more at its decoder than may lie there."""
    book = Kinds(cores=2)
    book.come(CATALOG)
    book.settle(book.due(0)["decoder-0"])
    book.come(REPORT, 140)
    book.come(FACTS, 140)
    assert book.due(1) == {"decoder-0": list(range(142, 142 + LESSER_DEPTH))}  # facts before reports
    book.come(CATALOG)
    assert book.due(1) == {"decoder-0": [282]}


def test_with_catalogs_about_only_so_many_others_are_worked_on() -> None:
    """In decoders and writers together: that is what the next catalog may find before it."""
    book = Kinds(cores=2)
    book.come(CATALOG)
    book.settle(book.due(0)["decoder-0"])
    book.come(REPORT, 140)
    given: list[int] = []
    while due := book.due(1):
        given += due["decoder-0"]
        for id_ in due["decoder-0"]:
            book.ledger.forwarded(id_, "writer-0")
    assert len(given) == book.ledger.lesser_given == LESSER_GIVEN_MAX
    book.settle(given[:3])
    assert sum(map(len, book.due(1).values())) == min(3, LESSER_DEPTH)
    assert book.due(1 + CATALOGS_COME_S) != {}  # none came for a while: nobody is kept waiting


def test_without_catalogs_reports_have_all_the_room() -> None:
    """As much as catalogs would have."""
    book = Kinds(cores=2)
    book.come(REPORT, 140)
    assert len(book.due(0)["decoder-0"]) == DECODER_DEPTH


def test_a_flood_of_catalogs_leaves_reports_their_turns() -> None:
    """Every seventeenth that a decoder gets, although catalogs wait all the time."""
    book = Kinds(cores=2)
    book.come(REPORT, 10)
    book.come(CATALOG, 400)
    given: list[int] = []
    while sum(one > 10 for one in given) < 340:
        now = [id_ for ids in book.due(1).values() for id_ in ids]
        given += now
        book.settle(now)
    reports = [place for place, id_ in enumerate(given) if id_ <= 10]
    assert [given[place] for place in reports] == list(range(1, 11))
    assert max(later - earlier for earlier, later in pairwise(reports)) <= PASSED_MAX + 1


def test_what_is_less_important_is_read_past() -> None:
    """Bytes of reports that wait for a decoder do not stop the reading: a catalog may stand behind them."""
    book = Kinds(cores=2)
    for _ in range(3):
        book._last += 1
        book.ledger.add(
            Delivery(book._last, 1, "", "", 0, READ_AHEAD_BYTES, READ_AHEAD_BYTES, AT, 0.0, {}, rank=REPORT)
        )
    assert not book.dispatcher.is_ahead(0)
    book.arrive(length=READ_AHEAD_BYTES)
    assert book.dispatcher.is_ahead(0)


def test_what_a_dead_process_had_is_again_where_its_kind_waits() -> None:
    """Reports that a decoder had behind catalogs that came since."""
    book = Kinds(cores=2)
    book.come(REPORT, LESSER_DEPTH)
    book.due(0)
    book.ledger.reassign("decoder-0", None)
    assert book.ledger.lesser_given == 0
    book.come(CATALOG)
    assert book.ledger.waits() == [True, False, True]
    assert book.due(0) == {"decoder-0": [LESSER_DEPTH + 1, *range(1, LESSER_DEPTH)]}
    assert book.ledger.waits() == [False, False, True]
