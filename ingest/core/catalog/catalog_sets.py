"""A catalog's edges and its positions as sets: each made once for all catalogs that have the same."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from blake3 import blake3

from ingest.core.bounded_cache import ENTRY_SHARE_MAX, BoundedCache
from ingest.core.catalog.baseline import Delta
from ingest.core.catalog.cache import ENTRY_BYTES, CachedResource, CachedSet
from ingest.core.catalog.edges import Related, document_edges, encode_edges, with_relations
from ingest.core.catalog.formats import slices
from ingest.core.catalog.guessing import Guessing
from ingest.core.catalog.resource_cache import content_of
from ingest.core.catalog.storable import Position, parameters_in
from ingest.core.delivery.work import DIGEST_BYTES, EdgeSet, PositionSet
from ingest.core.nesting import SHALLOW_BYTES, require_shallow

Buffer = bytes | memoryview


class SetCache:
    """``thin``: no edges are stored."""

    def __init__(self, bytes_max: int, *, thin: bool) -> None:
        self._thin = thin
        self._edges: BoundedCache[bytes, CachedSet[EdgeSet]] = BoundedCache(
            bytes_max // 2, lambda _, found: found.bytes_, entry_bytes_max=bytes_max // ENTRY_SHARE_MAX
        )
        self._positions: BoundedCache[bytes, CachedSet[PositionSet]] = BoundedCache(
            bytes_max // 2, lambda _, found: found.bytes_, entry_bytes_max=bytes_max // ENTRY_SHARE_MAX
        )

    def edges(self, text: Buffer, delta: Delta) -> CachedSet[EdgeSet]:
        """Made only when neither these edges nor what they refer to was met before. Raises Rejected."""
        if self._thin:
            for edge in slices(text):  # nobody needs them, but they must be what they seem to be
                if len(edge) > SHALLOW_BYTES:
                    require_shallow(edge)
            empty = encode_edges(())
            return CachedSet(_digest(empty.fields), empty, ENTRY_BYTES)
        key = edges_key(text, delta.edge_digests)
        found = self._edges.get(key)
        if found is None:
            known = delta.baseline.edges
            if known is not None and known.are_those_of(memoryview(text), delta.others):
                found = known.cached
            else:
                found = make_edge_set(text, delta.slots)
            if not found.is_guessed:
                self._edges.put(key, found)
        return found

    def positions(self, delta: Delta) -> CachedSet[PositionSet]:
        digest = _digest(delta.position_digests)
        found = self._positions.get(digest)
        if found is None:
            indexes: dict[Position, int] = {}
            places = tuple([indexes.setdefault(one.position, len(indexes)) for one in delta.slots])
            texts = sum(len(position.fields) for position in indexes)
            bytes_ = ENTRY_BYTES + 8 * len(places) + 200 * len(indexes) + texts
            found = CachedSet(digest, PositionSet(tuple(indexes), places), bytes_)
            self._positions.put(digest, found)
        return found


def edges_key(text: Buffer, edge_digests: bytes) -> bytes:
    """Of edges as they lie there, and of all that they may depend on."""
    key = blake3(len(text).to_bytes(8, "big"))
    key.update(text)
    key.update(edge_digests)
    return key.digest()


def make_edge_set(text: Buffer, slots: Sequence[CachedResource]) -> CachedSet[EdgeSet]:
    refs, names = [one.ref for one in slots], [one.name for one in slots]
    related = [
        Related(slot, one.ref, one.exported, one.relations, one.aliases, one.is_virtual)
        for slot, one in enumerate(slots)
        if one.relations or one.aliases or one.is_virtual
    ]

    guess = Guessing(refs, lambda slot: parameters_in(content_of(slots[slot])))
    document = document_edges(text, refs, names)
    edges = encode_edges(with_relations(document, refs, related, guess))
    bytes_ = ENTRY_BYTES + len(edges.fields) + 8 * len(document)
    return CachedSet(_digest(edges.fields), edges, bytes_, array("Q", document), is_guessed=guess.was_asked)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]
