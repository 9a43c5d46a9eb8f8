"""The receiver's book of deliveries that are not settled: where each one is, and who gets it next.

Pure bookkeeping: no socket, no clock. A delivery is waiting, at a decoder or at a writer. When one of those
dies its deliveries wait again, and the one that it had in its hands counts a death. After ``deaths_max`` of them it is a
suspect: processes are also killed by chance, so it waits aside for a while and is then tried alone. Is it in the hands
of a dead one then too, it is condemned, so that one message cannot kill the engine for ever. One that kills even on its
way to quarantine goes there without its body.

What processes get of a delivery is an attempt, with a number of its own. When it is given out again, only the new attempt's
report counts: else an earlier one that was still on its way could settle it, and its body's place would be given to
another message while the new attempt is reading it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime
from itertools import islice

import msgspec

from ingest.core.delivery.importance import CATALOG, FACTS, RANKS, REPORT
from ingest.core.delivery.work import KILLED, Outcome, Settled

# An attempt's number: the delivery's id below, the how manieth it is above. Old ones are gone long before the count begins
# again.
_ATTEMPT_SHIFT = 56
_ATTEMPTS = 128  # the number stays below 2**63
LANE_LOOKED_AT = 64  # more than enough to find eight of one writer in two
_ID_MASK = (1 << _ATTEMPT_SHIFT) - 1


class Delivery(msgspec.Struct):
    """One message between its arrival and its acknowledgement."""

    id: int
    epoch: int  # of the connection it came on; acknowledged there or not at all
    ack: str
    message_id: str
    offset: int  # -1: the body was passed over
    length: int
    body_bytes: int
    received_at: datetime
    received_s: float  # monotonic
    headers: dict[str, str]
    stamped_at: datetime | None = None
    is_decoded: bool = False
    holder: str | None = None  # the process that has it; None: waiting
    complete: bool = False
    deaths: int = 0
    deaths_condemned: int = 0  # of them, since there is a verdict
    alone_at_s: float | None = None  # of a suspect: not to be tried before
    is_bare: bool = False  # nobody shall look at its body any more
    verdict: tuple[str, str] | None = None
    routing_key: int = 0
    given_again: int = 0  # how often
    subscription: str = ""  # on which it came: acknowledged there
    rank: int = CATALOG  # how important it is

    @property
    def attempt(self) -> int:
        """The number by which processes speak of it now."""
        return self.id | self.given_again % _ATTEMPTS << _ATTEMPT_SHIFT


class Ledger:
    """Bounded by its owner: ``messages`` says how full the window is, ``undecoded_bytes`` how much of it the decoders
    have before them, counted of the most important rank alone: the rest waits for that."""

    def __init__(self, deaths_max: int, alone_after_s: float = 0.0) -> None:
        self.undecoded_bytes = 0
        self._deaths_max = deaths_max
        self._alone_after_s = alone_after_s
        self._suspects: deque[int] = deque()
        self._deliveries: dict[int, Delivery] = {}  # in the order of arrival
        self._of_rank: tuple[dict[int, Delivery], ...] = tuple({} for _ in RANKS)  # the same, by rank
        self._waiting: tuple[deque[int], ...] = tuple(deque() for _ in RANKS)
        self._lesser_given = 0
        self._at: dict[str, set[int]] = {}

    @property
    def messages(self) -> int:
        return len(self._deliveries)

    @property
    def waiting(self) -> int:
        # Not the queue's length: what was passed on or settled while it waited still stands there.
        return len(self._deliveries) - sum(map(len, self._at.values()))

    def count_at(self, process: str) -> int:
        """How many deliveries that process has."""
        return len(self._at.get(process, ()))

    @property
    def lesser_given(self) -> int:
        """How many deliveries that are not of the most important rank processes have."""
        return self._lesser_given

    def bytes_at(self, process: str) -> int:
        """Of the most important rank."""
        deliveries = (self._deliveries[id_] for id_ in self._at.get(process, ()))
        return sum(delivery.length for delivery in deliveries if delivery.rank == CATALOG)

    def oldest(self) -> Delivery | None:
        return next(iter(self._deliveries.values()), None)

    def unsettled(self, rank: int) -> tuple[int, Delivery | None]:
        """How many of that rank there are, and the oldest."""
        deliveries = self._of_rank[rank]
        return len(deliveries), next(iter(deliveries.values()), None)

    def oldest_of(self, epoch: int) -> Delivery | None:
        """Of those that came on that connection: what went back to the broker with an earlier one ages no more."""
        return next((each for each in self._deliveries.values() if each.epoch == epoch), None)

    def add(self, delivery: Delivery) -> None:
        self._deliveries[delivery.id] = self._of_rank[delivery.rank][delivery.id] = delivery
        self._waiting[delivery.rank].append(delivery.id)
        if delivery.rank == CATALOG:
            self.undecoded_bytes += delivery.length

    def next(self, rank: int = CATALOG) -> Delivery | None:
        """The delivery of that rank that is due for a decoder; it stays waiting until ``assign``."""
        waiting = self._waiting[rank]
        while waiting:
            delivery = self._deliveries.get(waiting[0])
            if delivery is not None and delivery.holder is None:
                return delivery
            waiting.popleft()
        return None

    def next_of_lane(self, rank: int, lane: int, lanes: int) -> Delivery | None:
        """The first of that lane among the next ones, as far as their routing keys tell; it stays waiting until ``assign``."""
        for id_ in islice(self._waiting[rank], LANE_LOOKED_AT):
            delivery = self._deliveries.get(id_)
            if delivery is not None and delivery.holder is None and delivery.routing_key % lanes == lane:
                return delivery
        return None

    @property
    def only_catalogs_wait(self) -> bool:
        return not (self._waiting[FACTS] or self._waiting[REPORT])

    @property
    def lone_rank(self) -> int | None:
        """The one rank of which something waits, if there is but one."""
        waiting = [rank for rank, its in enumerate(self._waiting) if its]
        return waiting[0] if len(waiting) == 1 else None

    def waits(self) -> list[bool]:
        """By rank, whether something is due for a decoder."""
        return [bool(waiting) and self.next(rank) is not None for rank, waiting in enumerate(self._waiting)]

    def next_suspect(self, now_s: float) -> Delivery | None:
        """The suspect that is due to be tried alone; it stays so until ``assign``."""
        for id_ in self._suspects:
            delivery = self._deliveries[id_]
            assert delivery.alone_at_s is not None
            if delivery.alone_at_s <= now_s:
                return delivery
        return None

    def has_suspect(self, process: str) -> bool:
        return any(self._is_suspect(self._deliveries[id_]) for id_ in self._at.get(process, ()))

    def assign(self, delivery: Delivery, process: str) -> None:
        waiting = self._waiting[delivery.rank]
        if waiting and waiting[0] == delivery.id:
            waiting.popleft()
        self._move(delivery, process)

    def forwarded(self, attempt: int, writer: str | None) -> None:
        """A decoder handed it to that writer; None: the writer was gone, it waits again."""
        delivery = self._find(attempt)
        if delivery is None:
            return
        if writer is None:
            self._requeue([delivery])
        else:
            self._move(delivery, writer, is_decoded=True)

    def settle(self, settled: Settled) -> Delivery | None:
        """The delivery, now out of the book; None when it was settled before, or is to be decoded again."""
        delivery = self._find(settled.delivery)
        if delivery is None:
            return None
        if settled.outcome is Outcome.REDO:
            delivery.complete = True
            delivery.verdict = settled.verdict or delivery.verdict
            self._requeue([delivery])
            return None
        self._move(delivery, None, is_decoded=True)
        del self._deliveries[delivery.id], self._of_rank[delivery.rank][delivery.id]
        return delivery

    def reassign(self, process: str, in_flight: int | None, now_s: float = 0.0) -> Delivery | None:
        """That process died: its deliveries wait again, in their old order. Returns the one that it had in its hands,
        with what is now thought of it."""
        deliveries = [self._deliveries[id_] for id_ in sorted(self._at.get(process, ()))]
        held = None if in_flight is None else self._deliveries.get(in_flight & _ID_MASK)
        if held is not None and held.holder == process:
            self._blame(held, now_s)
        else:
            held = None
        self._requeue(deliveries)
        return held

    def _blame(self, delivery: Delivery, now_s: float) -> None:
        delivery.deaths += 1
        died = f"{delivery.deaths} processes died while they had this message in their hands"
        if delivery.verdict is not None:
            delivery.deaths_condemned += 1
            if delivery.deaths_condemned >= self._deaths_max and not delivery.is_bare:
                delivery.is_bare = True
                if delivery.verdict[0] != KILLED:
                    delivery.verdict = (KILLED, f"{died}, on its way to quarantine as {delivery.verdict[0]}")
        elif delivery.alone_at_s is not None:
            delivery.verdict = (KILLED, f"{died}, the last of them with nothing else")
        elif delivery.deaths >= self._deaths_max:
            delivery.alone_at_s = now_s + self._alone_after_s

    def _find(self, attempt: int) -> Delivery | None:
        """The delivery of which this is the attempt that counts."""
        delivery = self._deliveries.get(attempt & _ID_MASK)
        return delivery if delivery is not None and delivery.attempt == attempt else None

    def _requeue(self, deliveries: Iterable[Delivery]) -> None:
        ordered = list(deliveries)
        for delivery in ordered:
            self._move(delivery, None)
            delivery.given_again += 1
            if self._is_suspect(delivery):
                self._suspects.append(delivery.id)
        for delivery in reversed(ordered):
            if not self._is_suspect(delivery):
                self._waiting[delivery.rank].appendleft(delivery.id)

    def _is_suspect(self, delivery: Delivery) -> bool:
        return delivery.alone_at_s is not None and delivery.verdict is None

    def _move(self, delivery: Delivery, process: str | None, *, is_decoded: bool = False) -> None:
        if delivery.is_decoded != is_decoded:
            if delivery.rank == CATALOG:
                self.undecoded_bytes += -delivery.length if is_decoded else delivery.length
            delivery.is_decoded = is_decoded
        if delivery.rank != CATALOG:
            self._lesser_given += (process is not None) - (delivery.holder is not None)
        if delivery.holder is not None:
            self._at[delivery.holder].discard(delivery.id)
        elif self._suspects and delivery.id in self._suspects:
            self._suspects.remove(delivery.id)
        if process is not None:
            self._at.setdefault(process, set()).add(delivery.id)
        delivery.holder = process
