"""Outbox: the bytes that leave are the frames in order, however few the kernel takes at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.embedded.broker.messages import Consumer, Delivery, Message, Subscription
from ingest.embedded.broker.outbox import JOINED_BYTES_MAX, Outbox

SUBSCRIPTION = Subscription(Consumer(), "s", "/queue/a", "auto", 10)


def delivery(body: bytes) -> Delivery:
    return Delivery(SUBSCRIPTION, Message(1, "b-1", "/queue/a", {}, body, len(body)))


def leave(outbox: Outbox, takes: list[int]) -> tuple[bytes, list[Delivery]]:
    """What goes out when the kernel takes that much each time, and which messages have gone."""
    left, gone = bytearray(), []
    for take in takes:
        parts, length = outbox.parts()
        assert length == sum(map(len, parts))
        data = b"".join(parts)[:take]
        left += data
        gone += outbox.sent(len(data))
    return bytes(left), gone


BODIES = st.one_of(st.binary(max_size=20), st.just(b"x" * (JOINED_BYTES_MAX + 1)), st.none())


@given(st.lists(BODIES, max_size=6), st.lists(st.integers(0, 2 * JOINED_BYTES_MAX), max_size=12))
def test_frames_leave_in_order_whatever_the_kernel_takes(
    bodies: list[bytes | None], takes: list[int]
) -> None:
    """Messages (None is a receipt) leave unchanged, and each is told once, when all of it has gone."""
    outbox = Outbox()
    expected = bytearray()
    deliveries = []
    for body in bodies:
        if body is None:
            outbox.add_control(b"RECEIPT\n\n\0")
            expected += b"RECEIPT\n\n\0"
        else:
            deliveries.append(delivery(body))
            outbox.add_message(b"MESSAGE\n\n", deliveries[-1])
            expected += b"MESSAGE\n\n" + body + b"\0"
    left, gone = leave(outbox, takes)
    rest, gone_later = leave(outbox, [len(expected)] * len(bodies))
    assert left + rest == expected
    assert gone + gone_later == deliveries
    assert not outbox
    assert outbox.control_bytes == 0


def test_a_message_that_has_begun_to_leave_cannot_be_withdrawn() -> None:
    """Half a frame would take the next one with it; messages behind it stay here."""
    outbox = Outbox()
    outbox.add_control(b"first")
    outbox.add_message(b"head", delivery(b"begun"))
    outbox.add_message(b"head", delivery(b"waits"))
    outbox.add_control(b"last")
    assert leave(outbox, [len(b"firsth")])[0] == b"firsth"
    outbox.withdraw_messages()
    assert leave(outbox, [100])[0] == b"eadbegun\0last"


def test_what_was_offered_alone_cannot_be_withdrawn() -> None:
    """TLS may have taken some of it although it said that it would block."""
    outbox = Outbox()
    outbox.add_message(b"head", delivery(b"offered"))
    assert outbox.first_part() == b"headoffered\0"
    outbox.withdraw_messages()
    assert outbox
