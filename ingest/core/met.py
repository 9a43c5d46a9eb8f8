"""What a decoder remembers of what it met: bounded by bytes, and never more than a way to save work."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import msgspec

from ingest.core.edges import Relation
from ingest.core.model import Ref
from ingest.core.storable import Position
from ingest.core.work import Content, EdgeSet, PositionSet

MET_BYTES = 1300  # about what an entry costs beside its content: structs, strings, the dict's share


class Met(msgspec.Struct):
    """A resource that was normalised before: all but its parameters."""

    ref: Ref
    key: bytes  # the ref as bytes: sorts as the ref does
    edge_key: bytes  # all that edges may depend on: the ref and what it says about others
    edge_digest: bytes  # of that
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


class MetSet(msgspec.Struct):
    """An edge set or a position set, by its digest."""

    digest: bytes
    content: EdgeSet | PositionSet
    bytes_: int
    sent: int = 0


class Kept(Protocol):
    """What a cache holds: anything that knows about how many bytes it takes."""

    @property
    def bytes_(self) -> int: ...


K = TypeVar("K", bound=Kept)


class Cache(Generic[K]):
    """Bounded by its entries' bytes as their makers count them: the oldest go. What is asked for all the time goes too,
    and comes back at the price of one miss."""

    def __init__(self, bytes_max: int) -> None:
        self.entries: dict[bytes, K] = {}
        self.evictions = 0
        self._bytes_max = bytes_max
        self._bytes = 0

    def put(self, key: bytes, value: K) -> None:
        before = self.entries.get(key)
        self.entries[key] = value
        self._bytes += value.bytes_ - (before.bytes_ if before else 0)
        if self._bytes > self._bytes_max:
            self._evict()

    def _evict(self) -> None:
        # An eighth at a time: to find the oldest entry means to pass by the places of all that went before.
        self.evictions += 1
        for key in list(self.entries):
            self._bytes -= self.entries.pop(key).bytes_
            if self._bytes <= self._bytes_max * 7 // 8:
                return
