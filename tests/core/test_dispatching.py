"""Which decoder gets what: by the book, the cores and the time."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from ingest.core.delivery.bursts import (
    BURST,
    BURST_BYTES,
    DECODER_DEPTH,
    LESSER_GIVEN_MAX,
    MANY_CATALOGS,
    OFTEN_S,
)
from ingest.core.delivery.dispatching import READ_AHEAD_BYTES, STUCK_S, Dispatcher
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

    def come(self, rank: int, count: int = 1, *, length: int = 1000) -> None:
        for _ in range(count):
            self._last += 1
            delivery = Delivery(self._last, 1, "", "", 0, length, length, AT, 0.0, {}, rank=rank)
            self.ledger.add(delivery)

    def one_catalog(self, now_s: float = 0) -> None:
        """It comes and is settled."""
        self.come(CATALOG)
        for ids in self.due(now_s).values():
            self.settle(ids)

    def all_due(self, now_s: float) -> list[int]:
        """What decoders get until there is no more, each passing on at once what it got."""
        given: list[int] = []
        while due := self.due(now_s):
            for ids in due.values():
                given += ids
                for id_ in ids:
                    self.ledger.forwarded(id_, "writer-0")
        return given

    def settle(self, ids: list[int]) -> None:
        for id_ in ids:
            self.ledger.settle(Settled(id_, Outcome.STORED))


def test_a_catalog_does_not_wait_behind_reports() -> None:
    """However many wait, it is given out before them all, to a decoder that has none of them."""
    book = Kinds(cores=2)
    book.one_catalog()
    book.come(REPORT, 140)
    book.come(FACTS, 140)
    assert book.due(1) == {"decoder-2": list(range(142, 142 + BURST))}  # facts before reports
    book.come(CATALOG)
    assert book.due(1) == {"decoder-0": [282]}


def test_who_has_one_decoder_gives_it_few_reports_at_a_time() -> None:
    """The next catalog finds no more than those before it."""
    book = Kinds(cores=2, decoders=1)
    book.one_catalog()
    book.come(REPORT, 140)
    assert book.due(1) == {"decoder-0": list(range(2, 2 + BURST))}
    book.come(CATALOG)
    assert book.due(1) == {"decoder-0": [142]}


@pytest.mark.parametrize(
    ("cores", "together"), [(1, BURST), (2, BURST), (3, 2 * BURST), (64, LESSER_GIVEN_MAX)]
)
def test_with_a_catalog_to_come_others_are_worked_on_in_bursts(cores: int, together: int) -> None:
    """So many together in decoders and writers, and the next ones when all of those are settled."""
    book = Kinds(cores)
    book.one_catalog()
    book.come(REPORT, 140)
    given = book.all_due(1)
    assert len(given) == book.ledger.lesser_given == together
    book.settle(given[1:])
    assert book.all_due(1) == []
    book.settle(given[:1])
    assert len(book.all_due(1)) == together


def test_a_burst_is_of_one_writer() -> None:
    """The first one's; those of another are the next burst, and none is left out."""
    ledger = Ledger(2, 60)
    dispatcher = Dispatcher(ledger, NAMES[:2], 2, lanes=2)
    ledger.add(Delivery(1, 1, "", "", 0, 1000, 1000, AT, 0.0, {}))
    for delivery in dispatcher.due(0)["decoder-0"]:
        ledger.settle(Settled(delivery.id, Outcome.STORED))
    for id_ in range(2, 26):
        ledger.add(Delivery(id_, 1, "", "", 0, 1000, 1000, AT, 0.0, {}, routing_key=id_ // 3, rank=REPORT))
    found: list[int] = []
    while due := dispatcher.due(1):
        (burst,) = due.values()
        assert len({one.routing_key % 2 for one in burst}) == 1
        assert len(burst) <= BURST
        for delivery in burst:
            found.append(delivery.id)
            ledger.settle(Settled(delivery.id, Outcome.STORED))
    assert sorted(found) == list(range(2, 26))
    assert found[0] == 2


def test_a_large_report_is_a_burst_of_its_own() -> None:
    """It is given out whatever its size, and nothing with it: what a writer does at once is bounded in bytes, too."""
    book = Kinds(cores=2)
    book.one_catalog()
    book.come(REPORT, 2)
    book.come(REPORT, length=2 * BURST_BYTES)
    book.come(REPORT)
    for expected in ([2, 3], [4], [5]):
        assert book.all_due(1) == expected
        book.settle(expected)


def test_a_report_that_takes_long_stops_no_others() -> None:
    """What a stuck decoder has is not waited for."""
    book = Kinds(cores=2)
    book.one_catalog()
    book.come(REPORT, 10 + LESSER_GIVEN_MAX)
    assert sum(map(len, book.due(0.1).values())) == BURST
    assert book.due(0.1) == {}
    assert book.due(0.2 + STUCK_S) != {}


def test_catalogs_that_wait_for_each_other_leave_more_room_to_the_rest() -> None:
    """One more does not get on faster, whatever is done of other kinds, and runs come as a whole."""
    book = Kinds(cores=2)
    book.come(CATALOG, MANY_CATALOGS)
    book.come(REPORT, 140)
    given = book.all_due(0)
    assert len(given) == MANY_CATALOGS + LESSER_GIVEN_MAX
    assert book.ledger.lesser_given == LESSER_GIVEN_MAX


def test_when_no_catalog_is_to_be_expected_nobody_waits() -> None:
    """That depends on how far apart the last ones came."""
    book = Kinds(cores=2)
    for place in range(100):
        book.one_catalog(place / 10)
    book.come(REPORT, 140)
    assert len(book.all_due(10.5)) == BURST
    assert len(book.all_due(11.5)) == 140 - BURST


def test_catalogs_that_come_all_the_time_leave_more_room_to_the_rest() -> None:
    """As many facts and reports come as catalogs do."""
    book = Kinds(cores=2)
    for place in range(100):
        book.one_catalog(place * OFTEN_S / 2)
    book.come(REPORT, 140)
    assert len(book.all_due(50 * OFTEN_S)) == LESSER_GIVEN_MAX


def test_without_catalogs_reports_have_all_the_room() -> None:
    """As much as catalogs would have."""
    book = Kinds(cores=2)
    book.come(REPORT, 140)
    assert len(book.due(0)["decoder-0"]) == DECODER_DEPTH


def test_a_full_decoder_is_told_of_many_at_once() -> None:
    """When half of what it had is done, and not as each one ends; what it has not read yet keeps it busy meanwhile."""
    book = Kinds(cores=2)
    book.come(REPORT, 140)
    has = book.due(0)["decoder-0"]
    half = DECODER_DEPTH // 2
    for id_ in has[: half - 1]:
        book.ledger.forwarded(id_, "writer-0")
        assert book.due(0) == {}
    book.ledger.forwarded(has[half - 1], "writer-0")
    assert len(book.due(0)["decoder-0"]) == half


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
    book = Kinds(cores=2, decoders=1)
    book.come(REPORT, BURST + 1)
    book.due(0)
    book.ledger.reassign("decoder-0", None)
    assert book.ledger.lesser_given == 0
    book.come(CATALOG)
    assert book.ledger.waits() == [True, False, True]
    assert book.due(0) == {"decoder-0": [BURST + 2, *range(1, BURST + 1)]}
    assert book.ledger.waits() == [False, False, True]
