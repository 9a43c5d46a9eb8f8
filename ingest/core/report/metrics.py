"""A report's metrics: a shape of names, which hardly ever changes, and an array of numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from ingest.core import pgcopy
from ingest.core.report.model import MetricValue
from ingest.core.report.shared_content import clean, digest_of, value_text
from ingest.core.report.work import Metrics

_DOUBLE_INTEGER_MAX = 2**53  # up to there a double is every integer
_NUMBERS = frozenset((int, float))


class MetricShapes:
    """Remembers the last shape: mostly the next report has the same."""

    def __init__(self) -> None:
        self._key: tuple[list[str], list[str], list[type]] = ([], [], [])
        self._shape = self._names = b""
        self._are_numbers = True
        self._sent = 0  # a bit for each lane that was given the names

    def encode(self, metrics: Sequence[MetricValue], lane: int, *, everything: bool) -> Metrics:
        """With the names, if this lane (a bit) was not given them or ``everything`` is wanted; they count as given now."""
        values = [metric.value for metric in metrics]
        types = list(map(type, values))
        key = [metric.category for metric in metrics], [metric.name for metric in metrics], types
        if key != self._key or not self._shape:
            shape = [
                [clean(category), clean(name), isinstance(value, int)]
                for category, name, value in zip(*key[:2], values, strict=True)
            ]
            self._names = pgcopy.jsonb(json.dumps(shape, ensure_ascii=False).encode())
            self._shape, self._key, self._sent = digest_of(self._names), key, 0
            self._are_numbers = _NUMBERS.issuperset(types)
        names = self._names if everything or not self._sent & lane else None
        self._sent |= lane
        if self._are_numbers and _fit(values):
            return Metrics(self._shape, names, pgcopy.float8_array_zeros_null(values), None)
        return Metrics(self._shape, names, pgcopy.float8_array(()), value_text(values))


def _fit(numbers: Sequence[float]) -> bool:
    """Whether doubles hold all of them."""
    # All at once, for the many that do; what is not finite makes no such sum.
    try:
        if sum(map(abs, numbers)) <= _DOUBLE_INTEGER_MAX:
            return True
    except OverflowError:
        pass
    return all(map(_fits, numbers))


def _fits(value: float) -> bool:
    return abs(value) <= _DOUBLE_INTEGER_MAX if isinstance(value, int) else math.isfinite(value)
