"""What the journal of the embedded broker has again after its broker ended, however it ended."""

from __future__ import annotations

import resource
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.embedded.broker.journal import Journal
from ingest.embedded.broker.messages import Consumer
from ingest.embedded.broker.queues import Queues
from ingest.embedded.broker.records import MAGIC, Kind, encode_mark, encode_message, read_records
from ingest.errors import Misconfigured

QUEUE = "/queue/catalog"
SMALL = 4096  # of a segment
PLENTY = 1 << 30


class Kept:
    """A journal with a way to wait for the disk."""

    def __init__(self, directory: Path, disk_bytes_max: int = PLENTY) -> None:
        self._woken = threading.Event()
        self.journal = Journal(directory, disk_bytes_max, wake=self._woken.set, segment_bytes=SMALL)

    def sync(self) -> None:
        while self.journal.durable < self.journal.position:
            self._woken.clear()
            self.journal.turn()
            if self.journal.durable < self.journal.position:
                self._woken.wait(10)


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.segment"))


def found(directory: Path) -> dict[int, tuple[bytes, bool]]:
    """Of each message, its body and whether a delivery of it had begun."""
    journal = Journal(directory, PLENTY)
    try:
        kept = list(journal.recover())
        return {one.number: (journal.body(one.number), one.delivered) for one in kept}
    finally:
        journal.close()


def write_three(directory: Path) -> None:
    """One after the other; the second is gone, a delivery of the third has begun."""
    kept = Kept(directory)
    assert not list(kept.journal.recover())
    for number in (1, 2, 3):
        kept.journal.message(number, QUEUE, {"certname": f"n{number}"}, b"%d" % number * 10)
        kept.sync()
    kept.journal.gone(2)
    kept.journal.delivered(3)
    kept.journal.close()


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    """With its destination, headers and body, in order, and with whether it may have been delivered."""
    write_three(tmp_path)
    assert found(tmp_path) == {1: (b"1" * 10, False), 3: (b"3" * 10, True)}
    journal = Journal(tmp_path, PLENTY)
    one, three = journal.recover()
    assert (one.destination, one.headers, three.headers) == (QUEUE, {"certname": "n1"}, {"certname": "n3"})
    assert journal.last_number == 3
    journal.close()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(
                st.characters(codec="utf-8")
                | st.characters(categories=["Cs"], max_codepoint=0xDCFF, min_codepoint=0xDC80)
            ),
            st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
            st.binary(max_size=50),
        ),
        max_size=5,
    )
)
def test_any_text_and_any_bytes_come_back(messages: list[tuple[str, dict[str, str], bytes]]) -> None:
    """Whatever bytes a client's headers were made of."""
    parts: list[bytes] = [MAGIC]
    for number, (destination, headers, body) in enumerate(messages):
        head, body_ = encode_message(number, destination, headers, body)
        parts += [head, bytes(body_)]
    text = b"".join(parts)
    read = list(read_records(memoryview(text)))
    assert [
        (one.destination, one.headers, text[one.end - one.body_bytes : one.end]) for one in read
    ] == messages
    assert not messages or read[-1].end == len(text)


def test_a_journal_cut_off_anywhere_has_all_that_lies_before(tmp_path: Path) -> None:
    """At every byte: what had a receipt before the last message is there, the last one is whole or not there."""
    directory = tmp_path / "whole"
    write_three(directory)
    whole = segments(directory)[-1].read_bytes()
    ends = [record.end for record in read_records(memoryview(whole))]
    for length in range(len(whole) + 1):
        cut = tmp_path / f"cut-{length}"
        cut.mkdir()
        (cut / segments(directory)[-1].name).write_bytes(whole[:length])
        bodies = {number: body for number, (body, _) in found(cut).items()}
        expected = {n: b"%d" % n * 10 for n, end in zip((1, 2, 3), ends, strict=False) if end <= length}
        if length >= ends[3]:
            del expected[2]
        assert bodies == expected, length
        shutil.rmtree(cut)


def test_a_damaged_byte_anywhere_stops_the_reading_there(tmp_path: Path) -> None:
    """No damaged message is given out, and what comes after the restart is kept and found."""
    directory = tmp_path / "whole"
    write_three(directory)
    whole = segments(directory)[-1].read_bytes()
    ends = [record.end for record in read_records(memoryview(whole))]
    for at in range(len(MAGIC), len(whole)):
        hurt = tmp_path / f"hurt-{at}"
        hurt.mkdir()
        (hurt / segments(directory)[-1].name).write_bytes(
            whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :]
        )
        kept = Kept(hurt)
        numbers = [one.number for one in kept.journal.recover()]
        assert numbers == [
            n for n, end in zip((1, 2, 3), ends, strict=False) if end <= at and (n != 2 or at < ends[3])
        ]
        kept.journal.message(9, QUEUE, {}, b"new")
        kept.journal.close()
        assert found(hurt)[9] == (b"new", False)
        shutil.rmtree(hurt)


