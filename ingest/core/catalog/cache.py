"""What a decoder remembers of what it met: never more than a way to save work."""

from __future__ import annotations

from array import array
from typing import Generic, TypeVar

import msgspec

from ingest.core.catalog.edges import Relation
from ingest.core.catalog.model import Ref
from ingest.core.catalog.storable import Position
from ingest.core.delivery.work import Content, EdgeSet, PositionSet

ENTRY_BYTES = 1300  # about what an entry costs beside its content: structs, strings, the dict's share
ORDINARY_NAMES_BYTES = 700  # as counted here; that much is part of the above
RELATION_BYTES = 400

S = TypeVar("S", EdgeSet, PositionSet)


class LargeContent(msgspec.Struct, frozen=True):
    """One that is made again from its resource's JSON when somebody wants it."""

    key: bytes  # in the cache; the JSON is what follows the mark of its family
    begin: int
    family: str

    @property
    def raw(self) -> memoryview:
        return memoryview(self.key)[self.begin :]


class CachedResource(msgspec.Struct):
    """A resource that was normalised before: all but its parameters."""

    ref: Ref
    sort_key: bytes  # the ref as bytes: sorts as the ref does
    edge_digest: bytes  # of all that edges may depend on: the ref and what it says about others
    length: int  # of its JSON
    name: bytes  # what edges call it
    exported: bool
    relations: tuple[Relation, ...]
    aliases: tuple[str, ...]
    is_virtual: bool
    digest: bytes  # of its content
    position: Position
    content: Content | LargeContent
    bytes_: int = 0
    sent: int = 0  # a bit for each lane that was given the content
    baselines: int = 0  # that hold it: out of the cache it would take as much


class CachedSet(msgspec.Struct, Generic[S]):
    """An edge set or a position set, by its digest."""

    digest: bytes
    content: S
    bytes_: int
    document: array[int] | None = None  # of an edge set: the document's own edges, in its order
    sent: int = 0  # a bit for each lane that was given it
    is_guessed: bool = False  # of an edge set: it depends on more than what it is cached by


def bytes_of(resource: CachedResource, content: Content, *, is_content_kept: bool) -> int:
    """About what a resource takes beside its JSON. Nothing that a sender can make large may be left out: title, type, tags,
    file and what it says about others lie there as text of up to four bytes a character, and encoded."""
    names = 6 * len(resource.sort_key) + 4 * len(content.tags) + len(resource.position.fields)
    if resource.relations or resource.aliases:
        names += sum(RELATION_BYTES + 4 * len(relation.other.title) for relation in resource.relations)
        names += sum(100 + 4 * len(alias) for alias in resource.aliases)
    kept = len(content.head) + len(content.tail) if is_content_kept else 0
    return ENTRY_BYTES + kept + (names - ORDINARY_NAMES_BYTES if names > ORDINARY_NAMES_BYTES else 0)
