"""When a batch is closed: the rules of a writer, as values. Times are monotonic and in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from ingest.core.delivery.importance import CATALOG, RANKS, Turns

Work = TypeVar("Work")

# So many times the linger without a batch are a pause: nobody is to be expected, and the first item is not kept waiting
# for company.
PAUSE_LINGERS = 2
# What no compile waits for goes on waiting while company keeps coming, until so many are there, or for so many lingers: in a
# transaction of thirty each takes half of what it does in one of eight. With more in each of two writers a window of reports
# (windows.py) has nothing left for the decoders. What comes in bursts (bursts.py) has no company, and does not wait.
COMPANY_ENOUGH = 32
COMPANY_LINGERS = 5
COMPANY_WITHIN = 1 / 4  # of a linger: what comes later than that is none


class BatchLimits(NamedTuple):
    messages_max: int
    bytes_max: int
    linger_s: float


def linger_s(limits: BatchLimits, since_last_batch_s: float) -> float:
    """How long the first item of a batch waits for company."""
    return limits.linger_s if since_last_batch_s < PAUSE_LINGERS * limits.linger_s else 0.0


class Waiting:
    """Until when the batch at hand waits for company."""

    def __init__(self) -> None:
        self.rank: int | None = None  # of the most important in it
        self.due_s: float | None = None
        self._began_s = self._came_s = 0.0
        self._lingers = False  # not after a pause

    def begin(self, rank: int, linger_s: float, now_s: float) -> None:
        """The first is there, or one that is more important than the rest: it does not wait for as long as that would."""
        if self.due_s is None:
            self._began_s = now_s
            self._lingers = linger_s > 0
        self.rank = rank
        self.due_s = now_s + linger_s if self.due_s is None else min(self.due_s, now_s + linger_s)

    def came(self, now_s: float) -> None:
        """Something for it."""
        self._came_s = now_s

    def has_enough(self, count: int) -> bool:
        """With so many in it: a batch of catalogs is over when it is due, or full."""
        return self.rank is not None and self.rank != CATALOG and count >= COMPANY_ENOUGH

    def goes_on(self, limits: BatchLimits, now_s: float) -> bool:
        """Now that it is due: whether it waits a little longer."""
        if self.due_s is None or self.rank == CATALOG or not self._lingers:
            return False
        soon_s = COMPANY_WITHIN * limits.linger_s
        if now_s - self._came_s >= soon_s or now_s - self._began_s >= COMPANY_LINGERS * limits.linger_s:
            return False
        self.due_s = now_s + soon_s
        return True


class Gathering(Generic[Work]):
    """The work that came and is not in a batch yet. ``limits`` may change between two batches.

    A batch is of one rank, the most important that waits: a transaction is as long as all that is in it. What was passed
    often enough goes along.
    """

    def __init__(self, limits: BatchLimits, rank_of: Callable[[Work], int] = lambda _: CATALOG) -> None:
        self.limits = limits
        self._rank_of = rank_of
        self._works: list[list[Work]] = [[] for _ in RANKS]
        self._bytes = [0] * len(RANKS)
        self._last_bytes = [0] * len(RANKS)  # of what came together last
        self._turns = Turns()

    def __bool__(self) -> bool:
        return any(self._works)

    def __len__(self) -> int:
        return sum(map(len, self._works))

    @property
    def is_full(self) -> bool:
        return len(self) >= self.limits.messages_max or sum(self._bytes) >= self.limits.bytes_max

    @property
    def rank(self) -> int | None:
        """Of the most important that is here."""
        return next((rank for rank, works in enumerate(self._works) if works), None)

    def add(self, works: Sequence[Work], together_bytes: int) -> None:
        """What came together."""
        ranks = [self._rank_of(work) for work in works]
        for rank, work in zip(ranks, works, strict=True):
            self._works[rank].append(work)
        for rank in set(ranks):  # of mixed ones each counts as all: rare, and on the safe side
            self._bytes[rank] += together_bytes
            self._last_bytes[rank] = together_bytes

    def take(self) -> list[Work]:
        """The batch. What came together with its last ones may be too many: that begins the next one, and counts there as
        all that came with it, because a whole catalog may stand behind the claims."""
        waits = [bool(works) for works in self._works]
        order = self._turns.order(waits)
        chosen = [rank for rank in order if self._turns.is_owed(rank)]
        chosen += [rank for rank in order if rank not in chosen][:1]
        batch: list[Work] = []
        for rank in chosen:
            most = self.limits.messages_max - len(batch)
            part, self._works[rank] = self._works[rank][:most], self._works[rank][most:]
            self._bytes[rank] = self._last_bytes[rank] if self._works[rank] else 0
            batch += part
            if part:
                self._turns.took(rank, waits, len(part))
        return batch
