"""The machine that a calibration is made on."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from ingest.capacity.calibration import Machine
from ingest.config.machine import cores, memory_bytes


def machine(postgresql: str) -> Machine:
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
    return Machine(
        cores=cores(),
        cpu=cpu,
        memory_bytes=memory_bytes(),
        system=platform.platform(),
        python=platform.python_version(),
        postgresql=postgresql,
    )


def commit() -> str:
    """Of the checkout that this program runs from; an installed one has none."""
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


_CROWD = """
import json, time, hashlib
text = json.dumps([{"title": f"file {n}", "tags": ["a", "b", "c"], "parameters": {"n": n}} for n in range(4000)])
json.loads(text)
before = time.process_time()
for _ in range(25):
    json.loads(text)
    hashlib.sha256(text.encode()).digest()
print(time.process_time() - before)
"""


def crowding(times: int) -> list[float]:
    """CPU time of one piece of work with all cores busy, over that of the same with one busy, so many times. Shared
    caches, shared arithmetic units and clocks that depend on load make it larger than one. A neighbour on the same
    host disturbs single ones: each compares what it measured at once, and their median means something."""
    return [work_s(cores()) / work_s(1) for _ in range(times)]


def work_s(size: int) -> float:
    """CPU seconds that a fixed piece of work takes while so many processes do it."""
    processes = [
        subprocess.Popen([sys.executable, "-c", _CROWD], stdout=subprocess.PIPE, text=True)
        for _ in range(size)
    ]
    return min(float(process.communicate()[0]) for process in processes)
