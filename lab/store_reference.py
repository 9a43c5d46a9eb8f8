"""What the tables must hold and which rows must be written, in plain Python: no digest, no cache, no SQL."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable
from datetime import datetime
from typing import Any, NamedTuple

from ingest.core.catalog.decoding import Decoding
from ingest.core.catalog.diff import CHUNK_SLOTS
from ingest.core.catalog.formats import Command, Skim, skim
from ingest.core.catalog.model import Catalog
from ingest.core.catalog.normalise import normalise
from ingest.core.catalog.wire import canonical_json, to_wire
from ingest.core.delivery.work import Descriptor, Full
from lab.decoding import work_of
from lab.store_model import LATE, START


class Newest(NamedTuple):
    """The catalog that counts of one node."""

    catalog: Catalog
    rank: tuple[datetime, bytes]
    body: bytes
    received_at: datetime


class Node:
    """What is known of one node."""

    def __init__(self) -> None:
        self.newest: Newest | None = None
        self.deactivated: datetime | None = None
        self.is_expired = False

    @property
    def is_active(self) -> bool:
        return self.newest is not None and self.deactivated is None and not self.is_expired


class Reference:
    """A dict of nodes that takes the same messages as the engine."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._contents: dict[str, set[Hashable]] = defaultdict(set)

    def take(self, body: bytes, received_at: datetime = LATE) -> Counter[str]:
        """Returns the rows that differ, by table."""
        skimmed = skim(body, {}, received_at)
        if isinstance(skimmed, Command):
            assert skimmed.certname is not None
            assert skimmed.producer_timestamp is not None
            return self._deactivate(skimmed.certname, skimmed.producer_timestamp)
        return self._replace(Newest(normalise(skimmed), _rank(skimmed, body), body, received_at))

    def expire(self, before: datetime) -> list[str]:
        """Nodes whose catalog came before that; returns those that were active."""
        gone = [
            name
            for name, node in self.nodes.items()
            if node.is_active and node.newest and node.newest.received_at < before
        ]
        for certname in gone:
            self.nodes[certname].is_expired = True
        return sorted(gone)

    def purge(self, deactivated_before: datetime, *, expired: bool) -> int:
        """Deletes deactivated and, if asked, expired nodes; returns how many."""
        gone = [
            name
            for name, node in self.nodes.items()
            if (node.deactivated < deactivated_before if node.deactivated else node.is_expired and expired)
        ]
        for certname in gone:
            del self.nodes[certname]
        return len(gone)

    def catalogs(self) -> dict[str, Any]:
        """Wire form by certname, of active and other nodes."""
        return {name: to_wire(node.newest.catalog) for name, node in self.nodes.items() if node.newest}

    def exported(self, type_: str) -> list[tuple[str, str, Any]]:
        """(certname, title, parameters) as a collector sees them."""
        return sorted(
            (name, resource.title, resource.parameters)
            for name, node in self.nodes.items()
            if node.is_active and node.newest
            for resource in node.newest.catalog.resources
            if resource.exported and resource.type == type_
        )

    def _replace(self, incoming: Newest) -> Counter[str]:
        rows: Counter[str] = Counter()
        header = incoming.catalog.header
        if header.certname not in self.nodes:
            self.nodes[header.certname] = Node()
            rows["nodes"] += 1
        node = self.nodes[header.certname]
        before = node.newest
        if before is not None and incoming.rank < before.rank:
            return rows
        if (
            before is not None
            and incoming.rank == before.rank
            and incoming.body == before.body
            and not node.is_expired
        ):
            return rows  # the same message once more
        rows["catalogs"] += 1
        if node.is_expired or (node.deactivated and node.deactivated < header.producer_timestamp):
            rows["nodes"] += 1
            node.is_expired = False
            if node.deactivated and node.deactivated < header.producer_timestamp:
                node.deactivated = None
        node.newest = incoming
        old = _Shape(before.catalog) if before else None
        return rows + self._content_rows(_Shape(incoming.catalog), old)

    def _content_rows(self, new: _Shape, old: _Shape | None) -> Counter[str]:
        rows: Counter[str] = Counter()
        for table, wanted in new.contents.items():
            rows[table] = len(wanted - self._contents[table])
            self._contents[table] |= wanted
        slots_before = _chunks(old.slots) if old else []
        slots = _chunks(new.slots)
        rows["catalog_resources"] = abs(len(slots) - len(slots_before)) + sum(
            a != b for a, b in zip(slots, slots_before, strict=False)
        )
        rows["catalog_exports"] = int(new.exports != (old.exports if old else frozenset()))
        return rows

    def _deactivate(self, certname: str, timestamp: datetime) -> Counter[str]:
        rows: Counter[str] = Counter()
        if certname not in self.nodes:
            self.nodes[certname] = Node()
            rows["nodes"] += 1
        node = self.nodes[certname]
        is_overtaken = node.newest is not None and _time(node) > timestamp
        if not is_overtaken and (node.deactivated is None or node.deactivated < timestamp):
            node.deactivated = timestamp
            rows["nodes"] += 1
        return rows


class _Shape:
    """A catalog as the rows that hold it."""

    def __init__(self, catalog: Catalog) -> None:
        places = {resource.ref: slot for slot, resource in enumerate(catalog.resources)}
        self.slots = [
            canonical_json((r.type, r.title, r.exported, r.kind, r.tags, r.parameters, r.extra))
            for r in catalog.resources
        ]
        self.exports = frozenset(
            content for content, r in zip(self.slots, catalog.resources, strict=True) if r.exported
        )
        positions = tuple((r.file, r.line) for r in catalog.resources)
        edges = tuple((places[e.source], places[e.target], e.relationship) for e in catalog.edges)
        self.contents: dict[str, set[Hashable]] = {
            "resources": set(self.slots),
            "tags": {tag for r in catalog.resources for tag in r.tags},
            "positions": set(positions),
            "position_sets": {positions},
            "edge_sets": {edges},
        }


def _chunks(slots: list[bytes]) -> list[list[bytes]]:
    return [slots[at : at + CHUNK_SLOTS] for at in range(0, len(slots), CHUNK_SLOTS)]


def _time(node: Node) -> datetime:
    assert node.newest is not None
    return node.newest.catalog.header.producer_timestamp


def _rank(skimmed: Skim, body: bytes) -> tuple[datetime, bytes]:
    """Between equal times the engine's content digest decides; nothing else here knows of digests."""
    descriptor = Descriptor(1, 1, 0, len(body), len(body), START, {}, complete=True)
    work = work_of(Decoding(1 << 20), descriptor, body, {})
    assert isinstance(work, Full)
    return skimmed.header.producer_timestamp, work.content_digest
