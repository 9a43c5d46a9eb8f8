"""What each process of an engine may take, and what it takes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ingest.config.settings import Config
from ingest.engine.decoder import KEPT_BESIDE_BYTES, KEPT_SHARE
from lab.engine import Engine
from tests.faults.memory import CACHE_ENTRY_BYTES, MIB, PROCESS_BYTES

SAMPLE_S = 0.1


def bound_bytes(process: str, config: Config) -> int:
    """Of its own memory, without the window that all share; docs/operating.md says the same."""
    kind = process.partition("-")[0]
    if kind == "decoder":
        # A message's own share, on top of what the decoder keeps of others.
        kept = int(config.decoder_cache_bytes_max * KEPT_SHARE) + KEPT_BESIDE_BYTES
        return PROCESS_BYTES + config.decode_memory_bytes_max + kept
    if kind == "writer":
        # A batch and one body beyond it, as it came, redacted, and as a parameter of a statement.
        batch = 4 * (config.batch_bytes_max + config.body_bytes_max)
        return PROCESS_BYTES + config.writer_cache_entries * CACHE_ENTRY_BYTES + batch
    return PROCESS_BYTES + 32 * MIB


class Watch:
    """The most that each process had, and the events of its end."""

    def __init__(self, engine: Engine) -> None:
        self.peaks: dict[str, int] = {}
        self._engine = engine

    def look(self) -> None:
        for name, pid in {"supervisor": self._engine.process.pid, **self._engine.children()}.items():
            self.peaks[name] = max(self.peaks.get(name, 0), own_bytes(pid))

    def over(self, config: Config) -> dict[str, str]:
        """Who was above its bound."""
        return {
            name: f"{peak // MIB} MiB, bound {bound_bytes(name, config) // MIB} MiB"
            for name, peak in self.peaks.items()
            if peak > bound_bytes(name, config)
        }

    def deaths(self) -> list[dict[str, Any]]:
        return [line for line in self._engine.lines() if line.get("event") == "child_died"]


@contextmanager
def watched(engine: Engine) -> Iterator[Watch]:
    """Looks at every process many times a second while the block runs."""
    watch = Watch(engine)
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(SAMPLE_S):
            watch.look()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def own_bytes(pid: int) -> int:
    """What a process has of its own; 0 for one that has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
