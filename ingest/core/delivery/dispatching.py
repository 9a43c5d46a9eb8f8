"""Which decoder gets which delivery, and when: as many as have a core to work on, and none that does not get on; what is
important first, and of the rest never so much at a time that a catalog that comes now would have to wait behind it.

Pure: the time is passed in, monotonic and in seconds; nothing is sent from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ingest.core.delivery.bursts import ALL_ROOM, DECODER_DEPTH, Bursts, Room
from ingest.core.delivery.importance import CATALOG, Turns
from ingest.core.delivery.ledger import Delivery, Ledger
from ingest.core.delivery.routing import choose, decoders_at_work

STUCK_S = 0.5  # ten times what the largest real catalog takes
# That no decoder has done yet, for each of them: what the cores' caches hold.
READ_AHEAD_BYTES = 8 * 1024 * 1024


class Dispatcher:
    def __init__(self, ledger: Ledger, decoders: Sequence[str], cores: int, lanes: int = 1) -> None:
        self._ledger = ledger
        self._decoders = decoders
        self._at_work_max = decoders_at_work(cores)
        self._moved_s: dict[str, float] = {}  # when a decoder last began or ended something
        self._reserved: str | None = None  # the decoder in which a suspect is tried alone
        self._turns = Turns()
        self._bursts = Bursts(self._at_work_max)
        self._lanes = lanes  # writers
        self._lane = 0  # of the burst that is being worked on
        self._is_in_burst = False  # the one that was looked at last would not be the first of a burst
        # Decoders that had all that they may have, and half of it is not done yet.
        self._full: set[str] = set()

    def moved(self, decoder: str, now_s: float) -> None:
        """It has passed something on."""
        self._moved_s[decoder] = now_s

    def due(self, now_s: float, *, is_last_chance: bool = False) -> dict[str, list[Delivery]]:
        """What is to be given to each decoder now; in the book it is there from now on. ``is_last_chance``: suspects do not
        wait any longer."""
        found: dict[str, list[Delivery]] = {}
        self._assign_suspect(found, math.inf if is_last_chance else now_s, now_s)
        decoders: list[str] = []
        while self._ledger.only_catalogs_wait:  # most of the time, and in a third of the time
            if (delivery := self._ledger.next()) is None:
                return found
            decoders = decoders or self._useful(now_s)
            if not decoders:
                return found
            decoder = choose(delivery.routing_key, decoders, self._ledger.count_at)
            if self._ledger.count_at(decoder) >= DECODER_DEPTH:
                return found
            self._assign(delivery, decoder, found, now_s)
        if (rank := self._ledger.lone_rank) is not None and self._bursts.is_calm(now_s):
            return self._give_all(rank, found, now_s)
        while any(waits := self._ledger.waits()):
            decoders = decoders or self._useful(now_s)
            if not decoders or not self._give_one(waits, decoders, found, now_s):
                break
        return found

    def _give_all(
        self, rank: int, found: dict[str, list[Delivery]], now_s: float
    ) -> dict[str, list[Delivery]]:
        """Of one rank that waits alone, while no catalog is to be expected: it has every turn, and all the room."""
        decoders = self._useful(now_s)
        self._turns.took(rank, self._ledger.waits())
        while decoders and (delivery := self._ledger.next(rank)) is not None:
            decoder = self._with_room(delivery, decoders, ALL_ROOM)
            if decoder is None:
                break
            self._assign(delivery, decoder, found, now_s)
        return found

    def _give_one(
        self, waits: list[bool], decoders: Sequence[str], found: dict[str, list[Delivery]], now_s: float
    ) -> bool:
        """The first, in the order of their turns, for which there is room. False: for none."""
        for rank in self._turns.order(waits):
            delivery = self._ledger.next(rank)
            assert delivery is not None
            decoder = self._decoder_for(delivery, decoders, now_s)
            if decoder is not None and self._is_in_burst and delivery.routing_key % self._lanes != self._lane:
                # One writer has all of a burst: one transaction instead of two, and the others are free for a catalog.
                other = self._ledger.next_of_lane(rank, self._lane, self._lanes)
                decoder = None if other is None else self._decoder_for(other, decoders, now_s)
                delivery = other or delivery
            if decoder is not None:
                self._assign(delivery, decoder, found, now_s)
                self._turns.took(rank, waits)
                return True
        return False

    def _decoder_for(self, delivery: Delivery, useful: Sequence[str], now_s: float) -> str | None:
        """None: it waits."""
        self._is_in_burst = False
        load = self._ledger.count_at
        if delivery.rank == CATALOG:
            decoder = choose(delivery.routing_key, useful, load)
            return decoder if load(decoder) < DECODER_DEPTH else None
        room = self._bursts.room(
            delivery.length,
            now_s,
            given=self._ledger.lesser_given,
            catalogs=self._ledger.unsettled(CATALOG)[0],
            is_owed=self._turns.is_owed(delivery.rank),
            is_stuck=any(self._is_stuck(decoder, now_s) for decoder in self._decoders),
        )
        if room is None:
            return None
        self._is_in_burst = room.is_apart and self._ledger.lesser_given > 0
        apart = [decoder for decoder in self._decoders if decoder not in (*useful, self._reserved)][-1:]
        decoders = apart if room.is_apart and apart else useful
        return self._with_room(delivery, decoders, room)

    def _with_room(self, delivery: Delivery, decoders: Sequence[str], room: Room) -> str | None:
        load = self._ledger.count_at
        decoder = choose(delivery.routing_key, decoders, load)
        if load(decoder) >= room.depth:
            decoder = min(decoders, key=load)
        return decoder if self._has_room(decoder, load(decoder), room) else None

    def _has_room(self, decoder: str, load: int, room: Room) -> bool:
        """A decoder is told of many small ones at once: to tell of each as another one ends wakes all that take part in it."""
        if load >= room.depth:
            self._full.add(decoder)
            return False
        if not room.is_apart and decoder in self._full and load > room.depth // 2:
            return False
        self._full.discard(decoder)
        return True

    def is_ahead(self, now_s: float) -> bool:
        """What nobody can decode yet stays with the broker: read now, it would be out of the cores' caches by then.
        What lies at a stuck decoder is not read ahead for the others: one hard message would stop them all."""
        most = READ_AHEAD_BYTES * self._at_work_max
        if self._ledger.undecoded_bytes < most:
            return False
        stuck = [decoder for decoder in self._decoders if self._is_stuck(decoder, now_s)]
        return self._ledger.undecoded_bytes - sum(map(self._ledger.bytes_at, stuck)) >= most

    def _assign(
        self, delivery: Delivery, decoder: str, found: dict[str, list[Delivery]], now_s: float
    ) -> None:
        if not self._ledger.count_at(decoder):
            self._moved_s[decoder] = now_s
        if delivery.rank != CATALOG and not self._ledger.lesser_given:
            self._lane = delivery.routing_key % self._lanes
        self._bursts.gave(delivery.rank, delivery.length, now_s, self._ledger.lesser_given)
        found.setdefault(decoder, []).append(delivery)
        self._ledger.assign(delivery, decoder)

    def _assign_suspect(self, found: dict[str, list[Delivery]], due_by_s: float, now_s: float) -> None:
        """One that is due, to a decoder that has nothing else, and gets nothing else meanwhile."""
        if self._reserved is not None and self._ledger.has_suspect(self._reserved):
            return
        suspect = self._ledger.next_suspect(due_by_s)
        if suspect is None:
            self._reserved = None
            return
        if self._reserved is None:
            self._reserved = min(self._decoders, key=self._ledger.count_at)
        if not self._ledger.count_at(self._reserved):
            self._assign(suspect, self._reserved, found, now_s)

    def _useful(self, now_s: float) -> list[str]:
        """One less than there are cores: each keeps a cache of its own, and more of them would only share the cores
        and know less; the rest of the engine takes about one. One that does not get on (a hard message, a
        blocked writer) counts as none."""
        found: list[str] = []
        working = 0
        for decoder in self._decoders:
            if decoder == self._reserved:
                continue
            found.append(decoder)
            working += not self._is_stuck(decoder, now_s)
            if working >= self._at_work_max:
                break
        return found

    def _is_stuck(self, decoder: str, now_s: float) -> bool:
        return self._ledger.count_at(decoder) > 0 and now_s - self._moved_s.get(decoder, now_s) > STUCK_S
