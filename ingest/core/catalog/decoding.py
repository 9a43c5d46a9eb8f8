"""From a message's bytes to a writer's work: pure but for its caches, which only ever save work.

Theory of operation. Most catalogs are unchanged, and most resources of a changed one are known. So each step is only taken
where the one before was not enough:

    recognise      find the sections, parse only the header           recognise.py (layout.py, formats.py)
    fingerprint    are these the very bytes that are stored? a claim   fingerprint.py
    compare        with the last catalog like it                      baselines.py (baseline.py, array_delta.py)
    normalise      what differs and was never met before              resource_cache.py (normalise.py, storable.py)
    work           what the writer needs                              catalog_sets.py (edges.py, edge_delta.py), early.py
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter

from ingest.core.catalog.array_delta import elements
from ingest.core.catalog.baseline import Delta, Replacement, all_resources, delta_of, make_baseline
from ingest.core.catalog.baselines import Baselines
from ingest.core.catalog.cache import CachedSet
from ingest.core.catalog.catalog_sets import SetCache
from ingest.core.catalog.early import EarlyBatches
from ingest.core.catalog.edge_delta import KnownEdges
from ingest.core.catalog.fingerprint import Fingerprints
from ingest.core.catalog.formats import Command, Skim, slices
from ingest.core.catalog.layout import Cut
from ingest.core.catalog.model import Header
from ingest.core.catalog.recognise import Recogniser
from ingest.core.catalog.resource_cache import ResourceCache, content_of
from ingest.core.delivery.commands import refusal
from ingest.core.delivery.decoding import DecoderSettings, KnownDigests
from ingest.core.delivery.routing import lane_of
from ingest.core.delivery.work import (
    DIGEST_BYTES,
    Claim,
    Descriptor,
    EarlyContents,
    EdgeSet,
    Full,
    PositionSet,
    SectionDigests,
)
from ingest.core.metrics import Metric
from ingest.core.plain_text import are_plain, require_plain
from ingest.errors import Rejected

_TEXTS = ("certname", "version", "environment", "producer", "code_id", "job_id")
_texts_of = attrgetter(*_TEXTS)
Decoded = Claim | Full | EarlyContents


def open_decoder(settings: DecoderSettings) -> Decoding:
    """A decoder process's knowledge of catalogs."""
    return Decoding(
        settings.cache_bytes_max,
        seed=settings.seed,
        lanes=settings.lanes,
        thin=settings.thin,
        early_bytes=settings.early_bytes,
    )


