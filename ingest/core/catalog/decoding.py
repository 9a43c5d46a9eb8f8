"""From a message's bytes to a writer's work: pure but for its caches, which only ever save work.

Theory of operation. Most catalogs are unchanged, and most resources of a changed one are known. So: skim (find
the sections, parse only the header); take the sections' fingerprint; if these very bytes are known to be stored, claim
so. Else cut the resources apart, digest each one's bytes and normalise only those never met before.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol

from blake3 import blake3
from xxhash import xxh3_128

from ingest.core.bounded_cache import BoundedCache
from ingest.core.catalog.array_delta import RESOURCES, differences, elements
from ingest.core.catalog.cache import MET_BYTES, Met, MetSet, bytes_of
from ingest.core.catalog.edge_delta import KnownEdges
from ingest.core.catalog.edges import Related, document_edges, edge_name, encode_edges, with_relations
from ingest.core.catalog.formats import Other, Raw, Skim, skim, slices
from ingest.core.catalog.layout import Cut, Layout, cut, layout_of, require_shallow_around
from ingest.core.catalog.lineup import Alike, Lineup, Lineups, alike, line_up, with_differences
from ingest.core.catalog.model import Header, Ref
from ingest.core.catalog.nesting import SHALLOW_BYTES, require_shallow
from ingest.core.catalog.normalise import normalise_resource
from ingest.core.catalog.storable import Position, encode_position, encode_resource, require_plain
from ingest.core.delivery.routing import END_BYTES, START_BYTES, routing_key
from ingest.core.delivery.work import (
    DIGEST_BYTES,
    UNSUPPORTED,
    Ahead,
    Claim,
    Content,
    Deactivate,
    Descriptor,
    Full,
    PositionSet,
    SectionDigests,
)
from ingest.errors import Rejected

# Part of every raw digest: a new normaliser must not trust what an old one stored.
NORMALISER_VERSION = b"4"
Buffer = bytes | memoryview


LAYOUTS_BYTES_MAX = 32 * 1024 * 1024  # some 70 000 nodes
# Before a resource's JSON in the cache's keys: the same bytes mean another thing in another family. No JSON begins so.
_MARKS = {"puppetdb": b"", "native": b"N", "legacy": b"L"}
AHEAD_BYTES = 128 * 1024  # of one catalog's new resources, as JSON
KEPT_CONTENT_BYTES_MAX = 4096  # larger contents are made again when another lane wants them


class Digest(Protocol):
    """One of a hash library's."""

    def update(self, data: Buffer, /) -> object: ...
    def digest(self) -> bytes: ...


class Known(Protocol):
    """What was stored last, by certname. A mapping is one."""

    def get(self, certname: str, /) -> SectionDigests | None: ...


class Advance:
    """Sends the new contents of a catalog that has many of them ahead, ``bytes_`` of JSON at a time: the writer inserts
    them while the decoder is busy with the next."""

    def __init__(
        self, send: Callable[[Ahead], None], bytes_: int, delivery: int, certname: str, lane: int
    ) -> None:
        self._send, self._enough = send, bytes_
        self._delivery, self._certname, self._lane = delivery, certname, lane
        self._new: list[Met] = []
        self._bytes = 0
        self._has_begun = False

    def add(self, met: Met) -> None:
        self._new.append(met)
        self._bytes += met.length
        if self._bytes >= self._enough:
            self._has_begun = True
            self.finish()

    def finish(self) -> None:
        """The last of them. Of a catalog with few new ones they go with the rest of it."""
        if self._has_begun and self._new:
            self._send(
                Ahead(self._delivery, self._certname, {met.digest: _content(met) for met in self._new})
            )
            for met in self._new:
                met.sent |= self._lane
            self._new.clear()
            self._bytes = 0


