"""The table of metrics: numbers about the engine in shared memory.

Each process has a row that only it writes; whoever serves them reads all (``telemetry.py``). What there is to
measure stands in ``metrics.py``.
"""

from __future__ import annotations

from bisect import bisect_left
from mmap import mmap

from ingest.core.metrics import METRICS


def _layout() -> tuple[tuple[int, ...], int]:
    """The first column of each metric, and how many columns there are.

    A histogram has its sum and a count for each bucket, the last one without a limit.
    """
    places, at = [], 0
    for metric in METRICS:
        places.append(at)
        at += len(metric.buckets) + 2 if metric.kind == "histogram" else 1
    return tuple(places), at


_PLACES, _COLUMNS = _layout()


class ProcessMetrics:
    """One process's numbers; only that process writes them."""

    def __init__(self, cells: memoryview[float]) -> None:
        self._cells = cells

    def add(self, metric: int, n: float = 1) -> None:
        self._cells[_PLACES[metric]] += n

    def set(self, metric: int, value: float) -> None:
        self._cells[_PLACES[metric]] = value

    def value(self, metric: int) -> float:
        """What it says now; a successor of the process finds its predecessor's."""
        return self._cells[_PLACES[metric]]

    def observe(self, metric: int, value: float) -> None:
        at = _PLACES[metric]
        self._cells[at] += value
        self._cells[at + 1 + bisect_left(METRICS[metric].buckets, value)] += 1


class MetricsTable:
    """All rows, in shared memory that the caller supplies."""

    def __init__(self, memory: mmap | bytearray) -> None:
        self._cells: memoryview[float] = memoryview(memory).cast("d")

    @staticmethod
    def size(processes: int) -> int:
        """Bytes for so many rows."""
        return processes * _COLUMNS * 8

    def row(self, process: int) -> ProcessMetrics:
        return ProcessMetrics(self._cells[process * _COLUMNS : (process + 1) * _COLUMNS])

    def value(self, process: int, metric: int) -> float:
        return self._cells[process * _COLUMNS + _PLACES[metric]]

    def histogram(self, process: int, metric: int) -> tuple[float, list[float]]:
        """(sum, count of each bucket)."""
        at = process * _COLUMNS + _PLACES[metric]
        return self._cells[at], list(self._cells[at + 1 : at + 2 + len(METRICS[metric].buckets)])
