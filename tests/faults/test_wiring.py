"""A neighbour that dies and is replaced at the wrong moment blocks nobody."""

from __future__ import annotations

import mmap
import threading

import pytest

from ingest.board import Board
from ingest.channels import Hands, Known, ParentControl, Wires, link, memory
from ingest.config import Config
from ingest.core.work import Descriptor, Work
from ingest.decoder import Decoder
from ingest.processes import Ended, process_names
from ingest.writer import Writer

CONFIG = Config(workers=1, writers=1, database="host=127.0.0.1 port=1", connect_timeout_s=0.1)


@pytest.mark.parametrize(("kind", "peer"), [(Decoder, "receiver"), (Writer, "decoder-0")])
def test_an_end_and_its_replacement_in_one_round(kind: type[Decoder] | type[Writer], peer: str) -> None:
    """The old inbox is ready (it has ended) and so is the control socket (with its successor, which is empty): the
    process goes on to what the supervisor says next."""
    control = ParentControl()
    wires = Wires(control.child, {"receiver": Descriptor, "decoder": Work})
    names = process_names(CONFIG)
    for role, size in (("known", Known.size_bytes()), ("hands", Hands.size_bytes(len(names)))):
        control.hand_over(role, "", memory(role, size))
        wires.control()
    old_receiving, old_sending = link()
    control.hand_over("inbox", peer, old_receiving.fileno(), 1)
    wires.control()
    new_receiving, _kept_open = link()
    control.hand_over(
        "inbox", peer, new_receiving.fileno(), 2
    )  # first: it is first in the list of what is ready
    old_sending.close()
    row = Board(mmap.mmap(-1, Board.size(len(names)))).row(0)
    process = kind(CONFIG, wires, row, names[1] if kind is Decoder else names[2])
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
