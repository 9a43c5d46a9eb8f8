"""How much of the less important kinds is given out at a time: what of them is in decoders and writers, a catalog that comes now
finds there.

Pure: the time is passed in, monotonic and in seconds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ingest.core.delivery.importance import CATALOG

DECODER_DEPTH = 32  # descriptors at one decoder: enough that it never waits for the receiver
# While a catalog is to be expected: so many, for each core but one, and the next ones when none of them is left. So they keep
# all cores but one busy at most, and no transaction of theirs is long. ``make bench-order``
BURST, BURST_BYTES = 8, 256 * 1024
# While catalogs wait for each other, or come all the time: what lies at a decoder, or is in decoders and writers together. With
# half of it whole runs go at nine tenths of the rate, with an eighth at half.
LESSER_DEPTH, LESSER_GIVEN_MAX = 16, 64
MANY_CATALOGS = 8  # that are not settled: the next one waits for those, whatever else is done
# Between two, at the mean: 36 000 nodes at half an hour. Bursts come thirty times a second and would not keep up with many more.
OFTEN_S = 0.05

# In a fleet whose catalogs come at random, the next one is later than so many times the mean gap once in three thousand.
GAPS = 8.0
GAP_WEIGHT = 0.25  # of the newest gap in the mean
EXPECTED_MIN_S, EXPECTED_MAX_S = 1.0, 60.0  # in a fleet of a hundred nodes the next comes within twenty


class Room(NamedTuple):
    """For one message."""

    depth: int  # how many may lie at its decoder before it
    is_apart: bool = False  # a decoder that no catalog comes to shall have it, where there is one


ALL_ROOM = Room(DECODER_DEPTH)


class Bursts:
    def __init__(self, at_work_max: int) -> None:
        """``at_work_max``: decoders that have a core."""
        self._burst_max = min(BURST * at_work_max, LESSER_GIVEN_MAX)
        self._count = self._bytes = 0  # given out since there was none in decoders and writers
        self._expecting = Expecting()

    def gave(self, rank: int, length: int, now_s: float, given: int) -> None:
        """One to a decoder, while so many of the less important ones were in decoders and writers."""
        if rank == CATALOG:
            self._expecting.came(now_s)
            return
        if not given:
            self._count = self._bytes = 0
        self._count += 1
        self._bytes += length

    def is_calm(self, now_s: float) -> bool:
        """No catalog is to be expected: there is all the room."""
        return not self._expecting.is_near(now_s)

    def room(
        self, length: int, now_s: float, *, given: int, catalogs: int, is_owed: bool, is_stuck: bool
    ) -> Room | None:
        """For one that is no catalog; None: it waits. ``catalogs`` are not settled, ``is_owed``: catalogs have had their turns,
        ``is_stuck``: some decoder is, and what it has is not waited for."""
        if not self._expecting.is_near(now_s):
            return ALL_ROOM
        if catalogs >= MANY_CATALOGS or self._expecting.gap_s < OFTEN_S or is_stuck:
            if given >= LESSER_GIVEN_MAX:
                return None
            return Room(DECODER_DEPTH if is_owed else LESSER_DEPTH)
        if given and (self._count >= self._burst_max or self._bytes + length > BURST_BYTES):
            return None
        return Room(DECODER_DEPTH, is_apart=True)


class Expecting:
    """Whether the next catalog is to be expected soon, by how far apart the last ones came."""

    def __init__(self) -> None:
        self._last_s = -math.inf
        self.gap_s = 0.0  # their mean

    def came(self, now_s: float) -> None:
        """A catalog."""
        self.gap_s += GAP_WEIGHT * (min(now_s - self._last_s, EXPECTED_MAX_S) - self.gap_s)
        self._last_s = now_s

    def is_near(self, now_s: float) -> bool:
        """The next one."""
        return now_s - self._last_s < min(max(GAPS * self.gap_s, EXPECTED_MIN_S), EXPECTED_MAX_S)
