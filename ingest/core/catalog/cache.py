"""What a decoder remembers of what it met: bounded by bytes, and never more than a way to save work."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from ingest.core.catalog.edges import Relation
from ingest.core.catalog.model import Ref
from ingest.core.catalog.storable import Position
from ingest.core.delivery.work import Content, EdgeSet, PositionSet

MET_BYTES = 1300  # about what an entry costs beside its content: structs, strings, the dict's share


class Met(msgspec.Struct):
    """A resource that was normalised before: all but its parameters."""

    ref: Ref
    key: bytes  # the ref as bytes: sorts as the ref does
    edge_digest: bytes  # of all that edges may depend on: the ref and what it says about others
    length: int  # of its JSON
    name: bytes  # what edges call it
    exported: bool
    relations: tuple[Relation, ...]
    aliases: tuple[str, ...]
    digest: bytes  # of its content
    position: Position
    content: (
        Content | tuple[bytes, int, str]
    )  # a large one is made again from its bytes (where they begin, family)
    bytes_: int
    is_virtual: bool = False
    sent: int = 0  # a bit for each lane that was given the content
    lineups: int = 0  # that hold it: out of the cache it would take as much


class MetSet(msgspec.Struct):
    """An edge set or a position set, by its digest."""

    digest: bytes
    content: EdgeSet | PositionSet
    bytes_: int
    document: array[int] | None = None  # of an edge set: the document's own edges, in its order
    sent: int = 0


class Kept(Protocol):
    """What a cache holds: anything that knows about how many bytes it takes."""

    @property
    def bytes_(self) -> int: ...


K = TypeVar("K", bound=Kept)


class Cache(Generic[K]):
    """Bounded by its entries' bytes as their makers count them: the oldest go that nobody needs. What is asked for all the
    time may go too, and comes back at the price of one miss."""

    def __init__(
        self,
        bytes_max: int,
        is_needed: Callable[[K], bool] = lambda value: False,
        need_less: Callable[[], bool] = lambda: False,
    ) -> None:
        """``need_less`` is called while what is needed is too much; it says whether less is needed now."""
        self.entries: dict[bytes, K] = {}
        self.evictions = 0
        self._bytes_max = bytes_max
        self._bytes = 0
        self._is_needed = is_needed
        self._need_less = need_less

    def put(self, key: bytes, value: K) -> None:
        before = self.entries.get(key)
        self.entries[key] = value
        self._bytes += value.bytes_ - (before.bytes_ if before else 0)
        if self._bytes > self._bytes_max:
            self._evict()

    def _evict(self) -> None:
        # An eighth at a time: to find the oldest entry means to pass by the places of all that went before.
        self.evictions += 1
        enough = self._bytes_max * 7 // 8
        self._shrink(enough)
        while self._bytes > enough and self._need_less():
            self._shrink(enough)

    def _shrink(self, enough: int) -> None:
        for key in [key for key, value in self.entries.items() if not self._is_needed(value)]:
            self._bytes -= self.entries.pop(key).bytes_
            if self._bytes <= enough:
                return