class Decoding:
    """One decoder's knowledge and its one verb. ``seed`` is that of fingerprints: 64 bits that the authors of catalogs do
    not know, or they could make two that look alike. ``send_ahead`` takes what a writer can have before the rest."""

    def __init__(
        self,
        cache_bytes_max: int,
        *,
        seed: int = 0,
        lanes: int = 1,
        thin: bool = False,
        send_ahead: Callable[[Ahead], None] | None = None,
        ahead_bytes: int = AHEAD_BYTES,
    ) -> None:
        self.hits = self.misses = 0  # of resources
        self.lineups = Lineups(cache_bytes_max * 6 // 16)
        self.resources: BoundedCache[bytes, Met] = BoundedCache(
            cache_bytes_max * 9 // 16,
            lambda _, met: met.bytes_,
            is_needed=lambda met: met.lineups > 0,
            need_less=self.lineups.forget_oldest,
        )
        self._sets: BoundedCache[bytes, MetSet] = BoundedCache(
            cache_bytes_max // 16, lambda _, met: met.bytes_
        )
        self._layouts: BoundedCache[bytes, Layout] = BoundedCache(
            LAYOUTS_BYTES_MAX, lambda _, layout: layout.bytes_
        )
        self._large: list[tuple[bytes, int, str]] = []
        self._lanes = lanes
        self._seed = seed
        self._send_ahead, self._ahead_bytes = send_ahead, ahead_bytes
        self._advance: Advance | None = None
        self._thin = thin
        self._salt = NORMALISER_VERSION + (b"thin" if thin else b"")

    def decode(self, descriptor: Descriptor, body: memoryview, known: Known) -> Claim | Full | Deactivate:
        """The work that a body makes, measured against what is known of its node. Raises Rejected."""
        node = self._node_key(descriptor, body)
        if not descriptor.complete and (work := self._at_a_glance(descriptor, body, node, known)):
            return work
        skimmed = skim(body, descriptor.headers, descriptor.arrived_at)
        if isinstance(skimmed, Other):
            return _command(descriptor, skimmed)
        layout = layout_of(body, skimmed)
        require_shallow_around(body, layout)
        if layout is not None:
            self._layouts.put(node, layout)
        return self._of(descriptor, Cut(skimmed, layout), known)

    def _at_a_glance(
        self, descriptor: Descriptor, body: memoryview, node: bytes, known: Known
    ) -> Claim | Full | None:
        """The work, without a parse of the whole body, if that is laid out as the node's last one, or one like it."""
        layout = self._layouts.get(node)
        if layout is None and (near := self.lineups.near(len(body))):
            layout = near[0].layout
        found = layout and cut(body, layout, descriptor.headers, descriptor.arrived_at)
        if not found or found.layout is None:
            return None
        try:
            work = self._of(descriptor, found, known)
        except Rejected:
            return None  # by the cut, or by the catalog: only a whole parse can tell
        self._layouts.put(node, found.layout)
        return work

    def _of(self, descriptor: Descriptor, found: Cut, known: Known) -> Claim | Full:
        skimmed = found.skimmed
        _require_plain_header(skimmed.header)
        header = skimmed.header
        stored = None if descriptor.complete else known.get(header.certname)
        fingerprint = self._digested(skimmed, xxh3_128(seed=self._seed))
        if stored and stored.fingerprint == fingerprint:
            return Claim(descriptor.delivery, header, descriptor.received_at, stored)
        sections = SectionDigests(fingerprint, self._digested(skimmed, blake3())[:DIGEST_BYTES])
        if stored and stored.raw_digest == sections.raw_digest:
            return Claim(descriptor.delivery, header, descriptor.received_at, sections)
        try:
            return self._full(descriptor, found, sections)
        except RecursionError as error:
            raise Rejected("too_deep", "the JSON is nested too deeply") from error
        finally:
            self._forget_large()

    def _node_key(self, descriptor: Descriptor, body: memoryview) -> bytes:
        start, end = bytes(body[:START_BYTES]), bytes(body[-END_BYTES:])
        return routing_key(descriptor.headers, start, end).to_bytes(4, "big")

    def _digested(self, skimmed: Skim, digest: Digest) -> bytes:
        digest.update(self._salt + skimmed.family.encode())
        digest.update(skimmed.resources)
        digest.update(b"\0")
        digest.update(skimmed.edges)
        return digest.digest()

    def _full(self, descriptor: Descriptor, found: Cut, sections: SectionDigests) -> Full:
        skimmed = found.skimmed
        certname = skimmed.header.certname
        lane = 1 << lane_of(certname, self._lanes)
        everything = descriptor.complete
        self._advance = None
        if self._send_ahead and not everything and not self._thin:
            self._advance = Advance(self._send_ahead, self._ahead_bytes, descriptor.delivery, certname, lane)
        evictions = self.resources.evictions
        resources, like = self._meet(found, descriptor.length)
        digests = resources.digests
        edges = self._edges(skimmed, resources)
        # A lineup needs its resources: if some of them are forgotten already, they would take memory that nobody counts.
        if resources.lineup is not like and resources.lineup.array and self.resources.evictions == evictions:
            self._remember(resources.lineup, edges, found, descriptor.length, like)
        positions = self._positions(resources)
        full = Full(
            delivery=descriptor.delivery,
            header=skimmed.header,
            received_at=descriptor.received_at,
            sections=sections,
            content_digest=_digest(digests + edges.digest + positions.digest),
            digests=digests,
            exported=resources.lineup.exported,
            edge_set=edges.digest,
            position_set=positions.digest,
            contents={
                slot: _content(met) for slot, met in resources.give(lane, everything=everything).items()
            },
            edges=edges.content if everything or not edges.sent & lane else None,  # type: ignore[arg-type]
            positions=positions.content if everything or not positions.sent & lane else None,  # type: ignore[arg-type]
            complete=everything,
        )
        edges.sent |= lane
        positions.sent |= lane
        return full

    def _meet(self, cut_: Cut, length: int) -> tuple[Alike, Lineup | None]:
        """Every resource of the catalog: those that stand where they stood in one like it, and the others; and that one."""
        section, family = memoryview(cut_.skimmed.resources), cut_.skimmed.family
        like = self.lineups.most_alike(section, length, family)
        differ = differences(section, like.array, RESOURCES) if like and like.array else None
        text: Buffer = section
        if like is None or differ is None:
            raws = elements(section)
            if raws is None:  # not as it lies there, or not at all
                text, raws = b"", slices(section)
            like, met = None, self._known(raws, family)
        else:
            found = [(one, self._known(one.raws, family)) for one in differ]
            kept = len(like.met) - sum(one.end - one.begin for one in differ)
            self.hits += kept
            if (resources := alike(like, found)) is not None:
                return resources, like
            met = with_differences(like, found)
            if kept < len(met) / 2:
                like = None  # another kind of catalog
        if self._advance:
            self._advance.finish()
        return Alike(line_up(bytes(text), met, thin=self._thin), {}), like

    def _remember(
        self, lineup: Lineup, edges: MetSet, found: Cut, length: int, parent: Lineup | None
    ) -> None:
        lineup.family, lineup.layout, lineup.length = found.skimmed.family, found.layout, length
        if not self._thin:
            lineup.edges = KnownEdges(edges, bytes(found.skimmed.edges), lineup.slots)
        self.lineups.put(lineup, behind=parent)

    def _known(self, raws: Sequence[Raw], family: str) -> list[Met]:
        """These resources, from the cache where their bytes were met before."""
        mark = _MARKS[family]
        keys = [b"".join((mark, raw)) for raw in raws] if mark else list(map(bytes, raws))
        met = list(map(self.resources.entries.get, keys))
        self.hits += len(met)
        for at, one in enumerate(met):
            if one is None:
                met[at] = self.resources.get(keys[at]) or self._first_met(keys[at], mark, family)
        return met  # type: ignore[return-value]  # none is None now

    def _first_met(self, key: bytes, mark: bytes, family: str) -> Met:
        self.hits -= 1
        self.misses += 1
        normal = normalise_resource(memoryview(key)[len(mark) :] if mark else key, family)
        resource = normal.resource
        ref = resource.ref
        ref_key = _key_of(ref)
        digest, content = encode_resource(resource, has_floats=normal.has_floats)
        said = (normal.relations, normal.aliases, normal.is_virtual)
        said_key = repr((resource.exported, *said)).encode("utf-8", "surrogatepass") if any(said) else b""
        edge_key = b"".join((ref_key, said_key, b"\0"))  # repr writes no NUL
        is_kept = len(content.tail) <= KEPT_CONTENT_BYTES_MAX
        if not is_kept:
            self._large.append((key, len(mark), family))
        met = Met(
            ref=ref,
            key=ref_key,
            edge_digest=_digest(edge_key),
            length=len(key) - len(mark),
            name=edge_name(ref, family),
            exported=resource.exported,
            relations=normal.relations,
            aliases=normal.aliases,
            digest=digest,
            position=encode_position(resource.file, resource.line),
            content=content,
            bytes_=0,
            is_virtual=normal.is_virtual,
        )
        met.bytes_ = len(key) + bytes_of(met, is_content_kept=is_kept)
        self.resources.put(key, met)
        if self._advance:
            self._advance.add(met)
        return met

    def _forget_large(self) -> None:
        """Contents that are too large to keep were wanted for the catalog that brought them."""
        for source in self._large:
            if (met := self.resources.get(source[0])) is not None:
                met.content = source
        self._large.clear()

    def _edges(self, skimmed: Skim, resources: Alike) -> MetSet:
        """The edge set, made only when neither these edges nor what they refer to was met before."""
        if self._thin:
            for edge in slices(skimmed.edges):  # nobody needs them, but they must be what they seem to be
                if len(edge) > SHALLOW_BYTES:
                    require_shallow(edge)
            empty = encode_edges(())
            return MetSet(_digest(empty.fields), empty, MET_BYTES)
        key = _edges_key(skimmed.edges, resources.edge_digests)
        found = self._sets.get(key)
        if found is None:
            like = resources.lineup.edges
            if like is not None and like.are_those_of(memoryview(skimmed.edges), resources.others):
                found = like.met
            else:
                found = self._edges_first_met(skimmed, resources.slots)
            self._sets.put(key, found)
        return found

    def _edges_first_met(self, skimmed: Skim, met: Sequence[Met]) -> MetSet:
        refs, names = [m.ref for m in met], [m.name for m in met]
        related = [
            Related(slot, m.ref, m.exported, m.relations, m.aliases, m.is_virtual)
            for slot, m in enumerate(met)
            if m.relations or m.aliases or m.is_virtual
        ]
        document = document_edges(skimmed.edges, refs, names)
        edges = encode_edges(with_relations(document, refs, related))
        bytes_ = MET_BYTES + len(edges.fields) + 8 * len(document)
        return MetSet(_digest(edges.fields), edges, bytes_, array("Q", document))

    def _positions(self, resources: Alike) -> MetSet:
        digest = _digest(resources.position_digests)
        found = self._sets.get(digest)
        if found is None:
            indexes: dict[Position, int] = {}
            places = tuple([indexes.setdefault(m.position, len(indexes)) for m in resources.slots])
            texts = sum(len(position.fields) for position in indexes)
            bytes_ = MET_BYTES + 8 * len(places) + 200 * len(indexes) + texts
            found = MetSet(digest, PositionSet(tuple(indexes), places), bytes_)
            self._sets.put(digest, found)
        return found


def _content(met: Met) -> Content:
    if isinstance(met.content, Content):
        return met.content
    key, start, family = met.content
    return encode_resource(normalise_resource(memoryview(key)[start:], family).resource)[1]


def _edges_key(edges: Buffer, edge_digests: bytes) -> bytes:
    key = blake3(len(edges).to_bytes(8, "big"))
    key.update(edges)
    key.update(edge_digests)
    return key.digest()


def _key_of(ref: Ref) -> bytes:
    # Each end is marked with NUL. One inside is followed by what no UTF-8 has, so that it is told from the mark and
    # sorts behind it.
    key = f"{ref.type}\0{ref.title}\0".encode("utf-8", "surrogatepass")
    if key.count(b"\0") == 2:
        return key
    return b"".join([part.encode("utf-8", "surrogatepass").replace(b"\0", b"\0\xff") + b"\0" for part in ref])


def lane_of(certname: str, lanes: int) -> int:
    """Which writer has that node."""
    # crc32, not hash(): hash() is salted per process, and all decoders must agree.
    return zlib.crc32(certname.encode("utf-8", "replace")) % lanes


def _require_plain_header(header: Header) -> None:
    for name in ("certname", "version", "environment", "producer", "code_id", "job_id"):
        require_plain(name, getattr(header, name))


def _command(descriptor: Descriptor, other: Other) -> Deactivate:
    if other.command == "deactivate node" and other.certname and other.producer_timestamp:
        require_plain("certname", other.certname)
        return Deactivate(
            descriptor.delivery, other.certname, other.producer_timestamp, descriptor.received_at
        )
    raise Rejected(UNSUPPORTED, f"the command '{other.command}' is not stored yet")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]
