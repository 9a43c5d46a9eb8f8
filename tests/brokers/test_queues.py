"""Queues: who gets which message, in which order, and that none is lost."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest.embedded.broker.messages import Consumer, Delivery, Depth, held_bytes
from ingest.embedded.broker.queues import Queues

QUEUE = "/queue/catalog"


def queues_with(*bodies: bytes) -> Queues:
    queues = Queues("b")
    for body in bodies:
        queues.send(QUEUE, {}, body)
    return queues


def subscriber(queues: Queues, prefetch_messages: int = 10, *, ack: str = "client-individual") -> Consumer:
    consumer = Consumer()
    queues.subscribe(consumer, "s", QUEUE, ack, prefetch_messages)
    return consumer


def delivered(queues: Queues) -> list[tuple[Consumer, bytes]]:
    return [(one.subscription.consumer, bytes(one.message.body)) for one in queues.deliveries()]


def test_messages_keep_their_order() -> None:
    """First in, first out."""
    queues = queues_with(b"1", b"2", b"3")
    consumer = subscriber(queues)
    assert delivered(queues) == [(consumer, b"1"), (consumer, b"2"), (consumer, b"3")]


def test_prefetch_bounds_what_is_outstanding() -> None:
    """A consumer has at most its prefetch; each acknowledgement makes room for one more."""
    queues = queues_with(b"1", b"2", b"3", b"4")
    subscriber(queues, 2)
    first, second = queues.deliveries()
    assert delivered(queues) == []
    queues.acknowledge(second)
    assert [body for _, body in delivered(queues)] == [b"3"]
    queues.acknowledge(first)
    assert [body for _, body in delivered(queues)] == [b"4"]


def test_competing_consumers_take_turns() -> None:
    """Round-robin, passing over those who have no room."""
    queues = queues_with(b"1", b"2", b"3", b"4", b"5")
    a, b = subscriber(queues, 10), subscriber(queues, 1)
    assert delivered(queues) == [(a, b"1"), (b, b"2"), (a, b"3"), (a, b"4"), (a, b"5")]


def test_what_a_lost_consumer_had_returns_to_its_old_place() -> None:
    """Two consumers vanish one after the other; the messages stand in their first order, as redelivered."""
    queues = queues_with(b"1", b"2", b"3", b"4", b"5", b"6")
    a, b = subscriber(queues, 2), subscriber(queues, 2)
    assert len(delivered(queues)) == 4
    queues.leave(b)
    queues.leave(a)
    subscriber(queues)
    again = list(queues.deliveries())
    assert [bytes(one.message.body) for one in again] == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert [one.attempt for one in again] == [2, 2, 2, 2, 1, 1]


def test_client_acknowledges_everything_up_to_the_message() -> None:
    """Cumulative within its own subscription, and nothing of another one of the same connection."""
    queues = queues_with(b"1", b"2", b"3", b"4")
    consumer = subscriber(queues, 2, ack="client")
    queues.subscribe(consumer, "other", QUEUE, "client", 2)
    _, second, third, _ = queues.deliveries()
    assert second.subscription.id == "other"
    queues.acknowledge(third)
    assert [bytes(one.message.body) for one in consumer.outstanding.values()] == [b"2", b"4"]


def test_client_individual_acknowledges_one_message() -> None:
    """A later message may be settled before an earlier one."""
    queues = queues_with(b"1", b"2")
    consumer = subscriber(queues)
    _, second = queues.deliveries()
    queues.acknowledge(second)
    assert [bytes(one.message.body) for one in consumer.outstanding.values()] == [b"1"]


def test_a_rejected_message_comes_back_first() -> None:
    """NACK puts it where it stood, before what is still ready."""
    queues = queues_with(b"1", b"2", b"3")
    subscriber(queues, 1)
    (first,) = queues.deliveries()
    queues.reject(first)
    (again,) = queues.deliveries()
    assert bytes(again.message.body) == b"1"
    assert again.attempt == 2
    assert again.message.id == first.message.id


def test_an_acknowledgement_of_an_earlier_delivery_is_not_found() -> None:
    """The ack id names one delivery; the message id stays with the message."""
    queues = queues_with(b"1")
    consumer = subscriber(queues)
    (first,) = queues.deliveries()
    queues.reject(first)
    (again,) = queues.deliveries()
    assert queues.outstanding_by_ack(consumer, first.ack_id) is None
    assert queues.outstanding_by_ack(consumer, again.ack_id) is again
    assert queues.outstanding(consumer, first.message.id) is again
    assert queues.outstanding(Consumer(), first.message.id) is None


def test_unsubscribe_leaves_what_is_outstanding_in_hand() -> None:
    """No new deliveries; what was delivered is acknowledged, or goes back when the connection ends."""
    queues = queues_with(b"1", b"2", b"3")
    consumer = subscriber(queues, 2)
    first, _ = queues.deliveries()
    assert queues.unsubscribe(consumer, "s")
    assert not queues.unsubscribe(consumer, "s")
    queues.acknowledge(first)
    assert delivered(queues) == []
    assert queues.depths() == {QUEUE: Depth(1, 1, 0, 2)}
    queues.leave(consumer)
    assert queues.depths() == {QUEUE: Depth(2, 0, 0, 2)}


def test_the_last_acknowledgement_may_be_of_several() -> None:
    """Cumulative, after UNSUBSCRIBE: with them the destination goes, once."""
    queues = queues_with(b"1", b"2")
    consumer = subscriber(queues, 2, ack="client")
    _, second = queues.deliveries()
    queues.unsubscribe(consumer, "s")
    queues.acknowledge(second)
    assert queues.depths() == {}
    assert queues.held_bytes == 0


def test_an_empty_destination_is_forgotten() -> None:
    """Queues that nobody uses do not pile up."""
    queues = queues_with(b"1")
    consumer = subscriber(queues)
    (delivery,) = queues.deliveries()
    queues.acknowledge(delivery)
    queues.leave(consumer)
    assert queues.depths() == {}
    assert delivered(queues) == []


@pytest.mark.parametrize("count", [0, 3])
def test_memory_counts_headers_and_bodies(count: int) -> None:
    """What is held is the sum over all messages, wherever they are."""
    queues = queues_with()
    for _ in range(count):
        queues.send(QUEUE, {"certname": "a"}, b"12345")
    subscriber(queues, 1)
    assert len(delivered(queues)) == min(count, 1)
    assert queues.held_bytes == count * held_bytes({"certname": "a"}, 5)


class AnyUse(RuleBasedStateMachine):
    """Whatever clients do, in whatever order: nothing is lost, doubled, out of order or over its prefetch."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = Queues("b")
        self.sent = 0
        self.settled: set[int] = set()
        self.consumers: list[Consumer] = []
        self.in_hand: list[Delivery] = []

    @rule(count=st.integers(1, 5))
    def send(self, count: int) -> None:
        for _ in range(count):
            self.queues.send(QUEUE, {}, str(self.sent).encode())
            self.sent += 1

    @rule(prefetch_messages=st.integers(1, 4), ack=st.sampled_from(["client", "client-individual"]))
    def join(self, prefetch_messages: int, ack: str) -> None:
        self.consumers.append(subscriber(self.queues, prefetch_messages, ack=ack))

    @rule()
    def deliver(self) -> None:
        before = {number for number, _ in self.numbers_in_hand()}
        new = list(self.queues.deliveries())
        numbers = [int(bytes(one.message.body)) for one in new]
        waiting = set(range(self.sent)) - self.settled - before
        assert numbers == sorted(waiting)[: len(numbers)]
        self.in_hand += new

    def numbers_in_hand(self) -> list[tuple[int, Delivery]]:
        return [(int(bytes(one.message.body)), one) for one in self.in_hand]

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), nack=st.booleans())
    def answer(self, data: st.DataObject, nack: bool) -> None:
        chosen = data.draw(st.sampled_from(self.in_hand))
        taken = [chosen]
        if chosen.subscription.ack == "client":
            of_it = [one for one in self.in_hand if one.subscription is chosen.subscription]
            taken = of_it[: of_it.index(chosen) + 1]
        if nack:
            self.queues.reject(chosen)
        else:
            self.queues.acknowledge(chosen)
            self.settled |= {int(bytes(one.message.body)) for one in taken}
        self.in_hand = [one for one in self.in_hand if one not in taken]

    @precondition(lambda self: self.consumers)
    @rule(data=st.data(), politely=st.booleans())
    def leave(self, data: st.DataObject, politely: bool) -> None:
        consumer = data.draw(st.sampled_from(self.consumers))
        if politely:
            self.queues.unsubscribe(consumer, "s")
            return
        self.consumers.remove(consumer)
        self.queues.leave(consumer)
        self.in_hand = [one for one in self.in_hand if one.subscription.consumer is not consumer]

    @invariant()
    def every_message_is_somewhere(self) -> None:
        depth = self.queues.depths().get(QUEUE, Depth(0, 0, 0, 0))
        assert depth.unacknowledged == len(self.in_hand)
        assert depth.ready + depth.unacknowledged == self.sent - len(self.settled)
        held = set(range(self.sent)) - self.settled
        assert depth.bytes == sum(len(str(number)) for number in held)
        assert self.queues.held_bytes == sum(held_bytes({}, len(str(number))) for number in held)

    @invariant()
    def nobody_has_more_than_the_prefetch(self) -> None:
        for consumer in self.consumers:
            for subscription in consumer.subscriptions.values():
                assert subscription.outstanding <= subscription.prefetch_messages
                assert subscription.outstanding == len(consumer.outstanding)


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_stamps_and_numbers_tell_the_order() -> None:
    """With a clock messages are stamped as ActiveMQ does it: by stamp, and within one by the last digits of the number,
    they are in the order in which they came. Also when the clock stands still or is put back."""
    clock = iter([5] * 1500 + [3] * 1000 + [9] * 400)
    queues = Queues("b", lambda: next(clock))
    consumer = Consumer()
    queues.subscribe(consumer, "s", QUEUE, "auto", 65535)
    for _ in range(2900):
        queues.send(QUEUE, {}, b"")
    found = [
        (int(one.message.headers["timestamp"]), int(one.message.id.rpartition("-")[2]) % 1000)
        for one in queues.deliveries()
    ]
    assert found == sorted(set(found))
    assert (found[0][0], found[-1][0]) == (5, 9)