class Decoding:
    """One decoder's knowledge and its one verb. ``seed`` is that of fingerprints; ``early_bytes``: of that many bytes of new
    resources and more the contents go before the rest, in pieces of that size; None: with it."""

    def __init__(
        self,
        cache_bytes_max: int,
        *,
        seed: int = 0,
        lanes: int = 1,
        thin: bool = False,
        early_bytes: int | None = None,
    ) -> None:
        self.baselines = Baselines(cache_bytes_max * 6 // 16)
        self.resources = ResourceCache(cache_bytes_max * 9 // 16, self.baselines.forget_oldest, seed)
        self._sets = SetCache(cache_bytes_max // 16, thin=thin)
        self._recogniser = Recogniser()
        self._fingerprints = Fingerprints(seed, thin=thin)
        self._lanes = lanes
        self._thin = thin
        self._early_bytes = None if thin else early_bytes

    @property
    def totals(self) -> Mapping[str, float]:
        """What was measured since the start, by metric."""
        return {
            Metric.CACHE_HITS.declared.name: self.resources.hits,
            Metric.CACHE_MISSES.declared.name: self.resources.misses,
        }

    def decode(self, descriptor: Descriptor, body: memoryview, known: KnownDigests) -> Iterator[Decoded]:
        """The work that a body makes, measured against what is known of its node: the last one given. Before it comes what a
        writer can have early. Raises Rejected."""
        if not descriptor.complete and (
            glimpsed := self._recogniser.glance(descriptor, body, self.baselines.likely_layout)
        ):
            try:
                yield from self._catalog(descriptor, glimpsed, known)
            except Rejected:
                pass  # by the cut, or by the catalog: only a whole parse can tell
            else:
                return
        recognised = self._recogniser.skim(descriptor, body)
        if isinstance(recognised, Command):
            raise refusal(recognised.command, recognised.version)
        yield from self._catalog(descriptor, recognised, known)

    def _catalog(self, descriptor: Descriptor, recognised: Cut, known: KnownDigests) -> Iterable[Decoded]:
        header = recognised.skimmed.header
        _require_plain(header)
        stored = None if descriptor.complete else known.get(header.certname)
        sections, is_unchanged = self._fingerprints.compare(recognised.skimmed, stored)
        if is_unchanged:
            return (Claim(descriptor.delivery, header, descriptor.received_at, sections),)
        return self._changed(descriptor, recognised, sections)

    def _changed(
        self, descriptor: Descriptor, recognised: Cut, sections: SectionDigests
    ) -> Iterator[Decoded]:
        try:
            yield from self._whole(descriptor, recognised, sections)
        except RecursionError as error:
            raise Rejected("too_deep", "the JSON is nested too deeply") from error
        finally:
            self.resources.forget_large()

    def _whole(
        self, descriptor: Descriptor, recognised: Cut, sections: SectionDigests
    ) -> Iterator[EarlyContents | Full]:
        skimmed, certname = recognised.skimmed, recognised.skimmed.header.certname
        lane = 1 << lane_of(certname, self._lanes)
        early = EarlyBatches(
            None if descriptor.complete else self._early_bytes, descriptor.delivery, certname, lane
        )
        evictions = self.resources.evictions
        delta = yield from self._find_resources(skimmed, descriptor.length, early)
        edges = self._sets.edges(skimmed.edges, delta)
        # A baseline needs its resources: if some of them are forgotten already, they would take memory that nobody counts.
        if self.resources.evictions == evictions:
            self._remember(delta, edges, recognised, descriptor.length)
        yield _work(descriptor, skimmed.header, sections, delta, edges, self._sets.positions(delta), lane)

    def _find_resources(
        self, skimmed: Skim, length: int, early: EarlyBatches
    ) -> Generator[EarlyContents, None, Delta]:
        """Every resource of the catalog: those that stand where they stood in one like it, and the others."""
        section, family = memoryview(skimmed.resources), skimmed.family
        compared = self.baselines.compare(section, length, family)
        if compared is None:
            strict = elements(section)  # None: not as it lies there, or not at all
            raws = slices(section) if strict is None else strict
            resources = yield from early.of(self.resources.find(raws, family))
            yield from early.rest()
            text = bytes(section) if strict is not None else b""
            return Delta(make_baseline(text, resources, thin=self._thin), {})
        raws = [raw for difference in compared.differences for raw in difference.raws]
        found = iter((yield from early.of(self.resources.find(raws, family))))
        replacements = [
            Replacement(difference, list(islice(found, len(difference.raws))))
            for difference in compared.differences
        ]
        self.resources.hits += compared.same
        delta = delta_of(compared.baseline, replacements)
        if delta is not None:
            return delta
        yield from early.rest()
        resources = all_resources(compared.baseline, replacements)
        parent = compared.baseline if compared.same >= len(resources) / 2 else None  # or of another kind
        return Delta(make_baseline(bytes(section), resources, thin=self._thin, parent=parent), {})

    def _remember(self, delta: Delta, edges: CachedSet[EdgeSet], recognised: Cut, length: int) -> None:
        """A baseline of its own, for the next one like it."""
        baseline = delta.baseline
        if baseline.family or baseline.array is None:
            return  # it is remembered already, or nothing can be compared with it
        baseline.family, baseline.layout = recognised.skimmed.family, recognised.layout
        if not self._thin and not edges.is_guessed:
            baseline.edges = KnownEdges(edges, bytes(recognised.skimmed.edges), baseline.slots)
        self.baselines.put(baseline, length)


def _work(
    descriptor: Descriptor,
    header: Header,
    sections: SectionDigests,
    delta: Delta,
    edges: CachedSet[EdgeSet],
    positions: CachedSet[PositionSet],
    lane: int,
) -> Full:
    """All of it as digests, and the contents that this lane (a bit) was not given yet."""
    everything = descriptor.complete
    digests = delta.digests
    unsent = delta.give(lane, everything=everything)
    full = Full(
        delivery=descriptor.delivery,
        header=header,
        received_at=descriptor.received_at,
        sections=sections,
        content_digest=_digest(digests + edges.digest + positions.digest),
        digests=digests,
        exported=delta.baseline.exported,
        edge_set=edges.digest,
        position_set=positions.digest,
        contents={slot: content_of(resource) for slot, resource in unsent.items()},
        edges=edges.content if everything or not edges.sent & lane else None,
        positions=positions.content if everything or not positions.sent & lane else None,
        complete=everything,
    )
    edges.sent |= lane
    positions.sent |= lane
    return full


def _require_plain(header: Header) -> None:
    texts = _texts_of(header)
    # All at once, for the many that are.
    if not are_plain(texts):
        for name, text in zip(_TEXTS, texts, strict=True):
            require_plain(name, text)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]
