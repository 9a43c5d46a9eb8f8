"""From a message's bytes to a writer's work: pure but for its caches, which only ever save work.

Theory of operation. Most catalogs are unchanged, and most resources of a changed one are known. So: skim (find
the sections, parse only the header); digest the sections; if the hint says that these very bytes are stored,
claim so. Else cut the resources apart, digest each one's bytes and normalise only those never met before.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from ingest.core import rows
from ingest.core.digest import content_digest
from ingest.core.formats import Other, Skim, skim, slices
from ingest.core.model import RELATIONSHIPS, Edge, Ref, Resource
from ingest.core.normalise import Normal, normalise_edges, normalise_resource
from ingest.core.storable import encode_content, encode_position, require_plain
from ingest.core.work import (
    DIGEST_BYTES,
    Claim,
    Content,
    Deactivate,
    Descriptor,
    EdgeSet,
    Full,
    PositionSet,
)
from ingest.errors import Rejected

# Part of every raw digest: a new normaliser must not trust what an old one stored.
NORMALISER_VERSION = b"1"


class Met(NamedTuple):
    """A resource that was normalised before: all but its parameters."""

    normal: Normal
    digest: bytes  # of its content
    place: bytes  # digest of file and line


class Cache:
    """Bounded by an estimate of its bytes: two generations, the older one thrown away whole."""

    def __init__(self, bytes_max: int, entry_bytes: int) -> None:
        self.hits = self.misses = 0
        self._entries_max = max(16, bytes_max // entry_bytes // 2)
        self._young: dict[bytes, object] = {}
        self._old: dict[bytes, object] = {}

    def get(self, key: bytes) -> object | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                self.misses += 1
                return None
            self.put(key, found)
        self.hits += 1
        return found

    def put(self, key: bytes, value: object) -> None:
        if len(self._young) >= self._entries_max:
            self._old, self._young = self._young, {}
        self._young[key] = value


class Decoding:
    """One decoder's knowledge and its one verb."""

    def __init__(self, cache_bytes_max: int, thin: bool) -> None:
        # About what an entry costs: a Normal without parameters, two digests, the dict's share.
        self.resources = Cache(cache_bytes_max * 7 // 8, entry_bytes=1200)
        self.edge_sets = Cache(cache_bytes_max // 8, entry_bytes=250)
        self._position_sets = Cache(cache_bytes_max // 64, entry_bytes=200)
        self._thin = thin
        self._salt = NORMALISER_VERSION + (b"thin" if thin else b"")

    def decode(
        self, descriptor: Descriptor, body: memoryview, known: Mapping[str, bytes]
    ) -> Claim | Full | Deactivate:
        """``known`` gives the first bytes of the raw digest that is stored of a certname. Raises Rejected."""
        skimmed = skim(body, descriptor.headers, descriptor.received_at)
        if isinstance(skimmed, Other):
            return _command(descriptor, skimmed)
        for name in ("certname", "version", "environment", "producer", "code_id", "job_id"):
            require_plain(name, getattr(skimmed.header, name))
        raw_digest = self._raw_digest(skimmed)
        header = skimmed.header
        if not descriptor.complete and known.get(header.certname) == raw_digest[:16]:
            return Claim(descriptor.delivery, header, descriptor.received_at, raw_digest)
        return self._full(descriptor, skimmed, raw_digest)

    def _raw_digest(self, skimmed: Skim) -> bytes:
        digest = hashlib.sha256(self._salt + skimmed.family.encode())
        digest.update(skimmed.resources)
        digest.update(b"\0")
        digest.update(skimmed.edges)
        return digest.digest()[:DIGEST_BYTES]

    def _full(self, descriptor: Descriptor, skimmed: Skim, raw_digest: bytes) -> Full:
        met, contents = self._meet(skimmed, everything=descriptor.complete)
        if self._thin:
            met = [m for m in met if m.normal.resource.exported]
        met.sort(key=_ref)
        refs = [_ref(m) for m in met]
        for before, after in zip(refs, refs[1:], strict=False):
            if before == after:
                raise Rejected("duplicate_resource", f"{_short(Ref(*before))} is in the catalog twice")
        digests = b"".join(m.digest for m in met)
        edge_digest, edges = self._edges(skimmed, met, refs, everything=descriptor.complete)
        position_digest, positions = self._positions(met, everything=descriptor.complete)
        content = hashlib.sha256(digests + edge_digest + position_digest).digest()[:DIGEST_BYTES]
        return Full(
            delivery=descriptor.delivery,
            header=skimmed.header,
            received_at=descriptor.received_at,
            raw_digest=raw_digest,
            content_digest=content,
            digests=digests,
            exported=tuple(slot for slot, m in enumerate(met) if m.normal.resource.exported),
            edge_set=edge_digest,
            position_set=position_digest,
            contents={slot: contents[m.digest] for slot, m in enumerate(met) if m.digest in contents},
            edges=edges,
            positions=positions,
            complete=descriptor.complete,
        )

    def _meet(self, skimmed: Skim, *, everything: bool) -> tuple[list[Met], dict[bytes, Content]]:
        """Every resource of the catalog, and the contents of those that were not in the cache."""
        met: list[Met] = []
        contents: dict[bytes, Content] = {}
        family = skimmed.family.encode()
        for raw in slices(skimmed):
            key = hashlib.sha256(raw)
            key.update(family)
            found = None if everything else self.resources.get(key.digest())
            if found is None:
                normal = normalise_resource(raw, skimmed.family)
                digest = content_digest(normal.resource)
                contents[digest] = encode_content(digest, normal.resource)
                found = Met(_without_parameters(normal), digest, _place(normal.resource)[0])
                self.resources.put(key.digest(), found)
            assert isinstance(found, Met)
            met.append(found)
        return met, contents

    def _edges(
        self, skimmed: Skim, met: Sequence[Met], refs: Sequence[tuple[str, str]], *, everything: bool
    ) -> tuple[bytes, EdgeSet | None]:
        """The digest of the edge set, with its content unless this decoder has met it already."""
        if self._thin:
            edges = EdgeSet(b"".join((rows.int4_array(()), rows.int4_array(()), rows.int2_array(()))))
            return _digest(edges.fields), edges
        key = hashlib.sha256(skimmed.edges)
        for m in met:
            key.update(repr((*_ref(m), m.normal.relations, m.normal.aliases)).encode("utf-8", "surrogatepass"))
        found = None if everything else self.edge_sets.get(key.digest())
        if isinstance(found, bytes):
            return found, None
        slots = {Ref(*ref): slot for slot, ref in enumerate(refs)}
        edge_set = encode_edges(normalise_edges(skimmed, [m.normal for m in met]), slots)
        digest = _digest(edge_set.fields)
        self.edge_sets.put(key.digest(), digest)
        return digest, edge_set

    def _positions(self, met: Sequence[Met], *, everything: bool) -> tuple[bytes, PositionSet | None]:
        digest = _digest(b"".join(m.place for m in met))
        if not everything and self._position_sets.get(digest) is not None:
            return digest, None
        indexes: dict[bytes, int] = {}
        positions: list[tuple[bytes, bytes]] = []
        for m in met:
            if m.place not in indexes:
                indexes[m.place] = len(positions)
                positions.append(_place(m.normal.resource))
        self._position_sets.put(digest, True)
        return digest, PositionSet(tuple(positions), tuple(indexes[m.place] for m in met))


def encode_edges(edges: Iterable[Edge], slots: Mapping[Ref, int]) -> EdgeSet:
    """Edges as three arrays, sorted by relationship, source, target."""
    codes = {name: code for code, name in enumerate(RELATIONSHIPS)}
    triples = sorted((codes[e.relationship], slots[e.source], slots[e.target]) for e in edges)
    return EdgeSet(
        b"".join(
            (
                rows.int4_array(array("i", [t[1] for t in triples])),
                rows.int4_array(array("i", [t[2] for t in triples])),
                rows.int2_array([t[0] for t in triples]),
            )
        )
    )


def _command(descriptor: Descriptor, other: Other) -> Deactivate:
    if other.command == "deactivate node" and other.certname and other.producer_timestamp:
        require_plain("certname", other.certname)
        return Deactivate(descriptor.delivery, other.certname, other.producer_timestamp)
    raise Rejected("unsupported_command", f"the command '{other.command}' is not stored yet")


def _ref(met: Met) -> tuple[str, str]:
    return met.normal.resource.type, met.normal.resource.title


def _without_parameters(normal: Normal) -> Normal:
    return msgspec.structs.replace(normal, resource=msgspec.structs.replace(normal.resource, parameters={}, tags=()))


def _place(resource: Resource) -> tuple[bytes, bytes]:
    """(digest, encoded fields) of the resource's position."""
    fields = encode_position(resource.file, resource.line)
    return _digest(fields), fields


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def _short(ref: Ref) -> str:
    text = str(ref)
    return text if len(text) <= 200 else text[:200] + "..."
