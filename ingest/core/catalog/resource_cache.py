"""Every resource from its JSON: from the cache where these bytes were met before, else normalised and encoded."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from xxhash import xxh3_128_digest

from ingest.core.bounded_cache import BoundedCache
from ingest.core.catalog.cache import CachedResource, LargeContent, bytes_of
from ingest.core.catalog.edges import edge_name
from ingest.core.catalog.formats import Raw
from ingest.core.catalog.model import Ref
from ingest.core.catalog.normalise import Normal, normalise_resource
from ingest.core.catalog.storable import encode_position, encode_resource
from ingest.core.delivery.work import DIGEST_BYTES, Content

KEPT_CONTENT_BYTES_MAX = 4096  # larger contents are made again when another lane wants them
# Before a resource's JSON in the cache's keys: the same bytes mean another thing in another family. No JSON begins so.
_MARKS = {"puppetdb": b"", "native": b"N", "legacy": b"L"}
_TO_DIGEST_BYTES = bytes(DIGEST_BYTES - 16)


class ResourceCache:
    """``need_less`` makes the cache's owner need fewer of them; it says whether that was possible. ``seed``: that of
    fingerprints."""

    def __init__(self, bytes_max: int, need_less: Callable[[], bool], seed: int = 0) -> None:
        self.hits = self.misses = 0
        self._seed = seed
        self._cached: BoundedCache[bytes, CachedResource] = BoundedCache(
            bytes_max,
            lambda _, resource: resource.bytes_,
            is_needed=lambda resource: resource.baselines > 0,
            need_less=need_less,
        )
        self._large: list[tuple[bytes, LargeContent]] = []  # by their keys in the cache

    @property
    def evictions(self) -> int:
        """How often the cache has forgotten some."""
        return self._cached.evictions

    def find(self, raws: Sequence[Raw], family: str) -> Generator[CachedResource, None, list[CachedResource]]:
        """Gives those that are new as soon as each is made; returns all, in their order. Raises Rejected."""
        mark = _MARKS[family]
        keys = [b"".join((mark, raw)) for raw in raws] if mark else list(map(bytes, raws))
        found = list(map(self._cached.get, keys))
        self.hits += len(found)
        for at, known in enumerate(found):
            if known is None:
                # It may stand there twice.
                resource = self._cached.get(keys[at])
                if resource is None:
                    resource = self._make(keys[at], keys[at][len(mark) :] if mark else keys[at], family)
                    yield resource
                found[at] = resource
        return found  # type: ignore[return-value]  # none is None now

    def forget_large(self) -> None:
        """Contents that are too large to keep were wanted for the catalog that brought them."""
        for key, large in self._large:
            if (resource := self._cached.get(key)) is not None:
                resource.content = large
        self._large.clear()

    def _make(self, key: bytes, raw: bytes, family: str) -> CachedResource:
        self.hits -= 1
        self.misses += 1
        normal = normalise_resource(raw, family)
        resource = normal.resource
        ref = resource.ref
        sort_key = sort_key_of(ref)
        digest, content = encode_resource(resource, has_floats=normal.has_floats)
        made = CachedResource(
            ref=ref,
            sort_key=sort_key,
            edge_digest=self._edge_digest(sort_key, normal),
            length=len(raw),
            name=edge_name(ref, family),
            exported=resource.exported,
            relations=normal.relations,
            aliases=normal.aliases,
            is_virtual=normal.is_virtual,
            digest=digest,
            position=encode_position(resource.file, resource.line),
            content=content,
        )
        is_kept = len(content.tail) <= KEPT_CONTENT_BYTES_MAX
        if not is_kept:
            self._large.append((key, LargeContent(key, len(key) - len(raw), family)))
        made.bytes_ = len(key) + bytes_of(made, content, is_content_kept=is_kept)
        self._cached.put(key, made)
        return made

    def _edge_digest(self, sort_key: bytes, normal: Normal) -> bytes:
        """Of no meaning outside this process: it need not be one that nobody can forge who does not know the seed."""
        said = b""
        if normal.relations or normal.aliases or normal.is_virtual:
            words = (normal.resource.exported, normal.relations, normal.aliases, normal.is_virtual)
            said = repr(words).encode("utf-8", "surrogatepass")
        # A name's ends are told by the key, and ``repr`` writes no NUL: no two have one text.
        return xxh3_128_digest(b"".join((sort_key, said, b"\0")), self._seed) + _TO_DIGEST_BYTES


def content_of(resource: CachedResource) -> Content:
    """As a row in the making; a large one is made again."""
    content = resource.content
    if isinstance(content, Content):
        return content
    return encode_resource(normalise_resource(content.raw, content.family).resource)[1]


def sort_key_of(ref: Ref) -> bytes:
    # Each end is marked with NUL. One inside is followed by what no UTF-8 has, so that it is told from the mark and
    # sorts behind it.
    key = f"{ref.type}\0{ref.title}\0".encode("utf-8", "surrogatepass")
    if key.count(b"\0") == 2:
        return key
    return b"".join([part.encode("utf-8", "surrogatepass").replace(b"\0", b"\0\xff") + b"\0" for part in ref])
