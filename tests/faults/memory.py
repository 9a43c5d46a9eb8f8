"""What a process tree takes of the machine's memory: shared pages counted once (PSS of proc(5))."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.config.settings import Config
from lab.engine import Engine

MIB = 1024 * 1024
SAMPLE_S = 0.05
# A process with its interpreter and libraries, before it has seen a message: 25 to 45 MiB measured.
PROCESS_BYTES = 64 * MIB
CACHE_ENTRY_BYTES = 150  # of a writer; its setting says so


def limit_bytes(config: Config) -> int:
    """What the settings allow for the whole tree. The works on their way to a writer are bounded by the pipes and by
    one body a writer, as large as a decoder may make them."""
    processes = config.workers + config.writers + 2
    return (
        processes * PROCESS_BYTES
        + config.window_bytes_max
        + config.workers * (config.decode_memory_bytes_max + config.decoder_cache_bytes_max)
        + config.writers * (config.writer_cache_entries * CACHE_ENTRY_BYTES + 4 * config.batch_bytes_max)
        + config.writers * 4 * config.body_bytes_max
    )


def tree_bytes(engine: Engine) -> int:
    return sum(_pss_bytes(pid) for pid in (engine.process.pid, *engine.children().values()))


class Peak:
    """The most that was seen."""

    bytes = 0

    def __str__(self) -> str:
        return f"{self.bytes / MIB:.0f} MiB"


@contextmanager
def watched(engine: Engine) -> Iterator[Peak]:
    """Looks at the tree many times a second while the block runs."""
    peak = Peak()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_S):
            peak.bytes = max(peak.bytes, tree_bytes(engine))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
        peak.bytes = max(peak.bytes, tree_bytes(engine))


def _pss_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0  # it has just ended
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
