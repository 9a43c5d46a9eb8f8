"""Admission: memory stays under its limit, and producers wait in the order in which they came."""

from __future__ import annotations

from ingest.embedded.broker.admission import Admission


class Held:
    """What the queues hold, as a test wants it."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self) -> int:
        return self.bytes


def arrive(admission: Admission, held: Held, producer: str, size: int) -> None:
    admission.arrived(producer)
    held.bytes += size


def test_what_is_coming_counts_as_held() -> None:
    """Two bodies on their way are as good as two in a queue."""
    admission = Admission(1000, Held())
    assert admission.admit("a", 600)
    assert not admission.admit("b", 600)
    assert admission.used_bytes == 600


def test_a_producer_waits_until_consumers_have_settled_enough() -> None:
    """Over the limit nobody is let in before the low mark is reached."""
    held = Held()
    admission = Admission(1000, held)
    assert admission.admit("a", 1000)
    arrive(admission, held, "a", 1000)
    assert not admission.admit("a", 10)
    held.bytes = 900
    assert admission.next_in_line() is None
    held.bytes = 875
    assert admission.next_in_line() == "a"
    assert admission.admit("a", 10)
    assert admission.next_in_line() is None


def test_first_come_first_served() -> None:
    """A small message does not overtake a large one that waits."""
    held = Held()
    held.bytes = 500
    admission = Admission(1000, held)
    assert not admission.admit("large", 600)
    assert not admission.admit("small", 1)
    assert admission.next_in_line() is None
    held.bytes = 400
    assert admission.next_in_line() == "large"
    assert not admission.admit("small", 1)
    assert admission.admit("large", 600)


def test_an_empty_broker_takes_any_one_message() -> None:
    """Else a message larger than the limit would wait for ever."""
    admission = Admission(1000, Held())
    assert admission.admit("a", 1100)
    assert not admission.admit("b", 1)


def test_who_is_gone_waits_no_more_and_holds_nothing() -> None:
    """A connection that ends in the middle of a body gives its room back."""
    admission = Admission(1000, Held())
    assert admission.admit("a", 1000)
    assert not admission.admit("b", 1000)
    assert not admission.admit("c", 1000)
    admission.forget("b")
    admission.forget("a")
    assert admission.used_bytes == 0
    assert admission.next_in_line() == "c"
