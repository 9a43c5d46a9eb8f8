"""What an engine leaves on the machine: processes, named shared memory, files."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path

# In /dev/shm, of servers and libraries that other tests use at the same time.
OTHERS_SHARED_MEMORY = ("postgresql", "faketime", "sem.faketime")


class Traces:
    """Made before the first engine, which gets ``environment``: every descendant inherits the mark in it."""

    def __init__(self, directory: Path) -> None:
        self._mark = f"FAULTS_MARK={uuid.uuid4().hex}"
        self._files = directory / "tmp"
        self._files.mkdir()
        self._shared_memory = set(os.listdir("/dev/shm"))

    @property
    def environment(self) -> dict[str, str]:
        name, _, value = self._mark.partition("=")
        return {name: value, "TMPDIR": str(self._files)}

    def processes(self) -> dict[int, str]:
        """Whoever their parent is now."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        words = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                        found[int(entry.name)] = words.decode()
        return found

    def left(self, patience_s: float = 5.0) -> list[str]:
        """After the engine's end; processes get that long to follow it."""
        deadline = time.monotonic() + patience_s
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.01)
        found = [f"process {pid}: {words}" for pid, words in self.processes().items()]
        found += [
            f"/dev/shm/{name}"
            for name in set(os.listdir("/dev/shm")) - self._shared_memory
            if not name.lower().startswith(OTHERS_SHARED_MEMORY)
        ]
        return found + [str(file) for file in self._files.rglob("*")]
