"""When messages may be taken: the rules, without a broker or a database."""

from __future__ import annotations

import pytest

from ingest.core.delivery.backoff import Backoff, is_waste, pause_after_waste_s
from ingest.core.delivery.intake import Intake, Pause, delivery_count


def test_with_every_writer_at_the_database_all_is_taken() -> None:
    """Nothing was let go of: what is unsettled hinders nothing."""
    assert Intake().pause([True, True], unsettled=500) is Pause.NONE


@pytest.mark.parametrize("up", [[False], [True, False], [False, False], [False, True]])
def test_one_writer_without_a_database_is_enough_to_pause(up: list[bool]) -> None:
    """It cannot be told beforehand to which writer a message will go."""
    assert Intake().pause(up, unsettled=0) is Pause.DATABASE_AWAY


def test_what_was_let_go_of_is_settled_before_anything_is_taken() -> None:
    """A connection to the database proves little; a commit does."""
    intake = Intake()
    intake.let_go()
    assert intake.pause([True], unsettled=3) is Pause.NOT_SETTLED
    assert intake.pause([False], unsettled=3) is Pause.DATABASE_AWAY
    assert intake.pause([True], unsettled=1) is Pause.NOT_SETTLED
    assert intake.pause([True], unsettled=0) is Pause.NONE
    assert intake.pause([True], unsettled=9) is Pause.NONE, "they came after"


def test_every_reason_to_pause_has_words_for_a_person() -> None:
    """And only that of no pause is empty."""
    assert [bool(pause.reason) for pause in Pause] == [False, True, True]


@pytest.mark.parametrize(
    ("value", "count"),
    [("0", 0), ("3", 3), ("20", 20), ("", 0), ("many", 0), ("-1", 0), ("١", 0), ("9" * 400, 0), (" 3", 0)],
)
def test_a_delivery_count_is_a_small_number_or_none(value: str, count: int) -> None:
    """It comes from outside."""
    assert delivery_count({"x-delivery-count": value}) == count


def test_no_header_is_no_count() -> None:
    """Most queues do not count."""
    assert delivery_count({"redelivered": "true"}) == 0


def test_pauses_double_up_to_the_longest() -> None:
    """And begin again after a reset."""
    backoff = Backoff(0.1)
    assert [backoff.pause_s(1.0, 1.0) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.pause_s(1.0, 1.0) == 0.1


def test_a_pause_is_at_least_half_of_what_is_due() -> None:
    """Spread, but never a busy loop."""
    assert Backoff(0.4).pause_s(10, 0.0) == 0.2
    assert Backoff(0.4).pause_s(10, 0.5) == pytest.approx(0.3)


def test_a_try_that_does_not_count_grows_nothing() -> None:
    """The other brokers of a list are tried at once."""
    backoff = Backoff(0.1)
    assert [backoff.pause_s(1.0, 1.0, grows=False) for _ in range(3)] == [0.1] * 3


@pytest.mark.parametrize(
    ("received", "acknowledged", "waste"),
    [(500, 0, True), (500, 200, True), (500, 250, False), (500, 400, False), (0, 0, False), (1, 1, False)],
)
def test_a_connection_that_settled_less_than_it_left_open_was_wasted(
    received: int, acknowledged: int, waste: bool
) -> None:
    """Each of what it left open has been delivered once more for nothing."""
    assert is_waste(received, acknowledged) is waste


def test_twenty_wasted_subscriptions_take_a_quarter_of_an_hour() -> None:
    """And the first two no time: one failover is no reason to wait."""
    assert pause_after_waste_s(0, 1.0) == pause_after_waste_s(1, 1.0) == 0
    pauses = [pause_after_waste_s(n, 1.0) for n in range(20)]
    assert pauses == sorted(pauses)
    assert 600 < sum(pauses) < 1200
