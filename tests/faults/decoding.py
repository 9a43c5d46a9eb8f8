"""A decoder's and a writer's own code around one body, without their processes: what the fuzzers shake."""

from __future__ import annotations

import mmap
import os
from types import SimpleNamespace
from typing import Any

import msgspec

from ingest.config.settings import Config
from ingest.core.delivery.work import Descriptor, Quarantine, Work
from ingest.engine.decoder import Decoder
from ingest.engine.kinds import works_type
from ingest.engine.process import process_names
from ingest.engine.writer import Writer
from ingest.ipc.arena import Arena, memory
from ingest.ipc.in_flight import InFlight
from ingest.ipc.names import DIGESTS, IN_FLIGHT
from ingest.ipc.process_metrics import MetricsTable
from ingest.ipc.stored_digests import StoredDigests
from ingest.store.quarantine import QuarantineRow
from lab.store_model import START

ARENA = 1
ARENA_BYTES = 64 * 1024 * 1024
_ENCODER, _WORKS = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(works_type())


class Bench:
    """One decoder and one writer that share an arena; ``take`` is what happens to one message."""

    def __init__(self) -> None:
        self.config = Config()
        self.slowest_s = 0.0
        self._arena = Arena(memory("fuzz", ARENA_BYTES))
        names = process_names(self.config)
        shared = {DIGESTS: _map(StoredDigests.size_bytes()), IN_FLIGHT: _map(InFlight.size_bytes(len(names)))}
        channels: Any = SimpleNamespace(memory=shared, arenas={ARENA: self._arena})
        row = MetricsTable(bytearray(MetricsTable.size(1))).row(0)
        self._decoder = Decoder(self.config, channels, row, "decoder-0")
        self._writer = Writer(self.config, channels, row, "writer-0")
        self._delivery = 0

    def take(
        self,
        body: bytes,
        headers: dict[str, str],
        *,
        complete: bool = False,
        verdict: tuple[str, str] | None = None,
    ) -> Work:
        """The work for the writer; raises nothing, or there is a fault in the engine."""
        self._delivery += 1
        view = self._put(body)
        descriptor = Descriptor(
            self._delivery, ARENA, 0, len(body), len(body), START, headers, complete, verdict
        )  # fmt: skip
        work = self._decoder._decode(descriptor, view)
        assert self._decoder._writer_of(work).startswith("writer-")
        assert _WORKS.decode(_ENCODER.encode([work])) == [work]  # the way to the writer
        if isinstance(work, Quarantine):
            self.row(work, body)
        return work

    def row(self, work: Work, body: bytes) -> QuarantineRow:
        assert isinstance(work, Quarantine)
        self._put(body)
        (row,) = self._writer._quarantining.rows([work], 1)
        return row

    def _put(self, body: bytes) -> memoryview:
        view = self._arena.view(0, len(body))
        view[:] = body
        return view


def _map(size_bytes: int) -> mmap.mmap:
    fd = os.memfd_create("ingest-fuzz")
    os.ftruncate(fd, size_bytes)
    try:
        return mmap.mmap(fd, 0)
    finally:
        os.close(fd)
