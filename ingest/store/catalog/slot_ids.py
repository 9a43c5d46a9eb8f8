"""The ids of a catalog's resources by slot, told from those of the last catalog that is like it.

The nodes of a role have nearly the same digests in the same slots. What is the same needs no lookup: a thousand of
them for each catalog that changed were most of a writer's own work.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from ingest.core.delivery.work import DIGEST_BYTES

LISTS_MAX = 256
LISTS_BYTES_MAX = 16 * 1024 * 1024  # of all of them; 256 lists of 1000 resources, a median node's, take 6 MB
_LIST_BYTES = 700  # beside the digest and the id of each resource
_TOGETHER_BYTES = 16 * DIGEST_BYTES
_DIFFERENCES_MAX = 64  # beyond these it is another kind of catalog


class SlotIds:
    """One catalog's digests, and their ids when they are found."""

    def __init__(self, digests: bytes, like: SlotIds | None) -> None:
        self.digests = digests
        self.count = len(digests) // DIGEST_BYTES
        differing = None if like is None else _differing(digests, like.digests)
        self.open: Sequence[int] = range(self.count) if differing is None else differing
        self.ids = array("i")
        self.missing: set[int] = set()  # slots
        self._like = None if differing is None else like

    def wanted(self) -> list[bytes]:
        """The digests whose ids ``fill`` must be given."""
        return [self._digest(slot) for slot in self.open]

    def fill(self, ids: Mapping[bytes, int]) -> None:
        """After that of the catalog that this one is like."""
        like, self._like = self._like, None
        if like is None:
            self.ids = array("i", bytes(4 * self.count))
        else:
            self.ids = like.ids[:]
            self.missing = like.missing.difference(self.open)
        for slot, digest in zip(self.open, self.wanted(), strict=True):
            id_ = ids.get(digest)
            if id_ is None:
                self.missing.add(slot)
            else:
                self.ids[slot] = id_
        self.open = ()

    def _digest(self, slot: int) -> bytes:
        return self.digests[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES]


class SlotIdCache:
    """The last catalog with each number of slots. Those of a transaction count for later ones when it has committed: a
    rolled back row has no id."""

    def __init__(self, bytes_max: int = LISTS_BYTES_MAX) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._last: dict[int, SlotIds] = {}
        self._fresh: dict[int, SlotIds] = {}

    def of(self, digests: bytes) -> SlotIds:
        count = len(digests) // DIGEST_BYTES
        slots = self._fresh[count] = SlotIds(digests, self._fresh.get(count) or self._last.get(count))
        return slots

    def committed(self) -> None:
        for count, slots in self._fresh.items():
            # One that takes a quarter of the room would push too many others out.
            if slots.missing or 4 * _bytes_of(count) > self._bytes_max:
                continue
            if self._last.pop(count, None) is None:
                self.bytes += _bytes_of(count)
            self._last[count] = slots
        while len(self._last) > LISTS_MAX or self.bytes > self._bytes_max:
            oldest = next(iter(self._last))
            del self._last[oldest]
            self.bytes -= _bytes_of(oldest)
        self._fresh.clear()

    def rolled_back(self) -> None:
        self._fresh.clear()

    def forget(self) -> None:
        """Garbage was collected: an id may be gone."""
        self._last.clear()
        self.bytes = 0
        self._fresh.clear()


def _bytes_of(slots: int) -> int:
    return _LIST_BYTES + slots * (DIGEST_BYTES + 4)


def _differing(digests: bytes, others: bytes) -> list[int] | None:
    """The slots whose digests differ, of as many; None when they are too many."""
    found: list[int] = []
    for begin in range(0, len(digests), _TOGETHER_BYTES):
        end = begin + _TOGETHER_BYTES
        if digests[begin:end] != others[begin:end]:
            found += [
                at // DIGEST_BYTES
                for at in range(begin, min(end, len(digests)), DIGEST_BYTES)
                if digests[at : at + DIGEST_BYTES] != others[at : at + DIGEST_BYTES]
            ]
            if len(found) > _DIFFERENCES_MAX:
                return None
    return found
