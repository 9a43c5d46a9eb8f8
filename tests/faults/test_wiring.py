"""What comes at the wrong moment, or too much at once, on the ways between the processes blocks nobody."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import pytest

from ingest.config.settings import Config
from ingest.core.catalog.model import Header
from ingest.core.delivery.dispatching import DECODER_DEPTH
from ingest.core.delivery.headers import KEPT
from ingest.core.delivery.work import Claim, Descriptor, Forwarded, Quarantine, SectionDigests, Work
from ingest.engine.decoder import Decoder
from ingest.engine.process import Ended, cpu_s, process_names
from ingest.engine.receiver import Receiver
from ingest.engine.supervisor import Supervisor
from ingest.engine.writer import Writer
from ingest.ipc.arena import memory
from ingest.ipc.control import ChildChannels, ParentChannel
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import DIGESTS, IN_FLIGHT, METRICS_TABLE
from ingest.ipc.pipes import PIPE_BYTES, Outbox, link
from ingest.ipc.process_metrics import MetricsTable
from ingest.ipc.stored_digests import StoredDigests
from ingest.transport.message import Message
from lab.store_model import START

CONFIG = Config(workers=1, writers=1, database="host=127.0.0.1 port=1", connect_timeout_s=0.1)
ARENA_BYTES = 1024 * 1024
HEADER = Header("n.example.com", START, "1")


@pytest.mark.parametrize(("kind", "peer"), [(Decoder, "receiver"), (Writer, "decoder-0")])
def test_an_end_and_its_replacement_in_one_round(kind: type[Decoder] | type[Writer], peer: str) -> None:
    """The old inbox is ready (it has ended) and so is the control socket (with its successor, which is empty): the
    process goes on to what the supervisor says next."""
    control = ParentChannel()
    channels = ChildChannels(control.child, {"receiver": list[Descriptor], "decoder": list[Work]})
    names = process_names(CONFIG)
    for role, size in (
        (DIGESTS, StoredDigests.size_bytes()),
        (IN_FLIGHT, InFlight.size_bytes(len(names))),
        (METRICS_TABLE, MetricsTable.size(len(names))),
    ):
        control.hand_over(role, "", memory(role, size))
        channels.control()
    old_receiving, old_sending = link()
    control.hand_over("inbox", peer, old_receiving.fileno(), 1)
    channels.control()
    new_receiving, _kept_open = link()
    control.hand_over(
        "inbox", peer, new_receiving.fileno(), 2
    )  # first: it is first in the list of what is ready
    old_sending.close()
    row = MetricsTable(mmap.mmap(-1, MetricsTable.size(len(names)))).row(0)
    process = kind(CONFIG, channels, row, names[1] if kind is Decoder else names[2])
    ended = threading.Event()

    def loop() -> None:
        try:
            process.loop()
        except Ended:
            ended.set()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    control.order("stop")
    assert ended.wait(10)


class Neighbourhood:
    """One process's side of the channels, and the supervisor's end of its control socket."""

    def __init__(self, config: Config) -> None:
        self.names = process_names(config)
        self.control = ParentChannel()
        self.channels = ChildChannels(
            self.control.child, {"receiver": list[Descriptor], "decoder": list[Work]}
        )
        for role, size in (
            (DIGESTS, StoredDigests.size_bytes()),
            (IN_FLIGHT, InFlight.size_bytes(len(self.names))),
            (METRICS_TABLE, MetricsTable.size(len(self.names))),
        ):
            self.hand_over(role, "", memory(role, size))
        self.hand_over("arena", "", memory("arena", ARENA_BYTES), 1)
        self.row = MetricsTable(mmap.mmap(-1, MetricsTable.size(len(self.names)))).row(0)

    def hand_over(self, role: str, peer: str, fd: int, number: int = 0) -> None:
        self.control.hand_over(role, peer, fd, number)
        self.channels.control()

    def inbox_from(self, peer: str) -> Outbox:
        receiving, sending = link()
        self.hand_over("inbox", peer, receiving.fileno(), 1)
        receiving.close()
        return Outbox(sending, 1)

    def outbox_to(self, peer: str) -> Connection:
        receiving, sending = link()
        self.hand_over("outbox", peer, sending.fileno(), 1)
        sending.close()
        return receiving


def claim(delivery: int) -> Claim:
    return Claim(delivery, HEADER, START, SectionDigests(bytes(16), bytes(20)))


def test_a_bad_message_of_a_new_receiver_before_its_arena() -> None:
    """The writer has the work, and the new arena still lies in its control socket: it takes that first. Without the body
    there would be no row and no report, and the message would stay unsettled."""
    around = Neighbourhood(CONFIG)
    writer = Writer(CONFIG, around.channels, around.row, "writer-0")
    around.control.hand_over("arena", "", memory("arena", ARENA_BYTES), 2)
    empty = bytes(3)
    rows = writer._quarantining.rows
    bad = Quarantine(1, "unreadable", "", None, {}, START, 2, 0, 3, 3, zlib.crc32(empty))
    assert [row.deliveries for row in rows([bad], 10)] == [(1,)]
    assert rows([msgspec.structs.replace(bad, arena=1)], 10) == []  # that one is gone


def test_who_is_suspected_when_encoding_kills() -> None:
    """A message that fits into memory as a catalog but not as what a writer gets is in its decoder's hands at that
    moment, and in nobody's while the writer is waited for."""
    around = Neighbourhood(CONFIG)
    decoder = Decoder(CONFIG, around.channels, around.row, "decoder-0")
    hands = InFlight(around.channels.memory[IN_FLIGHT], around.names)
    seen: list[Any] = []

    class Watched(Outbox):
        def encode(self, message: Any) -> bytes:
            seen.append(hands.held("decoder-0"))
            return super().encode(message)

        def send_encoded(self, message: bytes) -> bool:
            seen.append(hands.held("decoder-0"))
            return super().send_encoded(message)

    to_writer, to_receiver = link(), link()
    around.channels.outboxes = {"writer-0": Watched(to_writer[1], 1), "receiver": Outbox(to_receiver[1], 1)}
    decoder._pass([claim(7), Quarantine(8, "unreadable", "", "n.example.com", {}, START, 1, 0, 3, 3)])
    assert seen[0] == 8
    assert seen[1] is None
    assert [
        p.delivery for p in msgspec.msgpack.decode(to_receiver[0].recv_bytes(), type=list[Forwarded])
    ] == [
        7,
        8,
    ]


