"""Whether a catalog's edges are, between slots, those of the one that it is compared with.

The nodes of a role have the same edges but for the few resources that bear their own names. No name is looked for in
anybody's JSON: edges are compared as whole elements of their array; those that differ are parsed, and must name what
stands here in the slots that they had there; those that are the same text must touch nothing that is called otherwise
here. The same goes for what metaparameters say. Where that cannot be shown the edges are read as if they were the first.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import msgspec

from ingest.core.catalog.array_delta import EDGES, ArrayText, array_text, differences, elements
from ingest.core.catalog.cache import CachedResource, CachedSet
from ingest.core.catalog.edges import Relation, edge_ends, is_plain_edge, unpack_edge
from ingest.core.catalog.model import Ref
from ingest.core.delivery.work import EdgeSet


class _Index(msgspec.Struct, frozen=True):
    """What is asked of remembered edges, made when somebody asks first."""

    document: ArrayText
    touching: array[int]  # by slot: how many ends of edges lie there
    mentions: Counter[Ref]  # in what resources say about others


class KnownEdges:
    """The edges of a remembered catalog."""

    def __init__(self, cached: CachedSet[EdgeSet], text: bytes, slots: Sequence[CachedResource]) -> None:
        self.cached = cached
        self.bytes_ = len(text) * 4 // 3  # with the index: some ten bytes for an edge of 36 and more
        self._text = text
        self._slots = slots
        self._index: _Index | None = None
        self._has_index = False

    def are_those_of(self, edges: memoryview, others: Mapping[int, CachedResource]) -> bool:
        """Whether a catalog has the same, which has ``others`` in some of the slots, and this document's edges."""
        index = self._indexed()
        if index is None:
            return False
        speaking = {
            slot: one for slot, one in others.items() if one.edge_digest != self._slots[slot].edge_digest
        }
        renamed = {slot for slot, one in speaking.items() if one.sort_key != self._slots[slot].sort_key}
        return self._has_document(edges, index, others, renamed) and self._says_the_same(
            index, speaking, renamed
        )

    def _indexed(self) -> _Index | None:
        if not self._has_index:
            self._has_index = True
            self._index = self._make_index()
        return self._index

    def _make_index(self) -> _Index | None:
        raws = elements(self._text)
        found = array_text(self._text, map(len, map(bytes, raws))) if raws else None
        if found is None or self.cached.document is None:
            return None
        touching = array("I", bytes(4 * len(self._slots)))
        for ends in edge_ends(self.cached.document):
            for slot, count in Counter(ends).items():
                touching[slot] += count
        return _Index(
            found, touching, Counter(relation.other for one in self._slots for relation in one.relations)
        )

    def _has_document(
        self, edges: memoryview, index: _Index, others: Mapping[int, CachedResource], renamed: set[int]
    ) -> bool:
        differ = differences(edges, index.document, EDGES)
        if differ is None or self.cached.document is None:
            return False
        touched = 0
        for difference in differ:
            if len(difference.raws) != difference.end - difference.begin:
                return False
            for place, raw in enumerate(difference.raws, difference.begin):
                relationship, source, target = unpack_edge(self.cached.document[place])
                names = [others.get(slot, self._slots[slot]).name for slot in (source, target)]
                if not is_plain_edge(raw, relationship, *names):
                    return False
                touched += (source in renamed) + (target in renamed)
        return touched == sum(index.touching[slot] for slot in renamed)

    def _says_the_same(
        self, index: _Index, speaking: Mapping[int, CachedResource], renamed: set[int]
    ) -> bool:
        """Whether what metaparameters say comes to the same edges."""
        before = {slot: self._slots[slot] for slot in speaking}
        if not index.mentions and not any(one.relations for one in speaking.values()):
            return True
        if any(
            (one.is_virtual, one.exported) != (before[slot].is_virtual, before[slot].exported)
            for slot, one in speaking.items()
        ):
            return False
        now = {before[slot].ref: speaking[slot].ref for slot in renamed}
        changed: set[tuple[str, str]] = {*now, *now.values()}  # names that lead elsewhere now, or to nothing
        for slot, one in speaking.items():
            changed |= _aliases(one) ^ _aliases(before[slot])
        own = Counter(relation.other for one in before.values() for relation in one.relations)
        if any(index.mentions[name] != own[name] for name in changed):  # type: ignore[index]
            return False  # somebody says what was said before, and means another one
        return all(
            _is_same_relation(old, new, now, changed)
            for slot, one in speaking.items()
            for old, new in zip_longest(before[slot].relations, one.relations)
        )


def _is_same_relation(
    old: Relation | None, new: Relation | None, now: Mapping[Ref, Ref], changed: set[tuple[str, str]]
) -> bool:
    if old is None or new is None or (old.relationship, old.forward) != (new.relationship, new.forward):
        return False
    if old.other in now:
        return now[old.other] == new.other
    return old.other == new.other and new.other not in changed


def _aliases(one: CachedResource) -> set[tuple[str, str]]:
    return {(one.ref.type, alias) for alias in one.aliases}
