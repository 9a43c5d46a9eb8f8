"""The settings of the processes and of what each may take; ``settings.Config`` has them with all others."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ingest.config.machine import cores, memory_bytes
from ingest.config.queue_settings import QueueSettings
from ingest.config.setting import About

MIB = 1024 * 1024
TIB = MIB * MIB

# Shares of the memory that there is, for machines and containers smaller than what the figures were measured on. From 4 GiB
# on (and 1.5 GiB a core) everything is as it was measured.
WORKERS = min(cores(), 256)
WINDOW_BYTES = min(256 * MIB, max(16 * MIB, memory_bytes() // 16))
CACHE_BYTES = min(96 * MIB, max(4 * MIB, memory_bytes() // 16 // WORKERS))
MESSAGE_BYTES = min(1024 * MIB, max(64 * MIB, memory_bytes() // 4))


class ProcessSettings(QueueSettings, frozen=True, kw_only=True):
    """How many, and what a message or a cache may cost."""

    workers: Annotated[
        int, Meta(ge=1, le=256), About("decoder processes; one a core that may be used", by_machine=True)
    ] = WORKERS
    writers: Annotated[
        int, Meta(ge=1, le=64), About("writer processes, each with one connection to the database")
    ] = 2
    window_messages_max: Annotated[
        int, Meta(ge=1, le=65535), About("unsettled messages; ActiveMQ's own default prefetch")
    ] = 1000
    window_bytes_max: Annotated[
        int,
        Meta(ge=MIB, le=TIB),
        About(
            "shared memory for unsettled bodies; 256 MiB, about 180 large catalogs, and a sixteenth of less than 4 GiB",
            by_machine=True,
        ),
    ] = WINDOW_BYTES
    body_bytes_max: Annotated[
        int,
        Meta(ge=1024, le=TIB),
        About(
            "one body; 64 MiB, twenty times the largest real catalog seen, and at most half of window_bytes_max",
            by_machine=True,
        ),
    ] = min(64 * MIB, WINDOW_BYTES // 2)
    decode_cpu_max_s: Annotated[
        float,
        Meta(ge=0.5, le=3600),
        About("CPU time of one message in a decoder, before it is killed", reloads=True),
    ] = 30.0
    decode_memory_bytes_max: Annotated[
        int,
        Meta(ge=64 * MIB, le=TIB),
        About(
            "what a decoder may allocate for a message; 1 GiB, and a quarter of less than 4 GiB",
            by_machine=True,
        ),
    ] = MESSAGE_BYTES
    decoder_cache_bytes_max: Annotated[
        int,
        Meta(ge=MIB, le=TIB),
        About(
            "each decoder's memory of resources that it knows; 96 MiB, and together a sixteenth of less memory",
            by_machine=True,
        ),
    ] = CACHE_BYTES
    writer_cache_entries: Annotated[
        int, Meta(ge=1000, le=100_000_000), About("ids that each writer remembers, at most 200 bytes each")
    ] = 400_000
    deaths_max: Annotated[
        int,
        Meta(ge=1, le=100),
        About(
            "processes that may die with one message in their hands before it is tried alone, and quarantined "
            "when another one dies of it"
        ),
    ] = 2
    alone_after_s: Annotated[
        float,
        Meta(ge=0, le=600),
        About(
            "how long such a message waits before it is tried alone: whoever killed those processes by chance "
            "has gone by then"
        ),
    ] = 10.0