def test_disk_is_given_back_although_one_message_stays(tmp_path: Path) -> None:
    """The oldest message of all is never acknowledged; those after it come and go."""
    kept = Kept(tmp_path, 128 * SMALL)
    assert not list(kept.journal.recover())
    kept.journal.message(1, QUEUE, {}, b"stays")
    for number in range(2, 1000):
        kept.journal.message(number, QUEUE, {}, bytes(500))
        kept.sync()
        kept.journal.delivered(number)
        kept.journal.gone(number)
    for _ in range(50):
        kept.sync()
        kept.journal.turn()
    assert kept.journal.disk_bytes < 6 * SMALL
    kept.journal.close()
    assert found(tmp_path) == {1: (b"stays", False)}


@settings(deadline=None, max_examples=60)
@given(
    steps=st.lists(
        st.one_of(st.just("sync"), st.just("restart"), st.integers(0, 2000), st.integers(-30, -1)),
        max_size=120,
    )
)
def test_a_journal_knows_what_a_dictionary_knows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str | int]
) -> None:
    """Messages of any size come, go and are copied, over restarts: nothing is lost, and what is gone stays gone."""
    directory = tmp_path_factory.mktemp("journal")
    kept = Kept(directory, 128 * SMALL)
    assert not list(kept.journal.recover())
    model: dict[int, bytes] = {}
    number = 0
    for step in [*steps, "restart"]:
        if step == "sync":
            kept.sync()
        elif step == "restart":
            kept.journal.close()
            kept = Kept(directory, 128 * SMALL)
            assert [one.number for one in kept.journal.recover()] == sorted(model)
            assert all(kept.journal.body(one) == body for one, body in model.items())
            number = max(number, kept.journal.last_number)
        elif isinstance(step, int) and step >= 0:
            number += 1
            model[number] = number.to_bytes(4, "big") * step
            kept.journal.message(number, QUEUE, {}, model[number])
        elif model and isinstance(step, int):
            gone = sorted(model)[step % len(model)]
            kept.journal.gone(gone)
            del model[gone]
    kept.journal.close()
    shutil.rmtree(directory)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 3000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_what_does_not_fit_on_the_disk_is_told_and_spoils_nothing(tmp_path: Path) -> None:
    """The message that could not be written has no place, those before it and after it have."""
    kept = Kept(tmp_path)
    assert not list(kept.journal.recover())
    kept.journal.message(1, QUEUE, {}, bytes(1000))
    kept.sync()
    assert kept.journal.failure == ""
    kept.journal.message(2, QUEUE, {}, bytes(2500))
    kept.sync()
    assert kept.journal.failure == "the broker cannot write to its disk: File too large"
    assert not kept.journal.is_durable(2)
    kept.journal.gone(2)
    kept.journal.message(3, QUEUE, {}, bytes(100))
    kept.sync()
    assert kept.journal.failure == ""
    kept.journal.close()
    assert {number: len(body) for number, (body, _) in found(tmp_path).items()} == {1: 1000, 3: 100}


def test_over_its_limit_it_says_why(tmp_path: Path) -> None:
    """The words go to the publisher."""
    kept = Kept(tmp_path, 200_000)
    assert not list(kept.journal.recover())
    assert kept.journal.refusal(50_000) == ""
    kept.journal.message(1, QUEUE, {}, bytes(60_000))
    assert kept.journal.refusal(50_000) == "the broker's disk limit of 200000 bytes is reached"
    assert kept.journal.refusal(1 << 62).startswith("the broker's disk")
    kept.journal.close()


def test_two_brokers_do_not_share_a_directory(tmp_path: Path) -> None:
    """The second is refused with a line that names it; after the first has ended it may."""
    first = Journal(tmp_path, PLENTY)
    assert not list(first.recover())
    with pytest.raises(Misconfigured, match=f"another broker uses {tmp_path}"):
        Journal(tmp_path, PLENTY)
    first.close()
    second = Journal(tmp_path, PLENTY)
    assert not list(second.recover())
    second.close()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """Bodies have secrets, until a decoder has seen them."""
    directory = tmp_path / "journal"
    write_three(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in directory.iterdir())


def test_bodies_leave_memory_and_come_back(tmp_path: Path) -> None:
    """Over half of its memory a broker keeps bodies on disk only, those first that are asked for last."""
    kept = Kept(tmp_path)
    queues = Queues("b", None, kept.journal)
    bodies = [b"%04d" % number * 250 for number in range(20)]
    for body in bodies:
        queues.send(QUEUE, {}, body)
    queues.let_bodies_go(5000)
    assert queues.held_bytes > 20_000  # nothing of it is on disk yet
    kept.sync()
    queues.let_bodies_go(15_000)
    assert queues.held_bytes <= 15_000
    consumer = Consumer()
    queues.subscribe(consumer, "s", QUEUE, "client-individual", 7)
    delivered = []
    while len(delivered) < len(bodies):
        for delivery in queues.deliveries():
            delivered.append(bytes(delivery.message.body or b""))
        for delivery in list(consumer.outstanding.values()):
            queues.acknowledge(delivery)
    assert delivered == bodies
    assert queues.held_bytes == 0
    kept.journal.close()
    assert found(tmp_path) == {}


def test_a_mark_of_what_nobody_knows_changes_nothing() -> None:
    """An old segment's record may be of a message that lay in one that was deleted."""
    text = MAGIC + encode_mark(Kind.GONE, 7) + encode_mark(Kind.DELIVERED, 8)
    assert [(record.kind, record.number) for record in read_records(memoryview(text))] == [
        (Kind.GONE, 7),
        (Kind.DELIVERED, 8),
    ]
