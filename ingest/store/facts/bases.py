"""The bases that nodes' facts stand on, as one writer knows them, and the shapes of those."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ingest.core import pgcopy
from ingest.core.bounded_cache import BoundedCache
from ingest.core.delivery.work import DIGEST_BYTES
from ingest.core.facts.stable import firsts_of, is_like
from ingest.core.facts.work import Factset, Shape
from ingest.store.facts.shared_content import FactContents, Fields, list_field
from ingest.store.queries import query
from ingest.store.session import Session

BASES_BYTES_MAX = 16 * 1024 * 1024  # a fleet's tens of shapes are a megabyte; each of these takes about 20 KB
_BASE_BYTES, _FACT_BYTES = 300, 60


class Base(NamedTuple):
    id: int
    shape_digest: bytes
    leaves: list[str]


class Bases:
    """Found in a transaction, remembered when it has committed."""

    def __init__(self, entries_max: int) -> None:
        self._by_id: BoundedCache[int, Base] = BoundedCache(
            BASES_BYTES_MAX, lambda id_, base: _bytes_of(base)
        )
        self._of_shape: BoundedCache[bytes, Base] = BoundedCache(
            BASES_BYTES_MAX, lambda digest, base: _bytes_of(base)
        )
        self._shapes = FactContents("fact_shapes", entries_max)
        self._bases = FactContents("fact_bases", entries_max)
        self._fresh: dict[int, Base] = {}
        self._fresh_shapes: dict[bytes, Base] = {}

    def of_ids(self, session: Session, ids: Collection[int]) -> dict[int, Base]:
        found = {
            id_: base for id_ in ids if (base := self._fresh.get(id_) or self._by_id.get(id_)) is not None
        }
        if missing := [id_ for id_ in ids if id_ not in found]:
            session.cursor.execute(query("read_fact_bases"), [missing], binary=True)
            for row in session.cursor:
                base = _base(*row)
                found[base.id] = self._fresh[base.id] = base
        return found

    def choose(
        self, session: Session, factsets: Sequence[Factset], shapes: Mapping[bytes, Shape]
    ) -> dict[int, Base]:
        """A base for each, by delivery: one there is, or a new one. Those of which nobody knows the shape get none."""
        known = self._with_shapes(session, {factset.shape_digest for factset in factsets})
        chosen: dict[int, Base] = {}
        new: dict[bytes, Factset] = {}
        waiting: list[tuple[Factset, bytes]] = []
        for factset in factsets:
            digest = factset.shape_digest
            base = known.get(digest)
            if base is not None and is_like(base.leaves, factset.leaves):
                chosen[factset.delivery] = base
                continue
            # The first of a shape in this batch is the base of those that are like it.
            other = next(
                (
                    key
                    for key, one in new.items()
                    if one.shape_digest == digest and is_like(one.leaves, factset.leaves)
                ),
                None,
            )
            if other is None:
                other = _base_digest(factset)
                new[other] = factset
            waiting.append((factset, other))
        if waiting:
            inserted = self._insert(session, new, shapes)
            chosen |= {factset.delivery: inserted[key] for factset, key in waiting if key in inserted}
        return chosen

    def committed(self) -> None:
        self._by_id.put_all(self._fresh)
        self._of_shape.put_all(self._fresh_shapes)
        self._shapes.committed()
        self._bases.committed()
        self._clear_fresh()

    def rolled_back(self) -> None:
        self._shapes.rolled_back()
        self._bases.rolled_back()
        self._clear_fresh()

    def forget(self) -> None:
        self._by_id.clear()
        self._of_shape.clear()
        self._shapes.forget()
        self._bases.forget()
        self._clear_fresh()

    def _clear_fresh(self) -> None:
        self._fresh.clear()
        self._fresh_shapes.clear()

    def _with_shapes(self, session: Session, digests: Iterable[bytes]) -> dict[bytes, Base]:
        found: dict[bytes, Base] = {}
        missing = []
        for digest in digests:
            base = self._of_shape.get(digest)
            if base is None:
                missing.append(digest)
            else:
                found[digest] = base
        if missing:
            session.cursor.execute(query("find_bases_of_shapes"), [missing], binary=True)
            for row in session.cursor:
                base = _base(*row)
                found[base.shape_digest] = self._fresh_shapes[base.shape_digest] = base
        return found

    def _insert(
        self, session: Session, factsets: Mapping[bytes, Factset], shapes: Mapping[bytes, Shape]
    ) -> dict[bytes, Base]:
        """New bases by their digests; those whose shape is nowhere to be found are left out."""
        wanted = {factset.shape_digest: factset for factset in factsets.values()}
        ids = self._shapes.find(session, wanted.keys())
        rows = {
            digest: _shape_row(digest, shapes[digest], factset)
            for digest, factset in wanted.items()
            if digest not in ids and digest in shapes
        }
        if rows:
            ids |= self._shapes.resolve(session, rows)
        base_rows = {
            digest: _base_row(digest, ids[factset.shape_digest], factset)
            for digest, factset in factsets.items()
            if factset.shape_digest in ids
        }
        found = {}
        for digest, id_ in (self._bases.resolve(session, base_rows) if base_rows else {}).items():
            factset = factsets[digest]
            base = Base(id_, factset.shape_digest, factset.leaves)
            found[digest] = self._fresh[id_] = self._fresh_shapes[factset.shape_digest] = base
        return found


def _base(id_: int, shape_digest: bytes, leaves: list[str]) -> Base:
    return Base(id_, bytes(shape_digest), leaves)


def _base_digest(factset: Factset) -> bytes:
    text = "\x02".join(factset.leaves).encode()
    return hashlib.sha256(factset.shape_digest + text).digest()[:DIGEST_BYTES]


def _shape_row(digest: bytes, shape: Shape, factset: Factset) -> Callable[[], Fields]:
    return lambda: (
        pgcopy.bytea(digest),
        list_field(shape.names),
        pgcopy.text(shape.exact_names),
        list_field(shape.templates),
        list_field(firsts_of(factset.leaves)),
    )


def _base_row(digest: bytes, shape_id: int, factset: Factset) -> Callable[[], Fields]:
    return lambda: (pgcopy.bytea(digest), pgcopy.int4(shape_id), list_field(factset.leaves))


def _bytes_of(base: Base) -> int:
    # Four bytes a character at worst; mostly one.
    return _BASE_BYTES + sum(
        _FACT_BYTES + (len(leaves) if leaves.isascii() else 4 * len(leaves)) for leaves in base.leaves
    )
