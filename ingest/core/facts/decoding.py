"""From a message's bytes to a node's facts as a writer wants them.

Of a factset nearly everything was met before: each fact's JSON is looked up by its fingerprint, and only what differs is
parsed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from xxhash import xxh3_128_digest

from ingest.core.bounded_cache import BoundedCache
from ingest.core.catalog.model import Json
from ingest.core.catalog.storable import nearest_text
from ingest.core.delivery.decoding import DecoderSettings, KnownDigests
from ingest.core.delivery.envelope import open_envelope
from ingest.core.delivery.work import DIGEST_BYTES, Descriptor
from ingest.core.facts.inventory import InventoryReader
from ingest.core.facts.leaves import canonical_text, count_leaves, split
from ingest.core.facts.payload import Payload, read_at_once, read_payload
from ingest.core.facts.selection import ALWAYS_MOVING, selection
from ingest.core.facts.work import Factset, Shape
from ingest.core.json_text import parse_json
from ingest.core.sensitive import conceal, may_hold_secrets

# Of what the decoders' caches may take in all: a fleet's facts that do not differ from node to node take a megabyte, and
# those of a thousand nodes that do some twenty.
FACTS_SHARE = 1 / 8
TEMPLATES_SHARE = 1 / 32
SHAPES_MAX = 4096  # that are remembered as sent: 20 bytes each
PLACES_BYTES_MAX = 1024 * 1024
# Of a fact beside its leaves: a place in the table, four objects. Its name and its template are those of others too.
_ENTRY_BYTES = 300


class _Template(NamedTuple):
    """Of a fact's values that differ in leaves alone."""

    shape_key: bytes  # of name and template
    text: str
    leaf_count: int
    listed: tuple[int, ...]  # leaves that are known to move


class _Fact(NamedTuple):
    """One fact as it is stored. None of ``template``: it is not to be stored."""

    shape_key: bytes
    template: str | None
    leaves: str
    leaf_count: int
    listed: tuple[int, ...]


class FactsDecoder:
    """There is one in each decoder process."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._blocked = selection(settings.facts_blocklist, "--facts-blocklist")
        self._is_blocking = bool(settings.facts_blocklist)
        self._seed = settings.seed  # of fingerprints, which who sends facts does not know
        self._moving = selection((*ALWAYS_MOVING, *settings.facts_volatile), "--facts-volatile")
        self._facts: BoundedCache[tuple[str, bytes], _Fact] = BoundedCache(
            int(settings.cache_bytes_max * FACTS_SHARE),
            lambda _, fact: _ENTRY_BYTES + sys.getsizeof(fact.leaves),
        )
        self._templates: BoundedCache[tuple[str, str], _Template] = BoundedCache(
            int(settings.cache_bytes_max * TEMPLATES_SHARE),
            lambda key, template: _ENTRY_BYTES + sys.getsizeof(key[1]) + 40 * len(template.listed),
        )
        self._sent: BoundedCache[bytes, bool] = BoundedCache(
            SHAPES_MAX, lambda digest, sent: 1, entry_bytes_max=1
        )
        self._places: BoundedCache[bytes, tuple[int, ...]] = BoundedCache(
            PLACES_BYTES_MAX, lambda key, places: 200 + 40 * len(places)
        )
        self._inventories = InventoryReader()

    @property
    def facts_remembered(self) -> int:
        return len(self._facts)

    def decode(self, descriptor: Descriptor, body: memoryview, known: KnownDigests) -> Iterator[Factset]:
        """Raises Rejected."""
        envelope = open_envelope(body, descriptor.headers, descriptor.arrived_at)
        yield self._work(descriptor, read_payload(envelope))

    def at_once(self, descriptor: Descriptor, body: memoryview) -> Factset | None:
        """Raises Rejected."""
        payload = read_at_once(body, descriptor.headers, descriptor.arrived_at)
        return None if payload is None else self._work(descriptor, payload)

    def _work(self, descriptor: Descriptor, payload: Payload) -> Factset:
        names, facts = self._facts_of(payload.values)
        leaves = [fact.leaves for fact in facts]
        shape_digest = _digest(b"".join([fact.shape_key for fact in facts]))
        inventory = self._inventories.read(payload.packages, is_complete=descriptor.complete)
        content = hashlib.sha256(shape_digest)
        content.update("\x02".join(leaves).encode())
        if inventory is not None:
            content.update(b"\x03" + inventory.digest)
        return Factset(
            delivery=descriptor.delivery,
            certname=payload.certname,
            producer_timestamp=payload.producer_timestamp,
            received_at=descriptor.received_at,
            environment=payload.environment,
            producer=payload.producer,
            content_digest=content.digest()[:DIGEST_BYTES],
            shape_digest=shape_digest,
            leaves=leaves,
            listed=self._listed(shape_digest, facts),
            shape=self._shape(shape_digest, names, facts, is_complete=descriptor.complete),
            inventory=inventory,
            is_complete=descriptor.complete,
        )

    def _facts_of(self, values: Any) -> tuple[list[str], list[_Fact]]:
        """Those that are to be stored, by name."""
        names = sorted(values)
        seed = self._seed
        keys = [(name, xxh3_128_digest(values[name], seed)) for name in names]
        facts = [
            fact or self._first_met(key, bytes(values[key[0]]))
            for key, fact in zip(keys, map(self._facts.get, keys), strict=True)
        ]
        if self._is_blocking and any(fact.template is None for fact in facts):
            kept = [
                (name, fact) for name, fact in zip(names, facts, strict=True) if fact.template is not None
            ]
            return [name for name, _ in kept], [fact for _, fact in kept]
        return names, facts

    def _first_met(self, key: tuple[str, bytes], raw: bytes) -> _Fact:
        name = sys.intern(key[0])
        fact = self._made(name, raw)
        self._facts.put((name, key[1]), fact)
        return fact

    def _made(self, name: str, raw: bytes) -> _Fact:
        value: Json = parse_json(raw)
        if may_hold_secrets(raw):
            value = conceal(value, raw)
        if self._is_blocking and self._blocked.may_mean(name):
            is_left, value = self._blocked.without(name, value)
            if not is_left:
                return _Fact(b"", None, "", 0, ())
        text, leaves = split(value)
        template = self._templates.get((name, text))
        if template is None:
            key = _digest(b"\x02".join((canonical_text(name).encode(), text.encode())))
            listed = tuple(self._moving.leaves(name, value)) if self._moving.may_mean(name) else ()
            template = _Template(key, text, count_leaves(leaves), listed)
            self._templates.put((name, text), template)
        return _Fact(template.shape_key, template.text, leaves, template.leaf_count, template.listed)

    def _listed(self, shape_digest: bytes, facts: Sequence[_Fact]) -> list[int]:
        """The places of leaves that are known to move: the same for all facts of a shape."""
        found = self._places.get(shape_digest)
        if found is None:
            places: list[int] = []
            first = 0
            for fact in facts:
                places += [first + place for place in fact.listed]
                first += fact.leaf_count
            found = tuple(places)
            self._places.put(shape_digest, found)
        return list(found)

    def _shape(
        self, digest: bytes, names: list[str], facts: list[_Fact], *, is_complete: bool
    ) -> Shape | None:
        if self._sent.get(digest) and not is_complete:
            return None
        self._sent.put(digest, True)
        plain = [_plain_name(name) for name in names]
        exact = None if plain == names else json.dumps(names)
        return Shape(plain, [fact.template or "" for fact in facts], exact)


def _plain_name(name: str) -> str:
    # U+0002 stands between names on their way into the database.
    return nearest_text(name).replace("\x02", "\ufffd")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]