def test_a_decoder_has_room_for_the_memory_of_each_successor() -> None:
    """A receiver that is killed again and again brings new memory each time, while a body in the old one may still be looked
    at: after each the limit is moved along."""
    around = Neighbourhood(CONFIG)
    moved: list[int] = []

    class Limit:
        def renew(self) -> None:
            moved.append(max(around.channels.arenas))

    decoder = Decoder(CONFIG, around.channels, around.row, "decoder-0", Limit())  # type: ignore[arg-type]
    for number in (2, 3):
        fd = memory("arena", ARENA_BYTES)
        around.control.hand_over("arena", "", fd, number)
        os.close(fd)
    around.control.order("stop")
    with pytest.raises(Ended):
        decoder.loop()
    assert moved == [2, 3]


@pytest.mark.parametrize(
    ("program", "delivery_next", "is_killed"),
    [
        ("while True: pass", 7, True),
        ("while True: pass", 8, False),  # another message by now
        ("import time; time.sleep(60)", 7, False),  # it waits for a core, or the whole machine stood still
    ],
)
def test_a_message_is_blamed_for_its_decoders_own_time(
    program: str, delivery_next: int, is_killed: bool
) -> None:
    config = msgspec.structs.replace(CONFIG, decode_cpu_max_s=0.2)
    supervisor = Supervisor(config, lambda: config)
    child = supervisor.children["decoder-0"]
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            child.process = process
            supervisor._in_flight.hold("decoder-0", 7)
            supervisor._check(child)
            spent = time.monotonic if "sleep" in program else partial(cpu_s, process.pid)
            begin_s = spent()
            while spent() < begin_s + 0.3:
                time.sleep(0.01)
            supervisor._in_flight.hold("decoder-0", delivery_next)
            supervisor._check(child)
            if is_killed:
                assert process.wait(10) == -signal.SIGKILL
            else:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.1)
        finally:
            process.kill()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    config = msgspec.structs.replace(CONFIG, workers=2, queue_source="stomp://127.0.0.1:1")
    around = Neighbourhood(config)
    keep = [around.outbox_to(f"decoder-{n}") for n in range(2)]
    receiver = Receiver(config, around.channels, around.row)
    yield receiver
    for each in keep:
        each.close()


def arrive(receiver: Receiver, length: int, headers: dict[str, str] | None = None) -> None:
    receiver._take(Message({"message-id": "m", **(headers or {})}, 0, length, length))
    receiver._dispatch()


def test_the_largest_headers_fit_into_the_pipe(receiver: Receiver) -> None:
    """A receiver never waits for a decoder: all that it may have at one fits, however long and wide the headers are."""
    receiver._routing_key = lambda message: 0  # type: ignore[method-assign]
    wide = dict.fromkeys(KEPT, "\U0001f600" * 5000)
    for _ in range(DECODER_DEPTH):
        arrive(receiver, 1, wide)
    encoded = [msgspec.msgpack.encode(receiver._descriptor(d)) for d in receiver.ledger._deliveries.values()]
    assert sum(map(len, encoded)) < PIPE_BYTES / 2
    assert all(
        len(value.encode()) <= 1024
        for d in receiver.ledger._deliveries.values()
        for value in d.headers.values()
    )


def test_a_drain_without_a_broker_waits_for_events(receiver: Receiver) -> None:
    """Nothing connects again while draining, so the time of the next attempt, long past, wakes nobody."""
    assert receiver._timeout_s() == 0  # due at once
    receiver._draining = True
    assert receiver._timeout_s() > 0
