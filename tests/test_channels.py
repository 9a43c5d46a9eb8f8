"""Shared memory and pipes between processes: nothing overlaps, and whose peer died is told so."""

from __future__ import annotations

import itertools
import mmap
import os
import random
import select
import signal
import threading
import time
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest.core.delivery.work import Outcome, SectionDigests, Settled
from ingest.ipc.arena import Arena, memory
from ingest.ipc.control import ChildChannels, Order, ParentChannel, Report
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import DIGESTS
from ingest.ipc.pipes import Inbox, Outbox, link
from ingest.ipc.stored_digests import StoredDigests

WITHOUT_CLOCKS = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
SLOTS = 16
UNIT = Arena.ALIGNMENT
PAGE = mmap.PAGESIZE


# The arena


class Bodies(RuleBasedStateMachine):
    """The model: a row of slots, each free or with the number of the body that has it."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(memory("test", SLOTS * UNIT))
        self.slots: list[int | None] = [None] * SLOTS
        self.bodies: dict[int, tuple[int, int]] = {}  # offset, length
        self.numbers = itertools.count(1)

    @rule(length=st.integers(0, 6 * UNIT) | st.sampled_from([UNIT, UNIT + 1, SLOTS * UNIT, SLOTS * UNIT + 1]))
    def allocate(self, length: int) -> None:
        """The lowest range of free slots that is long enough, or none."""
        need = max(1, -(-length // UNIT))
        fitting = [
            at for at in range(SLOTS) if at + need <= SLOTS and not any(map(self.taken, range(at, at + need)))
        ]
        offset = self.arena.allocate(length)
        assert offset == (fitting[0] * UNIT if fitting else None)
        if offset is not None:
            number = next(self.numbers)
            self.bodies[number] = (offset, length)
            self.slots[fitting[0] : fitting[0] + need] = [number] * need
            self.arena.view(offset, length)[:] = bytes([number % 256]) * length

    def taken(self, at: int) -> bool:
        return self.slots[at] is not None

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.bodies)))
        self.arena.free(*self.bodies.pop(number))
        self.slots = [None if slot == number else slot for slot in self.slots]

    @invariant()
    def every_body_is_whole(self) -> None:
        for number, (offset, length) in self.bodies.items():
            assert bytes(self.arena.view(offset, length)) == bytes([number % 256]) * length

    @invariant()
    def the_space_is_accounted_for(self) -> None:
        """Free and used add up, and neighbouring holes are one."""
        assert self.arena.used_bytes == sum(slot is not None for slot in self.slots) * UNIT
        runs = [
            (free, len(list(group))) for free, group in itertools.groupby(slot is None for slot in self.slots)
        ]
        assert [length for _, length in self.arena._holes] == [length * UNIT for free, length in runs if free]

    def teardown(self) -> None:
        """When all are gone, all space is back, in one piece."""
        for offset, length in self.bodies.values():
            self.arena.free(offset, length)
        assert self.arena.used_bytes == 0
        assert self.arena.allocate(SLOTS * UNIT) == 0


TestBodies = Bodies.TestCase
TestBodies.settings = settings(WITHOUT_CLOCKS, max_examples=100, stateful_step_count=30)


def test_another_process_sees_the_body_where_it_lies() -> None:
    """Two mappings of one memory; a view is not a copy."""
    fd = memory("test", 4096)
    other = Arena(os.dup(fd))
    arena = Arena(fd)
    offset = arena.allocate(5)
    assert offset is not None
    arena.view(offset, 5)[:] = b"body."
    assert bytes(other.view(offset, 5)) == b"body."
    assert arena.size_bytes == 4096


def test_what_is_not_used_any_more_is_given_back() -> None:
    """Pages behind all that was used between two trims go; bodies stay as they are, and the space can be used again."""
    fd = memory("test", 64 * PAGE)
    kept = os.dup(fd)
    arena = Arena(fd)

    def fill(pages: int) -> int:
        offset = arena.allocate(pages * PAGE)
        assert offset is not None
        arena.view(offset, pages * PAGE)[:] = b"x" * pages * PAGE
        return offset

    def pages() -> int:
        return os.fstat(kept).st_blocks * 512 // PAGE

    small, large = fill(1), fill(32)
    arena.trim()
    arena.free(large, 32 * PAGE)
    assert pages() == 33  # used since the trim before
    arena.trim()
    assert pages() == 33  # in use at the time of that trim
    arena.trim()
    assert pages() == 1
    assert bytes(arena.view(small, PAGE)) == b"x" * PAGE
    assert fill(63) == PAGE
    assert pages() == 64


# Stored digests


def table() -> tuple[StoredDigests, mmap.mmap]:
    shared = mmap.mmap(-1, StoredDigests.size_bytes())
    return StoredDigests(shared), shared


def digests(letter: bytes) -> SectionDigests:
    return SectionDigests(letter * 16, letter * 20)


def test_what_is_put_is_found() -> None:
    """Both digests, under that name; the last pair put counts."""
    known, shared = table()
    assert known.get("a.example.com") is None
    known.put("a.example.com", SectionDigests(bytes(range(16)), bytes(range(20))))
    known.put("b.example.com", digests(b"b"))
    known.put("b.example.com", digests(b"c"))
    assert known.get("a.example.com") == (bytes(range(16)), bytes(range(20)))
    assert StoredDigests(shared).get("b.example.com") == digests(b"c")
    assert known.get("c.example.com") is None


def test_a_seed_is_sown_once_and_seen_by_all() -> None:
    """Another table has another one."""
    known, shared = table()
    known.sow()
    assert StoredDigests(shared).seed == known.seed > 0
    other, _ = table()
    other.sow()
    assert other.seed != known.seed


def same_checksums() -> tuple[str, str]:
    """Two names with the same crc32 and the same adler32: anybody can make such."""
    # "bdb" and "cbc" have the same sums, and what they do to the crc is linear: some of 40 such changes cancel out.
    plain = "x".join(["bdb"] * 40)
    crcs = []
    for number in range(40):
        changed = plain[: 4 * number] + "cbc" + plain[4 * number + 3 :]
        crcs.append((zlib.crc32(changed.encode()) ^ zlib.crc32(plain.encode()), 1 << number))
    while True:
        crc, which = max(crcs)
        if not crc:
            break
        crcs.remove((crc, which))
        top = 1 << crc.bit_length() - 1
        crcs = [(other ^ crc, of ^ which) if other & top else (other, of) for other, of in crcs]
    which = next(of for _, of in crcs if of)
    return plain, "x".join("cbc" if which >> number & 1 else "bdb" for number in range(40))


def test_nobody_can_choose_a_name_that_has_anothers_entry() -> None:
    """Checksums of names say nothing about who has which place."""
    one, other = same_checksums()
    assert one != other
    for checksum in (zlib.crc32, zlib.adler32):
        assert checksum(one.encode()) == checksum(other.encode())
    known, _ = table()
    known.sow()
    known.put(one, digests(b"o"))
    assert known.get(other) is None


def test_two_names_in_one_place_cost_each_other_the_short_cut() -> None:
    """Nobody gets the digests of the other; found by trying names until two meet."""
    known, _ = table()
    places: dict[int, str] = {}
    for number in itertools.count():
        name = f"node-{number}"
        other = places.setdefault(known._place(name)[1], name)
        if other != name:
            break
    known.put(other, digests(b"o"))
    assert known.get(name) is None
    known.put(name, digests(b"n"))
    assert known.get(other) is None
    assert known.get(name) == digests(b"n")


@settings(WITHOUT_CLOCKS)
@given(
    st.binary(min_size=1, max_size=1),
    st.binary(min_size=1, max_size=1),
    st.integers(0, StoredDigests._ENTRY.size),
)
def test_a_torn_entry_is_none(before: bytes, after: bytes, cut: int) -> None:
    """However far a writer got with the next pair, nobody finds one's fingerprint with the other's digest."""
    known, shared = table()
    known.put("a", digests(before))
    _, at = known._place("a")
    old = shared[at : at + StoredDigests._ENTRY.size]
    known.put("a", digests(after))
    shared[at + cut : at + StoredDigests._ENTRY.size] = old[cut:]
    assert known.get("a") in (digests(before), digests(after), None)


@pytest.fixture(scope="module")
def known() -> StoredDigests:
    return table()[0]


@settings(WITHOUT_CLOCKS)
@given(name=st.text(st.characters(blacklist_categories=("Cs",))))
def test_every_name_has_a_place_in_the_table(known: StoredDigests, name: str) -> None:
    """The table is as large as it says."""
    known.put(name, digests(b"d"))
    assert known.get(name) == digests(b"d")


# InFlight


def test_hands_hold_one_delivery_and_one_session_for_each_process() -> None:
    """One process's row is not another's; empty hands hold nothing, and delivery numbers have 64 bits. The session is
    still there when the hands are empty: a successor ends what it finds."""
    names = ["receiver", "decoder-0", "writer-0"]
    shared = mmap.mmap(-1, InFlight.size_bytes(len(names)))
    hands = InFlight(shared, names)
    assert [hands.held(name) for name in names] == [None] * 3
    hands.hold("decoder-0", 2**63)
    hands.hold("writer-0", 7)
    assert [hands.session(name) for name in names] == [None] * 3
    hands.open_session("writer-0", 4711, 2**63 + 1)
    seen = InFlight(shared, names)
    assert [seen.held(name) for name in names] == [None, 2**63, 7]
    hands.empty("decoder-0")
    assert [seen.held(name) for name in names] == [None, None, 7]
    hands.empty("writer-0")
    assert [seen.session(name) for name in names] == [None, None, (4711, 2**63 + 1)]


def test_who_looks_while_hands_are_filled_sees_a_whole_number() -> None:
    """Half of one would be another delivery, which the supervisor or the receiver would blame."""
    shared = mmap.mmap(-1, InFlight.size_bytes(1))
    hands = InFlight(shared, ["decoder-0"])
    deliveries = {(n << 56) + n: 0 for n in range(1, 100)}
    busy = os.fork()
    if not busy:
        while True:
            for delivery in deliveries:
                hands.hold("decoder-0", delivery)
    try:
        deadline_s = time.monotonic() + 20
        while sum(deliveries.values()) < 200_000 and time.monotonic() < deadline_s:
            held = hands.held("decoder-0")
            assert held in deliveries or (held is None and not any(deliveries.values()))
            if held is not None:
                deliveries[held] += 1
    finally:
        os.kill(busy, signal.SIGKILL)
        os.waitpid(busy, 0)
    assert min(deliveries.values()) > 0


def test_hands_of_nobody_need_memory_all_the_same() -> None:
    """An empty mapping cannot be made."""
    assert InFlight.size_bytes(0) > 0


# Links


def pipe() -> tuple[Inbox, Outbox]:
    receiving, sending = link()
    return Inbox(receiving, Settled), Outbox(sending, 3)


def test_messages_arrive_whole_and_in_order() -> None:
    """Far more than the pipe holds at once, of very different sizes."""
    inbox, outbox = pipe()
    chance = random.Random(1)
    sent = [Settled(n, Outcome.REDO, ("r", "x" * chance.choice((0, 10, 100_000)))) for n in range(200)]
    writer = threading.Thread(target=lambda: [outbox.send(message) for message in sent], daemon=True)
    writer.start()
    received = [inbox.receive() for _ in sent]
    writer.join()
    assert received == sent
    assert not inbox.poll()


def test_what_was_sent_before_the_end_still_arrives() -> None:
    """Then the end itself, which poll announces too; again and again."""
    inbox, outbox = pipe()
    assert outbox.send(Settled(1, Outcome.STORED))
    outbox.close()
    assert inbox.poll()
    message, size = inbox.receive_sized()
    assert message == Settled(1, Outcome.STORED)
    assert size > 0
    for _ in range(2):
        assert inbox.poll()
        with pytest.raises(EOFError):
            inbox.receive()


def test_sending_to_the_dead_is_told_and_harmless() -> None:
    """False instead of an exception or a signal."""
    inbox, outbox = pipe()
    inbox.close()
    assert not outbox.send(Settled(1, Outcome.STORED))
    assert not outbox.send(Settled(2, Outcome.STORED))
    assert outbox.incarnation == 3


@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_a_sender_that_dies_in_the_middle_of_a_message(size: int) -> None:
    """Whatever part of it arrived: the end, never half a message."""
    receiving, sending = link()
    inbox = Inbox(receiving, Settled)
    whole = (200).to_bytes(4, "big") + b"x" * 200
    os.write(sending.fileno(), whole[:size])
    sending.close()
    with pytest.raises(EOFError):
        inbox.receive()


def test_a_receiver_that_dies_frees_a_sender_that_waits_for_it() -> None:
    """The pipe is full and nobody reads: send blocks, and returns False when the reader is gone."""
    inbox, outbox = pipe()
    results: list[bool] = []

    def send() -> None:
        results.append(outbox.send(Settled(1, Outcome.REDO, ("r", "x" * (8 << 20)))))

    writer = threading.Thread(target=send, daemon=True)
    writer.start()
    # It has begun, and cannot end: the pipe holds a fraction of it.
    assert select.select([inbox], [], [], 20)[0]
    inbox.close()
    writer.join(20)
    assert results == [False]


# Control


def test_a_child_is_wired_by_its_control_socket() -> None:
    """An inbox, an outbox, memory: what is handed over works; a successor's end replaces the old one."""
    control = ParentChannel()
    channels = ChildChannels(control.child, {"writer": Settled})
    receiving, sending = link()
    control.hand_over("inbox", "writer-0", receiving.fileno(), 1)
    own, out = link()
    control.hand_over("outbox", "decoder-0", out.fileno(), 2)
    fd = memory("test", 4096)
    control.hand_over("arena", "receiver", fd, 5)
    control.hand_over(DIGESTS, "", fd)
    control.order("go")
    channels.until_go()
    for connection in (receiving, out):
        connection.close()
    os.close(fd)
    assert Outbox(sending, 1).send(Settled(1, Outcome.STALE))
    assert channels.inboxes["writer-0"].receive() == Settled(1, Outcome.STALE)
    assert channels.outboxes["decoder-0"].send(Settled(2, Outcome.STORED))
    assert Inbox(own, Settled).receive() == Settled(2, Outcome.STORED)
    channels.arenas[5].view(0, 3)[:] = b"abc"
    assert channels.memory[DIGESTS][:3] == b"abc"
    assert (channels.incarnations, channels.outboxes["decoder-0"].incarnation) == (
        {"writer-0": 1, "decoder-0": 2},
        2,
    )

    newer, newer_sending = link()
    control.hand_over("inbox", "writer-0", newer.fileno(), 2)
    fd = memory("test", 8192)
    control.hand_over("arena", "receiver", fd, 6)
    control.order("go")
    channels.until_go()
    assert Outbox(newer_sending, 2).send(Settled(3, Outcome.STORED))
    assert channels.inboxes["writer-0"].receive() == Settled(3, Outcome.STORED)
    assert {number: arena.size_bytes for number, arena in channels.arenas.items()} == {6: 8192}
    assert not Outbox(sending, 1).send(Settled(4, Outcome.STORED))  # the old end is closed
    channels.drop_inbox("writer-0")
    channels.drop_inbox("writer-0")
    assert channels.inboxes == {}
    for end in (newer, newer_sending, own, sending):
        end.close()
    os.close(fd)


def test_both_ends_of_the_control_socket_notice_the_others_death() -> None:
    """The parent goes on and knows; the child gets the end; nothing raises anything else."""
    control = ParentChannel()
    channels = ChildChannels(control.child, {})
    channels.report("ready", "now")
    assert list(control.reports()) == [Report("ready", "now")]
    assert not control.ended
    control.order("drain", "why")
    assert channels.control() == Order("drain", "why")
    control.close()
    with pytest.raises(EOFError):
        channels.control()
    channels.report("nobody hears it")

    control = ParentChannel()
    control.child.send_bytes(control._encoder.encode(Report("drained")))
    control.child.close()
    assert list(control.reports()) == [Report("drained")]
    assert control.ended
    control.order("stop")
    control.hand_over(DIGESTS, "", 0)
    assert list(control.reports()) == []
    control.close()
