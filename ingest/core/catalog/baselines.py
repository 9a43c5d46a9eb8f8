"""The baselines that are remembered, and which one a catalog is compared with."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

from ingest.core.catalog.array_delta import RESOURCES, Difference, differences
from ingest.core.catalog.baseline import NOWHERE, Baseline, Place
from ingest.core.catalog.layout import Layout

NEAR = 2  # baselines on either side of a length are looked at,
SAMPLES = 16  # so many resources of each,
SAMPLE_SHIFT_MAX = 2048  # up to so many bytes from where they stood
SAMPLE_BYTES_MAX = 4096  # of a large one


class Comparison(NamedTuple):
    """What a catalog's resources have otherwise than a baseline's."""

    baseline: Baseline
    differences: list[Difference]

    @property
    def same(self) -> int:
        """How many resources are the same."""
        gone = sum(difference.end - difference.begin for difference in self.differences)
        return len(self.baseline.resources) - gone


class Baselines:
    """The last ones of each kind of catalog. They are found by their bodies' lengths, which differ little in a role, and of
    those that are near the one is taken that has most in common: a role may be on its way from one release to the next.
    """

    def __init__(self, bytes_max: int) -> None:
        self._by_place: dict[Place, Baseline] = {}  # the one that was used last is the last
        self._places: list[Place] = []  # ascending
        self._bytes_max = bytes_max
        self._bytes = 0
        self._count = 0

    def near(self, length: int) -> list[Baseline]:
        """Those whose lengths are next to that, the nearest first."""
        at = bisect_left(self._places, (length, 0))
        near = self._places[max(0, at - NEAR) : at + NEAR]
        return [self._by_place[place] for place in sorted(near, key=lambda place: abs(place[0] - length))]

    def likely_layout(self, length: int) -> Layout | None:
        """That of a body of about that length."""
        near = self.near(length)
        return near[0].layout if near else None

    def compare(self, section: memoryview, length: int, family: str) -> Comparison | None:
        """That catalog's resources with those of the one most like it; None when only a parse of all can tell."""
        baseline = self.most_alike(section, length, family)
        if baseline is None or baseline.array is None:
            return None
        found = differences(section, baseline.array, RESOURCES)
        return None if found is None else Comparison(baseline, found)

    def most_alike(self, section: memoryview, length: int, family: str) -> Baseline | None:
        best, most = None, -1
        for baseline in self.near(length):
            if baseline.family == family and (like := likeness(section, baseline)) > most:
                best, most = baseline, like
                if like == SAMPLES:
                    break
        if best is not None:
            self._by_place[best.place] = self._by_place.pop(best.place)
        return best

    def put(self, baseline: Baseline, length: int) -> None:
        """Of a body of that length. The one that it was made from stays, but not the one that this was made from."""
        if baseline.bytes_ > self._bytes_max // 4:
            return  # not for one all others
        if (parent := self._by_place.get(baseline.parent)) is not None:
            self._forget(parent.parent)
        self._count += 1
        baseline.place = (length, self._count)
        self._by_place[baseline.place] = baseline
        insort(self._places, baseline.place)
        self._bytes += baseline.bytes_
        for resource in baseline.resources:
            resource.baselines += 1
        while self._bytes > self._bytes_max:
            self.forget_oldest()

    def forget_oldest(self) -> bool:
        """The one that was not used for longest; False when there is none."""
        place = next(iter(self._by_place), NOWHERE)
        self._forget(place)
        return place != NOWHERE

    def _forget(self, place: Place) -> None:
        baseline = self._by_place.pop(place, None)
        if baseline is not None:
            del self._places[bisect_left(self._places, place)]
            self._bytes -= baseline.bytes_
            for resource in baseline.resources:
                resource.baselines -= 1


def likeness(section: memoryview, baseline: Baseline) -> int:
    """How many of ``SAMPLES`` of the baseline's resources stand in that section as they stood, and near where they stood."""
    if baseline.array is None:
        return 0
    old, starts = baseline.array
    found = 0
    for sample in range(SAMPLES):
        place = sample * (len(starts) - 1) // SAMPLES
        begin = starts[place]
        text = old[begin : min(starts[place + 1] - 1, begin + SAMPLE_BYTES_MAX)]
        found += text in bytes(
            section[max(0, begin - SAMPLE_SHIFT_MAX) : begin + len(text) + SAMPLE_SHIFT_MAX]
        )
    return found
