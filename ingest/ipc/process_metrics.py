"""The table of metrics: numbers about the engine in shared memory.

Each process has a row that only it writes; whoever serves them reads all (``observe/exposition.py``). What there
is to measure stands in ``core/metrics.py``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from mmap import mmap

from ingest.core.metrics import METRICS


@cache
def _layout(metrics: int) -> tuple[tuple[int, ...], int]:
    """The first column of each of so many metrics, and how many columns there are.

    A histogram has its sum and a count for each bucket, the last one without a limit.
    """
    places, at = [], 0
    for metric in METRICS[:metrics]:
        places.append(at)
        at += len(metric.buckets) + 2 if metric.kind == "histogram" else 1
    return tuple(places), at


class ProcessMetrics:
    """One process's numbers; only that process writes them."""

    def __init__(self, cells: memoryview[float], places: Sequence[int]) -> None:
        self._cells = cells
        self._places = places  # of metrics

    def add(self, metric: int, n: float = 1) -> None:
        self._cells[self._places[metric]] += n

    def set(self, metric: int, value: float) -> None:
        self._cells[self._places[metric]] = value

    def value(self, metric: int) -> float:
        """What it says now; a successor of the process finds its predecessor's."""
        return self._cells[self._places[metric]]

    def observe(self, metric: int, value: float) -> None:
        at = self._places[metric]
        self._cells[at] += value
        self._cells[at + 1 + bisect_left(METRICS[metric].buckets, value)] += 1


class MetricsTable:
    """All rows, in shared memory that the caller supplies."""

    def __init__(self, memory: mmap | bytearray) -> None:
        self._cells: memoryview[float] = memoryview(memory).cast("d")
        self._places, self._columns = _layout(len(METRICS))

    @staticmethod
    def size(processes: int) -> int:
        """Bytes for so many rows."""
        return processes * _layout(len(METRICS))[1] * 8

    def row(self, process: int) -> ProcessMetrics:
        return ProcessMetrics(
            self._cells[process * self._columns : (process + 1) * self._columns], self._places
        )

    def value(self, process: int, metric: int) -> float:
        return self._cells[process * self._columns + self._places[metric]]

    def histogram(self, process: int, metric: int) -> tuple[float, list[float]]:
        """(sum, count of each bucket)."""
        at = process * self._columns + self._places[metric]
        return self._cells[at], list(self._cells[at + 1 : at + 2 + len(METRICS[metric].buckets)])
